// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/report"
	"xfrmscope/internal/verdict"
)

func text(t *testing.T, d report.Document) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// manySAs is a gateway with n healthy SAs and some that lose packets.
func manySAs(n, lossy int) ledger.Report {
	w := ledgertest.New()
	var sas []*ledgertest.SA
	for i := range n + lossy {
		sas = append(sas, w.Inbound(ledger.SPI(0x1000+i), 32, false))
	}
	return w.Run(func() {
		for i, sa := range sas {
			sa.Deliver(100)
			if i >= n {
				sa.Lose(1)
			}
		}
	})
}

func TestLongLists(t *testing.T) {
	d := report.New(manySAs(60, 5))
	got := text(t, d)
	for _, tc := range []struct {
		part string
		want int
	}{
		{"confidence", 5},                    // every finding has its line
		{"What to do", 3},                    // three of a kind in full
		{"as for the others of its kind", 2}, // the rest refer to them
		{"sent by the peer", 5},              // every SA that suffers in full
		{"sent 100, arrived 100", 40},        // healthy ones a line each, up to a limit
		{"and 20 more healthy SAs", 1},
	} {
		if n := strings.Count(got, tc.part); n != tc.want {
			t.Errorf("%q stands %d times, want %d", tc.part, n, tc.want)
		}
	}
}

// TestHostileNames: names of files and namespaces must not steer the terminal.
func TestHostileNames(t *testing.T) {
	r := ledger.New(ledger.Source{Kind: ledger.KindCapture, Name: "a\x1b[2Jb\rc.pcap", Netns: "x\ny"}).Report()
	got := text(t, report.New(r))
	if strings.ContainsAny(got, "\x1b\r") || !strings.Contains(got, "a?[2Jb?c.pcap") {
		t.Errorf("control characters reach the terminal: %q", got)
	}
}

// TestBlockAddsUp reads the printed block back and adds it up, as its reader would.
func TestBlockAddsUp(t *testing.T) {
	w := ledgertest.New()
	in, out := w.Inbound(1, 32, false), w.Outbound(2)
	got := text(t, report.New(w.Run(func() {
		in.Deliver(1234567)
		in.Lose(89)
		in.Pend(3)
		in.Repeat(7, 1)
		in.Corrupt(5)
		in.Vanish(4)
		in.Lag(11)
		in.Block(6, ledger.PolBlock)
		out.Send(1000)
		out.Drop(5, ledger.OutExpired)
		out.Number(3)
	})))
	sum, checked := int64(0), 0
	for line := range strings.Lines(got) {
		sign, n, ok := term(line)
		if !ok {
			continue
		}
		switch sign {
		case " ":
			sum = n
		case "+":
			sum += n
		case "-":
			sum -= n
		case "=":
			checked++
			if n != sum {
				t.Errorf("the lines above add up to %d: %s", sum, line)
			}
		}
	}
	if checked != 6 {
		t.Errorf("%d sums checked, want 6", checked)
	}
}

// term reads one line of a block: sign, figure; a question mark counts for nothing.
func term(line string) (sign string, n int64, ok bool) {
	if len(line) < 50 || !strings.HasPrefix(line, "     ") || !strings.Contains(" +-=", line[5:6]) || line[6] != ' ' || line[7] == ' ' {
		return "", 0, false
	}
	field := strings.TrimSpace(line[36:min(len(line), 51)])
	if field == "?" {
		return line[5:6], 0, true
	}
	negative := strings.HasPrefix(field, "-")
	digits := strings.NewReplacer(",", "", "-", "").Replace(field)
	if digits == "" {
		return "", 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return "", 0, false
		}
		n = 10*n + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return line[5:6], n, true
}

type brokenPipe struct{ left int }

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

var errBroken = errors.New("broken pipe")

func TestWriteError(t *testing.T) {
	d := report.New(manySAs(3, 1))
	if err := d.WriteText(&brokenPipe{left: 100}); !errors.Is(err, errBroken) {
		t.Errorf("WriteText on a broken pipe: %v", err)
	}
	if err := d.WriteJSON(&brokenPipe{left: 100}); !errors.Is(err, errBroken) {
		t.Errorf("WriteJSON on a broken pipe: %v", err)
	}
}

func TestExitCode(t *testing.T) {
	if got := report.New(manySAs(2, 0)).ExitCode(); got != 0 {
		t.Errorf("exit code %d of a clean run", got)
	}
	if got := report.New(manySAs(1, 1)).ExitCode(); got != 1 {
		t.Errorf("exit code %d of a run with loss", got)
	}
	if got := (report.Document{Findings: []verdict.Finding{{Severity: verdict.Info}}}).ExitCode(); got != 0 {
		t.Errorf("exit code %d for information alone", got)
	}
}
