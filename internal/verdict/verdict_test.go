// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// scenario is one fault with exact counts and the one finding that it must give.
type scenario struct {
	name    string
	prepare func(*ledgertest.World) func()
	want    []verdict.ID
	folded  []verdict.ID // consequences of the first finding
	says    []string     // parts of its summary
	grade   verdict.Severity
	sure    float64
}

var scenarios = []scenario{
	{name: "clean", prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		out := w.Outbound(0xc0ffee02)
		return func() { sa.Deliver(1000); out.Send(1000) }
	}},
	{name: "idle", prepare: func(w *ledgertest.World) func() {
		w.Inbound(0xc0ffee01, 32, false)
		return func() {}
	}},
	{name: "lost", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(500); sa.Lose(7); sa.Deliver(493) }),
		want: []verdict.ID{verdict.PathLoss}, says: []string{"7 packets of 1000 (0.70 %) were lost"},
		grade: verdict.Warning, sure: 0.95},
	{name: "heavily lost", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(90); sa.Lose(10) }),
		want: []verdict.ID{verdict.PathLoss}, grade: verdict.Critical, sure: 0.95},
	{name: "hardly lost", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(99999); sa.Lose(1) }),
		want: []verdict.ID{verdict.PathLoss}, says: []string{"1 packet of 100000 (0.001 %)"}, grade: verdict.Info, sure: 0.95},
	{name: "pending only", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Pend(3) })},
	{name: "duplicated", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(6, 3) }),
		want: []verdict.ID{verdict.DuplicatePackets}, says: []string{"6 packets arrived more than once", "no data was lost"},
		grade: verdict.Warning, sure: 0.99},
	{name: "duplicated below the window", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(4, 200) }),
		want: []verdict.ID{verdict.DuplicatePackets}, folded: []verdict.ID{verdict.ReplayWindowTooSmall},
		grade: verdict.Warning, sure: 0.99},
	{name: "duplicated below the window under ESN", prepare: inbound(32, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(4, 200) }),
		want: []verdict.ID{verdict.DuplicatePackets}, folded: []verdict.ID{verdict.ESNMisEpoch},
		grade: verdict.Warning, sure: 0.99},
	{name: "reordered inside the window", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(9, 31) })},
	{name: "reordered by exactly the window", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(9, 32) }),
		want: []verdict.ID{verdict.ReplayWindowTooSmall}, says: []string{"9 packets (0.89 %", "A window of 33 would have lost nothing; set 64."},
		grade: verdict.Warning, sure: 0.99},
	{name: "reordered beyond the window", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(100); sa.Reorder(9, 127) }),
		want: []verdict.ID{verdict.ReplayWindowTooSmall}, says: []string{"A window of 128 would have lost nothing; set 128."},
		grade: verdict.Critical, sure: 0.99},
	{name: "reordered beyond any window", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(2, 4096) }),
		want: []verdict.ID{verdict.ReplayWindowTooSmall}, says: []string{"A window of 4097 would have lost nothing, and Linux has none above 4096."},
		grade: verdict.Warning, sure: 0.99},
	{name: "reordered within this host", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.ReorderInside(2, 70) }),
		want: []verdict.ID{verdict.ReplayWindowTooSmall}, says: []string{"set 128."}, grade: verdict.Warning, sure: 0.99},
	{name: "late under ESN", prepare: inbound(64, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(5, 300) }),
		want: []verdict.ID{verdict.ESNMisEpoch}, folded: []verdict.ID{verdict.IntegrityFailed},
		says: []string{"5 packets", "A window of 301 would have lost nothing; set 512."}, grade: verdict.Warning, sure: 0.99},
	{name: "corrupted", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Corrupt(4) }),
		want: []verdict.ID{verdict.IntegrityFailed}, says: []string{"4 packets", "while others passed"}, grade: verdict.Warning, sure: 0.99},
	{name: "corrupted under ESN", prepare: inbound(64, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Corrupt(4) }),
		want: []verdict.ID{verdict.IntegrityFailed}, grade: verdict.Warning, sure: 0.99},
	{name: "wrong key", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Corrupt(40) }),
		want: []verdict.ID{verdict.IntegrityFailed}, says: []string{"all 40 packets", "do not agree on key"}, grade: verdict.Critical, sure: 0.99},
	{name: "unknown SPI", prepare: func(w *ledgertest.World) func() {
		sa, alien := w.Inbound(0xc0ffee01, 32, false), w.Foreign(0xdeadbeef)
		return func() { sa.Deliver(1000); alien.Knock(12) }
	}, want: []verdict.ID{verdict.SPIUnknown}, says: []string{"12 packets from 192.0.2.1", "0xdeadbeef"}, grade: verdict.Warning, sure: 0.99},
	{name: "deleted under traffic", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.End(ledger.EndDeleted); sa.Knock(50) }),
		want: []verdict.ID{verdict.SPIUnknown}, says: []string{"50 packets", "came after it was gone", "deleted at 03:00:00", "reqid 1", "No other SA"},
		grade: verdict.Critical, sure: 0.99},
	{name: "deleted under traffic after a rekey", prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(1000)
			w.Tick(time.Second)
			next := w.Inbound(0xc0ffee03, 32, false)
			sa.End(ledger.EndDeleted)
			sa.Knock(3)
			next.Deliver(500)
		}
	}, want: []verdict.ID{verdict.SPIUnknown}, says: []string{"SA 0xc0ffee03 has taken over."}, grade: verdict.Warning, sure: 0.99},
	{name: "look-up misses an SA that is there", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Knock(8) }),
		want: []verdict.ID{verdict.SPIUnknown}, says: []string{"although it was there all the time"}, grade: verdict.Critical, sure: 0.8},
	{name: "hard-expired", prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(1000)
		sa.Refuse(1, ledger.StateExpired)
		sa.Refuse(2, ledger.StateInvalid)
		sa.End(ledger.EndExpired)
		sa.Knock(30)
	}), want: []verdict.ID{verdict.SAExpired}, folded: []verdict.ID{verdict.SAInvalid, verdict.SPIUnknown},
		says: []string{"33 packets were dropped", "No other SA"}, grade: verdict.Critical, sure: 0.99},
	{name: "expired unnoticed", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(10); sa.End(ledger.EndExpired) })},
	{name: "invalid", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(10); sa.Refuse(3, ledger.StateInvalid) }),
		want: []verdict.ID{verdict.SAInvalid}, says: []string{"3 packets"}, grade: verdict.Warning, sure: 0.99},
	{name: "replay window 0", prepare: inbound(0, false, func(sa *ledgertest.SA) { sa.Deliver(1000) }),
		want: []verdict.ID{verdict.ReplayWindowZero}, grade: verdict.Info, sure: 0.99},
	{name: "replay window 0 hides no loss", prepare: inbound(0, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Lose(5) }),
		want: []verdict.ID{verdict.PathLoss, verdict.ReplayWindowZero}, grade: verdict.Warning, sure: 0.95},
	{name: "replay window 0 and duplicates", prepare: inbound(0, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(5, 1) }),
		want: []verdict.ID{verdict.ReplayWindowZero, verdict.DuplicatePackets}, says: []string{"5 packets came twice"}, grade: verdict.Warning, sure: 0.99},
	{name: "one of two suffers", prepare: func(w *ledgertest.World) func() {
		a, b := w.Inbound(0xc0ffee01, 32, false), w.Inbound(0xc0ffee03, 32, false)
		return func() { a.Deliver(1000); b.Deliver(900); b.Lose(4) }
	}, want: []verdict.ID{verdict.PathLoss}, says: []string{"0xc0ffee03"}, grade: verdict.Warning, sure: 0.95},
	{name: "both directions", prepare: func(w *ledgertest.World) func() {
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() { in.Deliver(1000); in.Lose(4); out.Send(1000) }
	}, want: []verdict.ID{verdict.PathLoss}, grade: verdict.Warning, sure: 0.95},
	{name: "loss and reordering are two faults", prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Lose(2); sa.Reorder(3, 40) }),
		want: []verdict.ID{verdict.ReplayWindowTooSmall, verdict.PathLoss}, says: []string{"3 packets"}, grade: verdict.Warning, sure: 0.99},
	{name: "passing ESP with gaps is not ours", prepare: func(w *ledgertest.World) func() {
		alien := w.Foreign(0xdeadbeef)
		return func() { alien.Vanish(10); alien.Lose(5) }
	}},
	{name: "an outbound gap is not path loss", prepare: func(w *ledgertest.World) func() {
		out := w.Outbound(0xc0ffee02)
		return func() { out.Send(100); out.Number(3); out.Lose(3); out.Send(10) }
	}},
}

