// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/record"
	"xfrmscope/internal/report"
)

// keep records what a world does in steps of a second, and gives the report that a ledger beside it drew up.
func keep(t testing.TB, w *ledgertest.World, steps ...func()) (path string, live ledger.Report) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run.xsr")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	source := ledger.Source{Kind: ledger.KindLive, Name: "gw", Kernel: "6.1.0"}
	rec, err := record.Create(f, record.Header{Source: source}, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := ledger.New(source)
	observe := func() {
		s := w.Snapshot()
		l.SetHooks(w.Hooks)
		if err := rec.Hooks(w.Hooks); err != nil {
			t.Fatal(err)
		}
		if err := rec.Snapshot(s); err != nil {
			t.Fatal(err)
		}
		l.Observe(s)
	}
	observe()
	for _, step := range steps {
		w.Tick(time.Second)
		step()
		observe()
	}
	if err := rec.Close(record.EndTime); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path, l.Report()
}

func asJSON(t testing.TB, r ledger.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.New(r).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// trouble is a gateway with a bit of everything, for ten seconds.
func trouble() (*ledgertest.World, []func()) {
	w := ledgertest.New()
	w.Furnish()
	w.Hooks = []ledger.Hook{{Name: "wire ingress wan", Attached: true, Why: "xdp"}}
	in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
	var steps []func()
	for i := range 10 {
		steps = append(steps, func() {
			in.Deliver(1000)
			out.Send(900)
			switch i {
			case 2:
				in.Lose(40)
			case 4:
				in.Reorder(5, 60)
				in.Repeat(3, 1)
			case 6:
				in.End(ledger.EndDeleted)
				in = w.Inbound(0xc0ffee03, 64, true)
				w.Inbound(0xc0ffee00, 64, true).Deliver(7)
			case 8:
				out.Spill(6, "kfree_skb_list_reason", "QDISC_DROP")
				in.Swallow(2, "ip_error", "NOT_SPECIFIED", "")
				w.Hooks = append(w.Hooks, ledger.Hook{Name: "policies over netlink", Why: "gone"})
			}
		})
	}
	return w, steps
}

// TestReplay: a recording gives the very report that was given live, but for the kind of its source.
func TestReplay(t *testing.T) {
	w, steps := trouble()
	path, live := keep(t, w, steps...)
	var seen []int
	out, err := record.Replay(path, record.ReplayOptions{Snapshot: func(_ ledger.Snapshot, l *ledger.Ledger) error {
		seen = append(seen, len(l.Report().SAs))
		return nil
	}})
	if err != nil || out.Damage != nil || out.End == nil {
		t.Fatalf("%v, damage %v, end %v", err, out.Damage, out.End)
	}
	live.Source.Kind = ledger.KindRecording
	if diff := cmp.Diff(asJSON(t, live), asJSON(t, out.Report)); diff != "" {
		t.Errorf("report (-live +recording):\n%s", diff)
	}
	if len(report.New(out.Report).Findings) < 3 {
		t.Errorf("findings: %+v", report.New(out.Report).Findings)
	}
	if diff := cmp.Diff([]int{2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4}, seen); diff != "" {
		t.Errorf("SAs from second to second (-want +got):\n%s", diff)
	}
}

// TestSpan: of a part of the time the report counts that part only.
func TestSpan(t *testing.T) {
	w, steps := trouble()
	path, _ := keep(t, w, steps...)
	at := func(s float64) time.Time { return ledgertest.Start.Add(time.Duration(s * float64(time.Second))) }
	for _, tc := range []struct {
		name          string
		from, to      time.Time
		lost, arrived int64
		seconds       float64
		outside       bool
	}{
		{name: "all", lost: 40, arrived: 7008, seconds: 10},
		{name: "before the loss", to: at(2), arrived: 2000, seconds: 2},
		{name: "the loss", from: at(2), to: at(3), lost: 40, arrived: 1000, seconds: 1},
		{name: "between two snapshots", from: at(2.5), to: at(3.5), lost: 40, arrived: 1000, seconds: 1},
		{name: "after the loss", from: at(3), arrived: 4008, seconds: 7},
		{name: "before it began", from: at(-60), to: at(1), arrived: 1000, seconds: 1},
		{name: "too late", from: at(100), outside: true},
		{name: "too early", to: at(-1), outside: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := record.Replay(path, record.ReplayOptions{From: tc.from, To: tc.to})
			if tc.outside {
				if err == nil {
					t.Errorf("a report of %v to %v", tc.from, tc.to)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b := out.Report.SAs[0].Ledger.In
			if sa := out.Report.SAs[0]; sa.SPI == 0xc0ffee00 {
				b = out.Report.SAs[1].Ledger.In
			}
			if *b.LostOnPath != tc.lost || *b.Arrivals != tc.arrived || out.Report.Source.DurationS != tc.seconds {
				t.Errorf("lost %d, arrived %d in %v s, want %d, %d in %v s", *b.LostOnPath, *b.Arrivals, out.Report.Source.DurationS,
					tc.lost, tc.arrived, tc.seconds)
			}
		})
	}
}
