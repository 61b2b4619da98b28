// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// TestHostCounts: only what rose during the run is told, and gauges that fall move nothing.
func TestHostCounts(t *testing.T) {
	w := ledgertest.New()
	h := w.Furnish()
	sa := w.Inbound(spi, 32, false)
	h.Snmp["Tcp.CurrEstab"] = 40
	w.Link(ledgertest.WAN).DriverCounters["rx_fill_level"] = 100
	w.Link(ledgertest.WAN).Qdiscs[0].Drops = 1<<32 - 2
	r := w.Run(func() {
		sa.Deliver(10)
		wan := w.Link(ledgertest.WAN)
		wan.Counters["rx_packets"] += 10
		wan.Counters["rx_missed_errors"] += 4
		wan.DriverCounters["rx_no_buffer_count"] += 4
		wan.DriverCounters["rx_fill_level"] = 20
		wan.Qdiscs[0].Drops = 3 // the kernel counts in 32 bits: five more
		wan.Qdiscs[0].Bytes += 700
		wan.Qdiscs[0].Packets += 7
		h.Snmp["Ip.InReceives"] += 10
		h.Snmp["Tcp.CurrEstab"] = 2
		h.CPUs[0].Dropped += 6
		w.Work(0, 1000, 200, 750)
	})
	if d := cmp.Diff(map[string]int64{"Ip.InReceives": 10}, r.Host.Snmp); d != "" {
		t.Errorf("protocol counters (-want +got):\n%s", d)
	}
	want := []ledger.LinkReport{{
		Index: ledgertest.WAN, Name: "eth0", Kind: "device", Driver: "ixgbe", MTU: 1500, Up: true, CarriesSAs: true, TxQueue: 1000,
		Counters:       map[string]int64{"rx_packets": 10, "rx_missed_errors": 4},
		DriverCounters: map[string]int64{"rx_no_buffer_count": 4},
		RingRx:         512, RingRxMax: 4096, RxQueues: 4, TxQueues: 4, RPS: []string{"0", "0", "0", "0"},
		Features: map[string]bool{"esp-hw-offload": false, "rx-gro": true},
		Qdiscs: []ledger.QdiscReport{{Kind: "fq_codel", Handle: "8001:", Parent: "root", Limit: 10240, LimitUnit: "packets",
			Packets: 7, Bytes: 700, Drops: 5}},
	}}
	if d := cmp.Diff(want, r.Host.Links); d != "" {
		t.Errorf("devices (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]ledger.CPUReport{{ID: 0, BusyPercent: 80, SoftirqPercent: 75, Dropped: 6}, {ID: 1}}, r.Host.CPUs); d != "" {
		t.Errorf("CPUs (-want +got):\n%s", d)
	}
	if _, ok := r.Host.Sysctls["net/ipv4/conf/eth1/rp_filter"]; ok {
		t.Error("a setting of a device that is not in the report")
	}
	if r.Host.Sysctls["net/ipv4/conf/all/rp_filter"] != "0" || r.Host.Sysctls["net/core/netdev_budget"] != "300" {
		t.Errorf("settings: %v", r.Host.Sysctls)
	}
}

// TestHostBelow: the card under the VLAN or in the bond that an SA was seen on carries it too.
func TestHostBelow(t *testing.T) {
	w := ledgertest.New()
	h := w.Furnish()
	h.Links = append(h.Links,
		ledger.Link{Index: 10, Name: "bond0", Kind: "bond", Up: true},
		ledger.Link{Index: 11, Name: "bond0.7", Kind: "vlan", Lower: 10, Up: true})
	w.Link(ledgertest.Other).Master = 10
	sa := w.Inbound(spi, 32, false)
	sa.Wire.Ifindex = 11
	r := w.Run(func() { sa.Deliver(10) })
	for index, want := range map[int]bool{ledgertest.Other: true, 10: true, 11: true, ledgertest.WAN: false} {
		l := r.Host.Link(index)
		if got := l != nil && l.CarriesSAs; got != want {
			t.Errorf("device %d carries SAs: %v, want %v", index, got, want)
		}
	}
}

// TestHostComesLater: a device that appears during the run brings its history with it.
func TestHostComesLater(t *testing.T) {
	w := ledgertest.New()
	h := w.Furnish()
	sa := w.Inbound(spi, 32, false)
	all := h.Links
	h.Links = all[1:]
	r := w.Run(func() { sa.Deliver(10); h.Links = all })
	if l := r.Host.Link(ledgertest.WAN); l == nil || !l.CarriesSAs || len(l.Counters) != 0 || len(l.DriverCounters) != 0 {
		t.Errorf("device: %+v", l)
	}
	if r := ledgertest.New().Run(func() {}); r.Host != nil {
		t.Errorf("host without a look at it: %+v", r.Host)
	}
}

// TestHoldLinksOfDevicesThatChange: a device that was made anew during the run, or came or went, is held against
// nothing.
func TestHoldLinksOfDevicesThatChange(t *testing.T) {
	for _, how := range []string{"", "anew", "gone"} {
		w := ledgertest.New()
		h := w.Furnish()
		l := ledger.New(ledger.Source{Kind: ledger.KindLive})
		hook := ledger.Hook{Name: "wire ingress eth0", Attached: true, Why: "xdp"}
		l.SetHooks([]ledger.Hook{hook})
		look := func(packets uint64) {
			s := w.Snapshot()
			s.Packets = &ledger.WireTotals{Classes: map[ledger.Direction]map[string]uint64{ledger.In: {"esp": packets}}}
			l.Observe(s)
		}
		look(0)
		w.Link(ledgertest.WAN).Counters["rx_packets"] += 1000
		look(1000)
		switch how {
		case "anew":
			h.Links[0].Index = 77
		case "gone":
			hook.Attached, hook.Why = false, "eth0 went away"
			l.SetHooks([]ledger.Hook{hook, {Name: "wire ingress eth1", Attached: true, Why: "xdp"}})
		}
		look(2000)
		checks := 0
		for _, c := range l.Report().Kernel.Checks {
			if c.Source == "rtnetlink" {
				checks++
			}
		}
		if want := map[string]int{"": 1}[how]; checks != want {
			t.Errorf("%q: %d checks, want %d", how, checks, want)
		}
	}
}

// TestHoldLinks: what native XDP saw is held against the device's own counter, and never behind GRO.
func TestHoldLinks(t *testing.T) {
	for name, tc := range map[string]struct {
		way      string
		received uint64
		want     []ledger.Check
	}{
		"alike": {"xdp", 1000, []ledger.Check{{Source: "rtnetlink", Counter: "rx_packets of eth0", Ledger: 1000, Kernel: 1000, Agrees: true, Tolerance: 64}}},
		"near":  {"xdp", 1010, []ledger.Check{{Source: "rtnetlink", Counter: "rx_packets of eth0", Ledger: 1000, Kernel: 1010, Agrees: true, Tolerance: 64}}},
		"apart": {"xdp", 9000, []ledger.Check{{Source: "rtnetlink", Counter: "rx_packets of eth0", Ledger: 1000, Kernel: 9000, Tolerance: 90}}},
		"TC":    {"tcx (XDP: program id 7 is already on eth0)", 1000, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := ledgertest.New()
			w.Furnish()
			l := ledger.New(ledger.Source{Kind: ledger.KindLive})
			l.SetHooks([]ledger.Hook{{Name: "wire ingress eth0", Attached: true, Why: tc.way}, {Name: "wire ingress eth1", Why: "xdp"}})
			look := func(packets uint64) {
				s := w.Snapshot()
				s.Packets = &ledger.WireTotals{Classes: map[ledger.Direction]map[string]uint64{
					ledger.In: {"esp": packets / 2, "not_ipsec": packets - packets/2}, ledger.Out: {"esp": 777}}}
				l.Observe(s)
			}
			look(50)
			w.Link(ledgertest.WAN).Counters["rx_packets"] += tc.received
			w.Link(ledgertest.Other).Counters["rx_packets"] += 5000
			look(1050)
			r := l.Report()
			var got []ledger.Check
			for _, c := range r.Kernel.Checks {
				if c.Source == "rtnetlink" {
					got = append(got, c)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("checks (-want +got):\n%s", d)
			}
			if len(r.Kernel.Disagreements) != 0 {
				t.Errorf("disagreements: %q", r.Kernel.Disagreements)
			}
		})
	}
}