// inbound is a world of one SA towards here.
func inbound(window uint32, esn bool, happen func(*ledgertest.SA)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, window, esn)
		return func() { happen(sa) }
	}
}

func (s *scenario) run() ledger.Report {
	w := ledgertest.New()
	return w.Run(s.prepare(w))
}

func ids(findings []verdict.Finding) []verdict.ID {
	var out []verdict.ID
	for _, f := range findings {
		out = append(out, f.ID)
	}
	return out
}

func TestJudge(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			got := verdict.Judge(s.run())
			if diff := cmp.Diff(s.want, ids(got)); diff != "" {
				t.Fatalf("findings (-want +got):\n%s", diff)
			}
			if len(got) == 0 {
				return
			}
			f := got[0]
			if f.Severity != s.grade || f.Confidence != s.sure {
				t.Errorf("%s with confidence %v, want %s with %v", f.Severity, f.Confidence, s.grade, s.sure)
			}
			if len(s.folded) != len(f.Consequences) || !slices.Equal(s.folded, f.Consequences) {
				t.Errorf("consequences %v, want %v", f.Consequences, s.folded)
			}
			for _, part := range s.says {
				if !strings.Contains(f.Summary, part) {
					t.Errorf("summary lacks %q: %s", part, f.Summary)
				}
			}
			for _, f := range got {
				if len(f.Evidence) == 0 || len(f.Remedy) == 0 {
					t.Errorf("%s: %d pieces of evidence, %d remedies", f.ID, len(f.Evidence), len(f.Remedy))
				}
			}
		})
	}
}

