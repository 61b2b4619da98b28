// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"time"

	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// gaps loses n times run numbers in a row, each time after `every` numbers on average; deviation says
// how much that varies.
func gaps(sa *ledgertest.SA, n, run, every, deviation uint64) {
	bucket := 0
	for run>>bucket > 1 {
		bucket++
	}
	if sa.Wire.GapHist == nil {
		sa.Wire.GapHist = make([]uint64, 16)
	}
	for range n {
		sa.Deliver(every - run)
		sa.Lose(run)
	}
	sa.Deliver(every)
	sa.Wire.GapHist[bucket] += n
	sa.Wire.Spacings += n - 1
	sa.Wire.SpacingSum += (n - 1) * every
	sa.Wire.SpacingSquares += (n - 1) * (every*every + deviation*deviation)
}

// rates says how fast packets came while some were lost: passed and sent with their deviations, and the
// most that came without loss.
func rates(sa *ledgertest.SA, intervals, passed, passedDeviation, sent, sentDeviation, clean uint64) {
	w := &sa.Wire
	w.LossyIntervals = intervals
	w.LossyRate, w.LossyRateSquares = intervals*passed, intervals*(passed*passed+passedDeviation*passedDeviation)
	w.OfferedRate, w.OfferedRateSquares = intervals*sent, intervals*(sent*sent+sentDeviation*sentDeviation)
	w.CleanRateMax = clean
}

// disorder delivers 6 packets too late for a window of 32 and says what the CPUs and the headers tell.
func disorder(sa *ledgertest.SA, acrossCPUs, dscps uint64) {
	sa.Deliver(1000)
	sa.Reorder(6, 80)
	sa.Wire.LateSpread, sa.Wire.DSCPs = acrossCPUs, dscps
	sa.Wire.CPUs = map[int]uint64{0: 600, 3: 406}
}

// leap is a confirmed jump over n numbers.
func leap(sa *ledgertest.SA, n uint64) {
	sa.Lose(n)
	sa.Wire.GapEvents--
	sa.Wire.Jumps++
	sa.Wire.Jumped += n
}

