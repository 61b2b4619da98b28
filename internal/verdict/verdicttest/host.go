// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// hostScenarios are faults of the machine under the SAs, and what looks like one.
var hostScenarios = []Scenario{
	{Name: "card out of buffers", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(500)
		in.Lose(40)
		in.Deliver(460)
		receive(w, 960)
		w.Link(ledgertest.WAN).Counters["rx_missed_errors"] += 40
		w.Link(ledgertest.WAN).DriverCounters["rx_no_buffer_count"] += 40
	}), Want: []verdict.ID{verdict.NICRxLoss}, Folded: []verdict.ID{verdict.PathLoss},
		Says:  []string{"eth0 lost 40 frames of 1000 (4.0 %)", "miss 40, and the loss is here rather than on the path"},
		Grade: verdict.Critical, Sure: 0.8},
	{Name: "card out of buffers, path worse", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(500)
		in.Lose(40)
		in.Deliver(460)
		receive(w, 960)
		w.Link(ledgertest.WAN).Counters["rx_missed_errors"] += 2
	}), Want: []verdict.ID{verdict.PathLoss, verdict.NICRxLoss}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "card under a VLAN out of buffers", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(500)
		in.Lose(5)
		in.Deliver(495)
		receive(w, 995)
		w.Link(ledgertest.WAN).Counters["rx_missed_errors"] += 5
	}, func(w *ledgertest.World, in, _ *ledgertest.SA) {
		w.Host.Links = append(w.Host.Links, ledger.Link{Index: 11, Name: "eth0.7", Kind: "vlan", Lower: ledgertest.WAN, Up: true})
		in.Wire.Ifindex = 11
	}), Want: []verdict.ID{verdict.NICRxLoss}, Folded: []verdict.ID{verdict.PathLoss}, Says: []string{"eth0 lost 5 frames"},
		Grade: verdict.Warning, Sure: 0.8},
	{Name: "damaged frames", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(500)
		in.Lose(5)
		in.Deliver(495)
		receive(w, 995)
		w.Link(ledgertest.WAN).Counters["rx_crc_errors"] += 5
		w.Link(ledgertest.WAN).Counters["rx_errors"] += 5
	}), Want: []verdict.ID{verdict.NICRxLoss}, Folded: []verdict.ID{verdict.PathLoss},
		Says: []string{"5 frames of 1000", "because they came damaged"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "card loses what is of no SA", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(1000)
		receive(w, 1000)
		w.Link(ledgertest.WAN).Counters["rx_missed_errors"] += 40
	}), Want: []verdict.ID{verdict.NICRxLoss}, Says: []string{"none of them was of an SA"}, Grade: verdict.Info, Sure: 0.8},
	{Name: "another card loses", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(1000)
		receive(w, 1000)
		w.Link(ledgertest.Other).Counters["rx_missed_errors"] += 40
		w.Link(ledgertest.Other).Counters["tx_errors"] += 7
	})},
	{Name: "frames that nobody listens to", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(1000)
		receive(w, 1000)
		w.Link(ledgertest.WAN).Counters["rx_dropped"] += 40
		w.Link(ledgertest.WAN).DriverCounters["rx_steer_missed_packets"] += 12
	})},
	{Name: "backlog overflows", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(500)
		in.Lose(20)
		in.Deliver(480)
		receive(w, 1000)
		w.Link(ledgertest.WAN).Counters["rx_dropped"] += 20
		w.Host.CPUs[1].Dropped += 20
	}), Want: []verdict.ID{verdict.SoftnetDrop}, Folded: []verdict.ID{verdict.PathLoss},
		Says: []string{"The backlog of CPU 1 overflowed: 20 packets that arrived on eth0"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "backlog overflows for another device", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(1000)
		receive(w, 1000)
		w.Link(ledgertest.Other).Counters["rx_dropped"] += 20
		w.Host.CPUs[1].Dropped += 20
	})},
	{Name: "squeezed and nothing lost", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(1000)
		receive(w, 1000)
		w.Host.CPUs[0].Squeezed += 50
	})},
	{Name: "queue drops nothing of an SA", Prepare: furnished(func(w *ledgertest.World, in, out *ledgertest.SA) {
		in.Deliver(1000)
		out.Send(1000)
		queue(w, ledgertest.WAN, 1970, 30)
	}), Want: []verdict.ID{verdict.QdiscDrop}, Says: []string{"None of them was of an SA"}, Grade: verdict.Info, Sure: 0.8},
	{Name: "queue drops and nobody sees what", Prepare: furnished(func(w *ledgertest.World, in, out *ledgertest.SA) {
		in.Deliver(1000)
		out.Send(1000)
		queue(w, ledgertest.WAN, 970, 30)
	}, blindDrops), Leaky: true, Want: []verdict.ID{verdict.QdiscDrop},
		Says:  []string{"The queue of eth0 dropped 30 packets of 1000 (3.0 %)", "fq_codel 8001:, limit 10240 packets"},
		Grade: verdict.Critical, Sure: 0.8},
	{Name: "queue below a queue drops", Prepare: furnished(func(w *ledgertest.World, _, out *ledgertest.SA) {
		out.Send(1000)
		queue(w, ledgertest.WAN, 996, 4)
		l := w.Link(ledgertest.WAN)
		l.Qdiscs[1].Packets, l.Qdiscs[1].Bytes, l.Qdiscs[1].Drops = 996, 996, 4
		l.Qdiscs[2].Drops = 9
	}, func(w *ledgertest.World, _, _ *ledgertest.SA) {
		l := w.Link(ledgertest.WAN)
		l.Qdiscs[0].Kind = "mq"
		l.Qdiscs = append(l.Qdiscs,
			ledger.Qdisc{Kind: "pfifo_fast", Handle: "0:", Parent: "8001:1"},
			ledger.Qdisc{Kind: "clsact", Handle: "ffff:", Parent: "ffff:fff1"})
	}, blindDrops), Leaky: true, Want: []verdict.ID{verdict.QdiscDrop}, Says: []string{"4 packets of 1000", ": pfifo_fast 0:."}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "queue of another device drops", Prepare: furnished(func(w *ledgertest.World, in, out *ledgertest.SA) {
		in.Deliver(1000)
		out.Send(1000)
		queue(w, ledgertest.Other, 970, 30)
	})},
	{Name: "carrier lost", Prepare: furnished(func(w *ledgertest.World, _, out *ledgertest.SA) {
		out.Send(1000)
		l := w.Link(ledgertest.WAN)
		l.Counters["tx_packets"] += 991
		l.Counters["tx_errors"] += 9
		l.Counters["tx_carrier_errors"] += 9
	}), Want: []verdict.ID{verdict.NICTxErrors}, Says: []string{"eth0 failed to send 9 packets of 1000"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "one SA fills a CPU", Prepare: furnished(func(w *ledgertest.World, in, out *ledgertest.SA) {
		in.Deliver(9000)
		in.On(1, 9000)
		out.Send(500)
		out.On(0, 500)
		w.Host.CPUs[1].Processed += 18000
		w.Host.CPUs[1].Squeezed += 70
		w.Work(0, 3000, 2700, 100)
		w.Work(1, 3000, 30, 2910)
	}), Want: []verdict.ID{verdict.CPUSaturatedBySA},
		Says:  []string{"CPU 1 spends 97 % of its time in softirq", "is 100.0 % of the ESP", "Another CPU is less than half as busy"},
		Grade: verdict.Warning, Sure: 0.8},
	{Name: "one SA fills a CPU until its backlog overflows", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(5000)
		in.Lose(300)
		in.Deliver(4000)
		in.On(1, 9000)
		receive(w, 9000)
		w.Link(ledgertest.WAN).Counters["rx_dropped"] += 300
		w.Host.CPUs[1].Dropped += 300
		w.Host.CPUs[1].Processed += 18000
		w.Work(0, 3000, 2700, 100)
		w.Work(1, 3000, 30, 2910)
	}), Want: []verdict.ID{verdict.CPUSaturatedBySA}, Folded: []verdict.ID{verdict.PathLoss, verdict.SoftnetDrop},
		Grade: verdict.Critical, Sure: 0.8},
	{Name: "a CPU is full of other traffic", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(900)
		in.On(1, 900)
		w.Host.CPUs[1].Processed += 500000
		w.Work(0, 3000, 2700, 100)
		w.Work(1, 3000, 30, 2910)
	}), Want: []verdict.ID{verdict.SoftirqBacklog}, Says: []string{"ESP of the SAs is 0.18 %"}, Grade: verdict.Info, Sure: 0.8},
	{Name: "a CPU is busy with programs", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(9000)
		in.On(1, 9000)
		w.Host.CPUs[1].Processed += 18000
		w.Work(0, 3000, 2700, 100)
		w.Work(1, 3000, 30, 900)
	})},
	{Name: "a full CPU that no SA uses", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(9000)
		in.On(0, 9000)
		w.Host.CPUs[1].Processed += 18000
		w.Work(0, 3000, 2000, 900)
		w.Work(1, 3000, 30, 2910)
	})},
	{Name: "packet offload", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Unseen(1000)
	}, func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Entry.Offload, in.Entry.OffloadIfindex = "packet", ledgertest.WAN
	}), Want: []verdict.ID{verdict.HardwareNotObservable}, Says: []string{"offloaded whole to the network card"}, Grade: verdict.Info, Sure: 0.95, Leaky: true},
	{Name: "crypto offload", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(1000)
	}, func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Entry.Offload, in.Entry.OffloadIfindex = "crypto", ledgertest.WAN
	})},
	{Name: "GRO hides ESP", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(10)
		in.Unseen(500)
		in.Lose(500)
		in.Deliver(10)
	}, func(w *ledgertest.World, _, _ *ledgertest.SA) {
		w.Host.Modules = []string{"esp4_offload"}
		w.Hooks = []ledger.Hook{{Name: "wire ingress eth0", Attached: true, Why: "tcx (XDP: program id 7 is already on eth0)"}}
	}), Want: []verdict.ID{verdict.OffloadHidesESP}, Says: []string{"GRO took 500 packets out of the wire hook's sight"},
		Grade: verdict.Info, Sure: 0.8, Leaky: true},
	{Name: "GRO behind the hook", Prepare: furnished(func(w *ledgertest.World, in, _ *ledgertest.SA) {
		in.Deliver(1000)
	}, func(w *ledgertest.World, _, _ *ledgertest.SA) {
		w.Host.Modules = []string{"esp4_offload"}
		w.Hooks = []ledger.Hook{{Name: "wire ingress eth0", Attached: true, Why: "xdp"}}
	})},
}

// blindDrops is a kernel without the hook that sees packets freed.
func blindDrops(w *ledgertest.World, _, _ *ledgertest.SA) { w.BlindDrops = true }

// furnished is a machine with an SA either way: what is so from the start, then what happens.
func furnished(happen func(w *ledgertest.World, in, out *ledgertest.SA), before ...func(w *ledgertest.World, in, out *ledgertest.SA)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.Furnish()
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		for _, f := range before {
			f(w, in, out)
		}
		return func() { happen(w, in, out) }
	}
}

func receive(w *ledgertest.World, frames uint64) {
	w.Link(ledgertest.WAN).Counters["rx_packets"] += frames
}

func queue(w *ledgertest.World, link int, sent, dropped uint64) {
	q := &w.Link(link).Qdiscs[0]
	q.Packets, q.Bytes, q.Drops = q.Packets+sent, q.Bytes+1400*sent, q.Drops+dropped
}
