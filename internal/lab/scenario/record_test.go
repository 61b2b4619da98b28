// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// recorded is what a report of a recording says, and its exit code.
func recorded(t *testing.T, file string, flags ...string) (d document, exit int) {
	t.Helper()
	cmd := exec.Command(binary(t), append([]string{"report", file, "--json"}, flags...)...)
	text, err := cmd.Output()
	if exit = cmd.ProcessState.ExitCode(); exit != 0 && exit != 1 {
		t.Fatalf("report %s: %v", file, err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatalf("read report of %s: %v\n%s", file, err, text)
	}
	return d, exit
}

// TestRecord keeps a run with a fault of each kind in a file. What the file says is held against what was
// injected, packet by packet, and its findings against those of the rows: once as it stood on the disk while
// it was being written, which is what a crash would have left, and once as it ended.
func TestRecord(t *testing.T) {
	tunnel.Need(t)
	rows := []row{clean, mixed}
	var rules []inject.Rule
	for i, r := range rows {
		for _, rule := range r.rules {
			rule.SPI = tunnel.FirstSPIAtoB + uint32(i)
			rules = append(rules, rule)
		}
	}
	b := raise(t, tunnel.Options{Pairs: len(rows)}, func(*tunnel.Tunnel) error { return nil }, rules)
	file, crashed := filepath.Join(t.TempDir(), "whole.xsr"), filepath.Join(t.TempDir(), "crashed.xsr")
	keeper := launch(t, b.tunnel.B, "record", "-o", file)
	for range packets / burst {
		for _, s := range b.tunnel.AtoB {
			b.send(s, burst)
		}
	}
	b.settle()
	all, findings, want := map[string]int64{}, []string{}, []string{}
	for i, r := range rows {
		for cause, n := range r.faults.causes {
			all[cause] += n
		}
		for _, id := range r.findings {
			findings = append(findings, id+" "+name(b.tunnel.AtoB[i].SPI))
		}
	}
	want = append(want, findings...)
	slices.Sort(want)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Second) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(crashed, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if d, _ := recorded(t, crashed); slices.Equal(ids(d), want) && d.settled() && b.hasArrived(d) {
			break
		}
	}
	seen := observation{stat: b.moved()}
	if exit := keeper.end(t); exit != 0 {
		t.Errorf("record exits with %d: %s", exit, keeper.stderr.Bytes())
	}
	t.Logf("%s", keeper.stderr.Bytes())
	if err := b.path.Err(); err != nil {
		t.Fatal(err)
	}
	b.checkLink()
	for _, path := range []string{crashed, file} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			seen := seen
			seen.report, seen.exit = recorded(t, path)
			if seen.report.Source.Kind != "recording" {
				t.Errorf("the source is %q", seen.report.Source.Kind)
			}
			diff(t, "exit code", 1, seen.exit)
			for i, r := range rows {
				b.as(t).checkRow(seen, r, b.tunnel.AtoB[i], b.tunnel.BtoA[i])
			}
			b.as(t).checkStat(seen, all)
			seen.checkFindings(t, findings...)
			seen.checkSelf(t)
			for _, s := range seen.report.SAs {
				if u := s.Ledger.Unattributed; u != nil && *u != 0 {
					t.Errorf("%d packets of SA %s %s are unattributed", *u, s.SPI, s.Direction)
				}
			}
		})
	}
	// Nothing was lost before anything was sent.
	if early, exit := recorded(t, file, "--to", "1ms"); exit != 0 || len(early.Findings) != 0 {
		t.Errorf("the first moment has findings: %+v", early.Findings)
	}
}

// hasArrived says that a report knows every packet that came out of the path.
func (b *bench) hasArrived(d document) bool {
	for _, s := range b.tunnel.AtoB {
		i := slices.IndexFunc(d.SAs, func(r sa) bool { return r.SPI == name(s.SPI) && r.Wire != nil })
		if i < 0 || d.SAs[i].Wire.Packets != int64(len(b.path.Truth(inject.AtoB, s.SPI).Out)) {
			return false
		}
	}
	return true
}

// settled says that no number is waited for any more.
func (d document) settled() bool {
	for _, s := range d.SAs {
		for _, n := range []*int64{s.Ledger.Pending, s.Ledger.InFlight} {
			if n != nil && *n != 0 {
				return false
			}
		}
	}
	return len(d.SAs) > 0
}

func ids(d document) []string {
	out := []string{}
	for _, f := range d.Findings {
		out = append(out, f.ID+" "+f.Subject.SPI)
	}
	slices.Sort(out)
	return out
}