// TestScenariosAddUp makes sure that a verdict never rests on a ledger that does not add up.
func TestScenariosAddUp(t *testing.T) {
	for _, s := range scenarios {
		if s.name == "passing ESP with gaps is not ours" || s.name == "an outbound gap is not path loss" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			r := s.run()
			for _, sa := range r.SAs {
				if u, known := sa.Ledger.Unattributed(); !known || u != 0 {
					t.Errorf("SA %s: unattributed %d (known: %v)", sa.SPI, u, known)
				}
			}
			if r.Kernel.Reconciled == nil || !*r.Kernel.Reconciled {
				t.Errorf("not reconciled: %v", r.Kernel.Disagreements)
			}
		})
	}
}

func TestExitCode(t *testing.T) {
	for _, tc := range []struct {
		severities []verdict.Severity
		want       int
	}{
		{nil, 0},
		{[]verdict.Severity{verdict.Info}, 0},
		{[]verdict.Severity{verdict.Info, verdict.Warning}, 1},
		{[]verdict.Severity{verdict.Critical}, 1},
	} {
		var f []verdict.Finding
		for _, s := range tc.severities {
			f = append(f, verdict.Finding{Severity: s})
		}
		if got := verdict.ExitCode(f); got != tc.want {
			t.Errorf("ExitCode(%v) = %d, want %d", tc.severities, got, tc.want)
		}
	}
}
