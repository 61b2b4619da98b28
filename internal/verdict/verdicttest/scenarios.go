// SPDX-License-Identifier: Apache-2.0

// Package verdicttest holds the faults that the verdicts are judged by.
package verdicttest

import (
	"slices"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// Scenario is one fault with exact counts and the findings that it must give, the gravest first.
type Scenario struct {
	Name    string
	Prepare func(*ledgertest.World) func()
	Want    []verdict.ID
	Folded  []verdict.ID // consequences of the first finding
	Says    []string     // parts of its summary
	Grade   verdict.Severity
	Sure    float64
	Leaky   bool // the sources do not see everything, so the ledger need not add up
}

// Scenarios lists a scenario for every fault and for what must not be taken for one.
func Scenarios() []Scenario {
	return slices.Concat(
		scenarios,
		wireScenarios,
		natScenarios,
		hostScenarios,
		firewallScenarios,
		policyScenarios,
		configScenarios,
		flowScenarios,
		ikeScenarios,
		pmtuScenarios,
	)
}

var scenarios = []Scenario{
	{Name: "clean", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		out := w.Outbound(0xc0ffee02)
		return func() { sa.Deliver(1000); out.Send(1000) }
	}},
	{Name: "idle", Prepare: func(w *ledgertest.World) func() {
		w.Inbound(0xc0ffee01, 32, false)
		return func() {}
	}},
	{Name: "lost", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(500); sa.Lose(7); sa.Deliver(493) }),
		Want: []verdict.ID{verdict.PathLoss}, Says: []string{"7 packets of 1000 (0.70 %) got lost"},
		Grade: verdict.Warning, Sure: 0.95},
	{Name: "heavily lost", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(90); sa.Lose(10) }),
		Want: []verdict.ID{verdict.PathLoss}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "few lost of few", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(9); sa.Lose(1) }),
		Want: []verdict.ID{verdict.PathLoss}, Says: []string{"1 packet of 10 (10.0 %) got lost"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "hardly lost", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(99999); sa.Lose(1) }),
		Want: []verdict.ID{verdict.PathLoss}, Says: []string{"1 packet of 100000 (0.001 %)"}, Grade: verdict.Info, Sure: 0.95},
	{Name: "pending only", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Pend(3) })},
	{Name: "duplicated", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(6, 3) }),
		Want: []verdict.ID{verdict.DuplicatePackets}, Says: []string{"6 packets arrived more than once", "no data was lost"},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "duplicated below the window", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(4, 200) }),
		Want: []verdict.ID{verdict.DuplicatePackets}, Folded: []verdict.ID{verdict.ReplayWindowTooSmall},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "duplicated below the window under ESN", Prepare: inbound(32, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(4, 200) }),
		Want: []verdict.ID{verdict.DuplicatePackets}, Folded: []verdict.ID{verdict.ESNMisEpoch},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "reordered inside the window", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(9, 31) })},
	{Name: "reordered by exactly the window", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(9, 32) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"9 packets (0.89 %", "A window of 33 would have lost nothing; set 64."},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "reordered beyond the window", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(100); sa.Reorder(10, 127) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"A window of 128 would have lost nothing; set 128."},
		Grade: verdict.Critical, Sure: 0.99},
	{Name: "reordered beyond any window", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(2, 4096) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"A window of 4097 would have lost nothing, and Linux has none above 4096."},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "reordered within this host", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.ReorderInside(2, 70) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"set 128."}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "late under ESN", Prepare: inbound(64, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(5, 300) }),
		Want: []verdict.ID{verdict.ESNMisEpoch}, Folded: []verdict.ID{verdict.IntegrityFailed},
		Says: []string{"5 packets", "A window of 301 would have lost nothing; set 512."}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "corrupted", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Corrupt(4) }),
		Want: []verdict.ID{verdict.IntegrityFailed}, Says: []string{"4 packets", "while others passed"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "corrupted under ESN", Prepare: inbound(64, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Corrupt(4) }),
		Want: []verdict.ID{verdict.IntegrityFailed}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "wrong key", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Corrupt(40) }),
		Want: []verdict.ID{verdict.IntegrityFailed}, Says: []string{"all 40 packets", "do not agree on key"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "unknown SPI", Prepare: func(w *ledgertest.World) func() {
		sa, alien := w.Inbound(0xc0ffee01, 32, false), w.Foreign(0xdeadbeef)
		return func() { sa.Deliver(1000); alien.Knock(12) }
	}, Want: []verdict.ID{verdict.SPIUnknown}, Says: []string{"12 packets from 192.0.2.1", "0xdeadbeef"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "deleted under traffic", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.End(ledger.EndDeleted); sa.Knock(50) }),
		Want: []verdict.ID{verdict.SPIUnknown}, Says: []string{"50 packets", "came after it was gone", "deleted at 03:00:00", "reqid 1", "No other SA"},
		Grade: verdict.Critical, Sure: 0.99},
	{Name: "deleted under traffic after a rekey", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(1000)
			w.Tick(time.Second)
			next := w.Inbound(0xc0ffee03, 32, false)
			sa.End(ledger.EndDeleted)
			sa.Knock(3)
			next.Deliver(500)
		}
	}, Want: []verdict.ID{verdict.RekeyGap}, Folded: []verdict.ID{verdict.SPIUnknown},
		Says: []string{"Rekeying from 0xc0ffee01 to 0xc0ffee03"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "look-up misses an SA that is there", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Knock(8) }),
		Want: []verdict.ID{verdict.SPIUnknown}, Says: []string{"although it was there all the time"}, Grade: verdict.Critical, Sure: 0.8},
	{Name: "hard-expired", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(1000)
		sa.Refuse(1, ledger.StateExpired)
		sa.Refuse(2, ledger.StateInvalid)
		sa.End(ledger.EndExpired)
		sa.Knock(30)
	}), Want: []verdict.ID{verdict.SAExpired}, Folded: []verdict.ID{verdict.SAInvalid, verdict.SPIUnknown},
		Says: []string{"33 packets were dropped", "No other SA"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "expired unnoticed", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(10); sa.End(ledger.EndExpired) })},
	{Name: "invalid", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(10); sa.Refuse(3, ledger.StateInvalid) }),
		Want: []verdict.ID{verdict.SAInvalid}, Says: []string{"3 packets"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "replay window 0", Prepare: inbound(0, false, func(sa *ledgertest.SA) { sa.Deliver(1000) }),
		Want: []verdict.ID{verdict.ReplayWindowZero}, Grade: verdict.Info, Sure: 0.99},
	{Name: "replay window 0 hides no loss", Prepare: inbound(0, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Lose(5) }),
		Want: []verdict.ID{verdict.PathLoss, verdict.ReplayWindowZero}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "replay window 0 and duplicates", Prepare: inbound(0, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(5, 1) }),
		Want: []verdict.ID{verdict.ReplayWindowZero, verdict.DuplicatePackets}, Says: []string{"5 packets came twice"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "one of two suffers", Prepare: func(w *ledgertest.World) func() {
		a, b := w.Inbound(0xc0ffee01, 32, false), w.Inbound(0xc0ffee03, 32, false)
		return func() { a.Deliver(1000); b.Deliver(900); b.Lose(4) }
	}, Want: []verdict.ID{verdict.PathLoss}, Says: []string{"0xc0ffee03"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "both directions", Prepare: func(w *ledgertest.World) func() {
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() { in.Deliver(1000); in.Lose(4); out.Send(1000) }
	}, Want: []verdict.ID{verdict.PathLoss}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "loss and reordering are two faults", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Lose(2); sa.Reorder(3, 40) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall, verdict.PathLoss}, Says: []string{"3 packets"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "passing ESP with gaps is not ours", Leaky: true, Prepare: func(w *ledgertest.World) func() {
		alien := w.Foreign(0xdeadbeef)
		return func() { alien.Vanish(10); alien.Lose(5) }
	}},
	{Name: "an outbound gap is not path loss", Leaky: true, Prepare: func(w *ledgertest.World) func() {
		out := w.Outbound(0xc0ffee02)
		return func() { out.Send(100); out.Number(3); out.Lose(3); out.Send(10) }
	}},
	{Name: "doubled within this host", Leaky: true, Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(100); sa.RepeatInside(4) }),
		Want: []verdict.ID{verdict.DuplicatePackets}, Says: []string{"4 of them doubled inside this host"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "repeated below the window, and strays", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(20000)
		sa.Repeat(4, 200)
		sa.Stray(3, 9000)
	}), Want: []verdict.ID{verdict.ReplayWindowTooSmall, verdict.DuplicatePackets}, Says: []string{"3 packets", "A window of 9001", "none above 4096"},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "a sender that began anew", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(9000); sa.Restart(20, 8990) }),
		Want: []verdict.ID{verdict.PeerRestarted}, Folded: []verdict.ID{verdict.ReplayWindowTooSmall},
		Says: []string{"began anew", "20 packets"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "loss beside losses of our own", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() { sa.Deliver(1000); sa.Lose(3); w.Self.Lost = map[string]uint64{"contention": 2} }
	}, Want: []verdict.ID{verdict.PathLoss}, Grade: verdict.Warning, Sure: 0.76},
	{Name: "the hooks cannot tell late from repeated", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(6, 80); sa.Blur() }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"6 packets", "A window of 81"}, Grade: verdict.Warning, Sure: 0.6},

	// Without the stack hooks.
	{Name: "reordered, no hooks", Leaky: true, Prepare: hookless(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(6, 80) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"6 packets", "A window of 81"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "duplicated, no hooks", Leaky: true, Prepare: hookless(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Repeat(6, 8) }),
		Want: []verdict.ID{verdict.DuplicatePackets}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "late under ESN, no hooks", Leaky: true, Prepare: hookless(64, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(5, 300) }),
		Want: []verdict.ID{verdict.ESNMisEpoch}, Folded: []verdict.ID{verdict.IntegrityFailed}, Grade: verdict.Warning, Sure: 0.6},
	{Name: "corrupted under ESN, no hooks", Leaky: true, Prepare: hookless(64, true, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Corrupt(5) }),
		Want: []verdict.ID{verdict.IntegrityFailed}, Grade: verdict.Warning, Sure: 0.6},
	{Name: "late and corrupted under ESN, no hooks", Leaky: true, Prepare: hookless(64, true, func(sa *ledgertest.SA) {
		sa.Deliver(1000)
		sa.Reorder(5, 300)
		sa.Corrupt(3)
	}), Want: []verdict.ID{verdict.IntegrityFailed, verdict.ESNMisEpoch}, Says: []string{"3 packets"}, Grade: verdict.Warning, Sure: 0.6},
	{Name: "unknown SPI, no hooks", Leaky: true, Prepare: func(w *ledgertest.World) func() {
		w.BlindStack = true
		alien := w.Foreign(0xdeadbeef)
		return func() { alien.Knock(12) }
	}, Want: []verdict.ID{verdict.SPIUnknown}, Says: []string{"12 packets found no SA"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "hard-expired, no hooks", Leaky: true, Prepare: hookless(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(1000)
		sa.Refuse(1, ledger.StateExpired)
		sa.Refuse(2, ledger.StateInvalid)
		sa.End(ledger.EndExpired)
		sa.Knock(30)
	}), Want: []verdict.ID{verdict.SAExpired}, Folded: []verdict.ID{verdict.SAInvalid, verdict.SPIUnknown}, Grade: verdict.Warning, Sure: 0.6},
	{Name: "invalid, no hooks", Leaky: true, Prepare: hookless(32, false, func(sa *ledgertest.SA) { sa.Deliver(10); sa.Refuse(3, ledger.StateInvalid) }),
		Want: []verdict.ID{verdict.SAInvalid}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "reordered, neither wire nor hooks", Leaky: true, Prepare: func(w *ledgertest.World) func() {
		w.BlindWire = true
		return hookless(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Reorder(6, 80) })(w)
	}, Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"How late they came was not observed"}, Grade: verdict.Warning, Sure: 0.8},
}

// hookless is inbound on a kernel without the stack hooks.
func hookless(window uint32, esn bool, happen func(*ledgertest.SA)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.BlindStack = true
		return inbound(window, esn, happen)(w)
	}
}

// inbound is a world of one SA towards here.
func inbound(window uint32, esn bool, happen func(*ledgertest.SA)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, window, esn)
		return func() { happen(sa) }
	}
}

// Report lets the scenario happen.
func (s *Scenario) Report() ledger.Report {
	w := ledgertest.New()
	return w.Run(s.Prepare(w))
}