var wireScenarios = []Scenario{
	{Name: "lost in bursts", Prepare: inbound(32, false, func(sa *ledgertest.SA) { gaps(sa, 20, 5, 100, 60) }),
		Want: []verdict.ID{verdict.PathLoss}, Says: []string{"in bursts, up to 7 in a row"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "lost at random", Prepare: inbound(32, false, func(sa *ledgertest.SA) { gaps(sa, 40, 1, 200, 190) }),
		Want: []verdict.ID{verdict.PathLoss}, Says: []string{"one at a time and at random"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "lost in one stretch", Prepare: inbound(32, false, func(sa *ledgertest.SA) { gaps(sa, 2, 60, 5000, 0) }),
		Want: []verdict.ID{verdict.PathLoss}, Says: []string{"in one stretch or few: an outage"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "lost and late", Prepare: inbound(32, false, func(sa *ledgertest.SA) { gaps(sa, 20, 1, 200, 10); sa.Reorder(10, 8) }),
		Want: []verdict.ID{verdict.PathLoss}, Says: []string{"the pattern of the loss cannot be told"}, Grade: verdict.Warning, Sure: 0.95},

	{Name: "congestion", Prepare: inbound(32, false, func(sa *ledgertest.SA) { gaps(sa, 20, 5, 100, 60); sa.Wire.CE = 300 }),
		Want: []verdict.ID{verdict.Congestion}, Folded: []verdict.ID{verdict.PathLoss},
		Says: []string{"300 packets", "congestion experienced", "in bursts"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "congestion without loss", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Wire.CE = 12 }),
		Want: []verdict.ID{verdict.Congestion}, Says: []string{"12 packets (1.2 %)"}, Grade: verdict.Info, Sure: 0.95},
	{Name: "marks of this host's own packets", Prepare: func(w *ledgertest.World) func() {
		out := w.Outbound(0xc0ffee02)
		return func() { out.Send(1000); out.Wire.CE = 50 }
	}},

	{Name: "congestion that the ends are told of", Prepare: func(w *ledgertest.World) func() {
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() {
			in.Deliver(1000)
			in.Wire.CE = 12
			sender, _ := w.Talk(in, out)
			sender.Congested = 9
		}
	}, Want: []verdict.ID{verdict.Congestion}, Says: []string{"12 packets (1.2 %)"}, Grade: verdict.Info, Sure: 0.95},
	{Name: "congestion without marks", Prepare: func(w *ledgertest.World) func() {
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() {
			gaps(in, 20, 5, 100, 60)
			out.Send(1000)
			sender, _ := w.Talk(out, in)
			sender.RTT.SmoothedMax = 600 * time.Millisecond
		}
	}, Want: []verdict.ID{verdict.Congestion}, Folded: []verdict.ID{verdict.InnerRTTGrowth, verdict.PathLoss},
		Says: []string{"round trips through the tunnel grew from 20 ms to 600 ms", "in bursts"}, Grade: verdict.Critical, Sure: 0.8},
	{Name: "random loss beside a long queue", Prepare: func(w *ledgertest.World) func() {
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() {
			gaps(in, 40, 1, 200, 190)
			out.Send(1000)
			sender, _ := w.Talk(out, in)
			sender.RTT.SmoothedMax = 600 * time.Millisecond
		}
	}, Want: []verdict.ID{verdict.PathLoss, verdict.InnerRTTGrowth}, Grade: verdict.Warning, Sure: 0.95},

	{Name: "policed, steady sender", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 1)
		rates(sa, 20, 900, 20, 1000, 20, 0)
	}), Want: []verdict.ID{verdict.PolicingSuspected}, Folded: []verdict.ID{verdict.PathLoss},
		Says: []string{"900 packets a second passed (about 10.08 Mbit/s), never more"}, Grade: verdict.Critical, Sure: 0.6},
	{Name: "policed, unsteady sender", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 9)
		rates(sa, 20, 900, 20, 1400, 400, 850)
	}), Want: []verdict.ID{verdict.PolicingSuspected}, Folded: []verdict.ID{verdict.PathLoss}, Grade: verdict.Critical, Sure: 0.6},
	{Name: "policed slowly, unsteady sender", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 9)
		rates(sa, 20, 118, 12, 250, 52, 110) // so few packets an interval that one more or less shows
	}), Want: []verdict.ID{verdict.PolicingSuspected}, Folded: []verdict.ID{verdict.PathLoss}, Grade: verdict.Critical, Sure: 0.6},
	{Name: "random loss of an unsteady sender is no policing", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 9)
		rates(sa, 20, 900, 120, 1000, 140, 0)
	}), Want: []verdict.ID{verdict.PathLoss}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "regular loss for a moment is no policing", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 1)
		rates(sa, 2, 900, 20, 1000, 20, 0)
	}), Want: []verdict.ID{verdict.PathLoss}, Says: []string{"regularly, about every 10 numbers"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "what passes faster without loss is not policed", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 1)
		rates(sa, 20, 900, 20, 1000, 20, 2000)
	}), Want: []verdict.ID{verdict.PathLoss}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "random loss of a steady sender is no policing", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 9)
		rates(sa, 20, 900, 20, 1000, 20, 0)
	}), Want: []verdict.ID{verdict.PathLoss}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "a full queue that marks is no policing", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		gaps(sa, 100, 1, 10, 1)
		rates(sa, 20, 900, 20, 1000, 20, 0)
		sa.Wire.CE = 100
	}), Want: []verdict.ID{verdict.Congestion}, Folded: []verdict.ID{verdict.PathLoss}, Grade: verdict.Critical, Sure: 0.76},

	{Name: "restarted under ESN", Prepare: inbound(64, true, func(sa *ledgertest.SA) { sa.Deliver(9000); sa.Restart(500, 8990) }),
		Want: []verdict.ID{verdict.PeerRestarted}, Folded: []verdict.ID{verdict.ESNMisEpoch, verdict.IntegrityFailed},
		Says: []string{"began anew", "500 packets", "not an attack"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "restarted within the window, copies first", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(500)
		sa.Repeat(31, 499)
		sa.Restart(200, 450)
	}), Want: []verdict.ID{verdict.PeerRestarted}, Folded: []verdict.ID{verdict.DuplicatePackets, verdict.ReplayWindowTooSmall},
		Says: []string{"231 packets"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "restarted, no hooks", Leaky: true, Prepare: hookless(32, false, func(sa *ledgertest.SA) { sa.Deliver(9000); sa.Restart(500, 8990) }),
		Want: []verdict.ID{verdict.PeerRestarted}, Folded: []verdict.ID{verdict.ReplayWindowTooSmall}, Grade: verdict.Critical, Sure: 0.8},
	{Name: "a restart, then the old numbers again", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(9000)
		sa.Restart(20, 8990)
		sa.Wire.Jumps++
		sa.Deliver(100)
	}), Want: []verdict.ID{verdict.PeerRestarted}, Folded: []verdict.ID{verdict.ReplayWindowTooSmall}, Grade: verdict.Critical, Sure: 0.79},
	{Name: "a standby took over and started ahead", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(9000)
		leap(sa, 1_000_000)
		sa.Deliver(500)
	})},
	{Name: "a standby took over, and some got lost", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(9000)
		leap(sa, 1_000_000)
		sa.Deliver(500)
		sa.Lose(7)
		sa.Deliver(500)
	}), Want: []verdict.ID{verdict.PathLoss}, Says: []string{"7 packets of 10007"}, Grade: verdict.Warning, Sure: 0.76},
	{Name: "an outage at a high rate", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(90000)
		leap(sa, 9000)
		sa.Deliver(90000)
	}), Want: []verdict.ID{verdict.PathLoss}, Says: []string{"9000 packets of 189000"}, Grade: verdict.Critical, Sure: 0.76},
	{Name: "both ends set the SA up anew", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(9000)
		sa.Wire.Restarts++
		sa.Deliver(1000)
	})},
	{Name: "large honest reordering is no restart", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(9000); sa.Reorder(40, 4000) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Grade: verdict.Warning, Sure: 0.99},

	{Name: "the path reorders", Prepare: inbound(32, false, func(sa *ledgertest.SA) { disorder(sa, 0, 1) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"The path reorders: the packets reached this host in that order"},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "the path reorders by DSCP", Prepare: inbound(32, false, func(sa *ledgertest.SA) { disorder(sa, 1, 1|1<<46) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"mixes 2 DSCPs (0, 46)"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "the CPUs reorder", Prepare: inbound(32, false, func(sa *ledgertest.SA) { disorder(sa, 6, 1) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"The CPUs of this host overtake each other: 6 of 6 late packets"},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "the CPUs reorder under ESN", Prepare: inbound(32, true, func(sa *ledgertest.SA) { disorder(sa, 5, 1) }),
		Want: []verdict.ID{verdict.ESNMisEpoch}, Folded: []verdict.ID{verdict.IntegrityFailed},
		Says: []string{"The CPUs of this host overtake each other: 5 of 6"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "crypto reorders", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.ReorderInside(8, 90) }),
		Want: []verdict.ID{verdict.ReplayWindowTooSmall}, Says: []string{"The order is lost inside this host"}, Grade: verdict.Warning, Sure: 0.99},
}
