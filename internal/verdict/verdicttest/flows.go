// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// flow is a world of one SA pair that carries one connection; the sender is behind the peer, unless
// `out` is set.
func flow(out bool, happen func(w *ledgertest.World, sa *ledgertest.SA, sender, reader *ledger.FlowEndReading)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		in, back := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		w.Flows = &ledger.FlowTable{Fates: map[string]uint64{}} // the hooks are there from the start
		return func() {
			in.Deliver(1502)
			back.Send(1502)
			if out {
				in, back = back, in
			}
			sender, reader := w.Talk(in, back)
			happen(w, in, sender, reader)
		}
	}
}

type end = ledger.FlowEndReading

var flowScenarios = []Scenario{
	{Name: "healthy connection", Prepare: flow(false, func(*ledgertest.World, *ledgertest.SA, *end, *end) {})},
	{Name: "stalled reader", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) { w.Stall(r, s, 3, 1500*time.Millisecond) }),
		Want:  []verdict.ID{verdict.ReceiveWindowFull},
		Says:  []string{"SA 0xc0ffee01", "10.1.0.1:443 advertised a receive window of zero for 4.5 s in all, 1.5 s at the longest", "The tunnel is not the cause"},
		Grade: verdict.Warning, Sure: 0.95},
	{Name: "stalled reader behind the peer", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) { w.Stall(r, s, 8, 900*time.Millisecond) }),
		Want: []verdict.ID{verdict.ReceiveWindowFull}, Says: []string{"SA 0xc0ffee02", "10.2.0.1:443", "7.2 s in all"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "stalled reader at the end of the run", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		w.Stall(r, s, 1, time.Millisecond)
		r.ZeroEpisodes++
		r.ZeroSince = w.Clock()
		r.Zeros = append(r.Zeros, ledger.ZeroReading{Start: r.ZeroSince})
	}), Want: []verdict.ID{verdict.ReceiveWindowFull}, Says: []string{"30.0 s in all, 30.0 s at the longest"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "stalled reader on this host", Prepare: func(w *ledgertest.World) func() {
		w.Furnish()
		w.Host.Snmp["TcpExt.TCPToZeroWindowAdv"] = 5
		w.Host.Sysctls["net/ipv4/tcp_rmem"] = "4096\t131072\t6291456"
		return flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
			w.Stall(r, s, 2, 2*time.Second)
			r.Local = true
			w.Host.Snmp["TcpExt.TCPToZeroWindowAdv"] += 2
		})(w)
	}, Want: []verdict.ID{verdict.ReceiveWindowFull}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "stalled reader and flows thrown out", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		w.Stall(r, s, 3, 1500*time.Millisecond)
		w.Flows.Fates["opened"] += 4
	}), Want: []verdict.ID{verdict.ReceiveWindowFull}, Grade: verdict.Warning, Sure: 0.76},
	{Name: "stalled reader and a lossy path are two faults", Prepare: flow(false, func(w *ledgertest.World, sa *ledgertest.SA, s, r *end) {
		w.Stall(r, s, 3, 1500*time.Millisecond)
		sa.Lose(7)
	}), Want: []verdict.ID{verdict.PathLoss, verdict.ReceiveWindowFull}, Says: []string{"7 packets of 1509"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "a reader that pauses for a moment", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) { w.Stall(r, s, 1, 700*time.Millisecond) })},
	{Name: "a reader that drains its buffer when nothing waits", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		w.Stall(r, s, 1, 5*time.Second)
		s.Probes = 0
	})},
	{Name: "short pauses in a long connection", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		w.Stall(r, s, 20, 100*time.Millisecond)
		s.Last = s.First + 25*time.Second
	})},

	{Name: "small window", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) { small(s, r) }),
		Want: []verdict.ID{verdict.ReceiveWindowSmall}, Says: []string{"never opened beyond 16 KiB", "round trip of 22 ms", "6.0 Mbit/s at most", "90.0 %"},
		Grade: verdict.Warning, Sure: 0.95},
	{Name: "small window, half of the round trip not measured", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		small(s, r)
		r.RTT = ledger.RTTReading{}
	}), Want: []verdict.ID{verdict.ReceiveWindowSmall}, Says: []string{"at least 20 ms"}, Grade: verdict.Warning, Sure: 0.76},
	{Name: "small window of a reader behind this gateway", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		small(s, r)
		ledgertest.Trips(s, 100, 2*time.Millisecond, 3*time.Millisecond)
		ledgertest.Trips(r, 1, 20*time.Millisecond, 20*time.Millisecond)
		s.Limited, s.InFlightMax, s.EdgeChecked, s.EdgeHit = 0, 3000, 80, 72
		s.Back = ledger.RTTReading{Samples: 90, Sum: 90 * 22 * time.Millisecond, Min: 20 * time.Millisecond, Max: 30 * time.Millisecond}
	}), Want: []verdict.ID{verdict.ReceiveWindowSmall}, Says: []string{"SA 0xc0ffee01", "round trip of 22 ms", "90.0 %"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "small window that nobody fills", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) { small(s, r); s.Limited = 100 })},
	{Name: "small window of a full path", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		small(s, r)
		ledgertest.Trips(s, 100, 20*time.Millisecond, 60*time.Millisecond)
	})},
	{Name: "small window nearby", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		small(s, r)
		ledgertest.Trips(s, 100, 200*time.Microsecond, 300*time.Microsecond)
		ledgertest.Trips(r, 1, 200*time.Microsecond, 300*time.Microsecond)
	})},
	{Name: "window whose scale is not known", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) { small(s, r); r.Scale = nil })},

	{Name: "repeated on the far side", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) {
		s.Retransmissions, s.Gaps, s.Skipped = 30, 3, 30
	}),
		Want: []verdict.ID{verdict.InnerRetransmissions}, Says: []string{"repeated 30 of 1000 segments (3.0 %)", "lost before the peer encrypted them"},
		Grade: verdict.Warning, Sure: 0.95},
	{Name: "repeated on the near side", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) {
		s.Retransmissions, s.Gaps, s.Skipped, s.Reordered = 30, 12, 12, 10
	}),
		Want: []verdict.ID{verdict.InnerRetransmissions}, Says: []string{"28 had come out of the tunnel here already"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "repeated into the tunnel", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) { s.Retransmissions = 30 }),
		Want: []verdict.ID{verdict.InnerRetransmissions}, Says: []string{"30 had gone into the tunnel here already", "where only the other end can see"},
		Grade: verdict.Warning, Sure: 0.95},
	{Name: "lost before the tunnel", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) {
		s.Retransmissions, s.Gaps, s.Skipped = 30, 3, 30
	}),
		Want: []verdict.ID{verdict.InnerRetransmissions}, Says: []string{"lost on its own side"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "repeated for the path's loss", Prepare: flow(false, func(w *ledgertest.World, sa *ledgertest.SA, s, _ *end) {
		s.Retransmissions, s.Gaps, s.Skipped = 30, 3, 30
		sa.Lose(30)
	}), Want: []verdict.ID{verdict.PathLoss}, Folded: []verdict.ID{verdict.InnerRetransmissions}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "repeated now and then", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) { s.Retransmissions, s.Gaps, s.Skipped = 9, 9, 9 })},
	{Name: "only overtaken", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) { s.Reordered, s.Gaps, s.Skipped = 40, 40, 40 })},

	{Name: "bufferbloat", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) { s.RTT.SmoothedMax = 600 * time.Millisecond }),
		Want: []verdict.ID{verdict.InnerRTTGrowth}, Says: []string{"grew from 20 ms to 600 ms", "in the tunnel's path or behind the peer"},
		Grade: verdict.Warning, Sure: 0.8},
	{Name: "a queue behind this gateway", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) { s.RTT.SmoothedMax = 150 * time.Millisecond }),
		Want: []verdict.ID{verdict.InnerRTTGrowth}, Says: []string{"on this gateway's own side"}, Grade: verdict.Info, Sure: 0.8},
	{Name: "a queue that fills from the far side", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) {
		s.Back = ledger.RTTReading{Samples: 60, Steady: 60, Sum: 60 * 300 * time.Millisecond, Min: 30 * time.Millisecond, Max: 900 * time.Millisecond, SmoothedMax: 800 * time.Millisecond}
	}), Want: []verdict.ID{verdict.InnerRTTGrowth}, Says: []string{"from here to 10.2.0.1:40000 grew from 20 ms to 800 ms", "in the tunnel's path or behind the peer"},
		Grade: verdict.Warning, Sure: 0.8},
	{Name: "a queue that was there when the echoes began", Prepare: flow(false, func(w *ledgertest.World, _ *ledgertest.SA, s, r *end) {
		s.Back = ledger.RTTReading{Samples: 29, Steady: 29, Sum: 29 * 143 * time.Millisecond, Min: 53 * time.Millisecond, Max: 195 * time.Millisecond, SmoothedMax: 178 * time.Millisecond}
		ledgertest.Trips(r, 1, 32*time.Millisecond, 32*time.Millisecond)
	}), Want: []verdict.ID{verdict.InnerRTTGrowth}, Says: []string{"grew from 32 ms to 178 ms"}, Grade: verdict.Info, Sure: 0.8},
	{Name: "a full window is no queue", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) {
		s.RTT.SmoothedMax, s.Limited = 600*time.Millisecond, 700
	})},
	{Name: "few round trips prove no queue", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) {
		s.RTT.SmoothedMax, s.RTT.Steady = 600*time.Millisecond, 12
	})},
	{Name: "a long path without a queue", Prepare: flow(true, func(w *ledgertest.World, _ *ledgertest.SA, s, _ *end) {
		ledgertest.Trips(s, 100, 600*time.Millisecond, 700*time.Millisecond)
	})},
}

// small makes a reader with a window of 16 KiB, and a sender that fills it.
func small(s, r *end) {
	r.Window, r.WindowMin, r.WindowMax, r.Scale = 16<<10, 16<<10, 16<<10, new(uint8(0))
	s.Limited, s.InFlightMax = 900, 16<<10
	ledgertest.Trips(s, 100, 20*time.Millisecond, 22*time.Millisecond)
}
