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
		if got := r.Host.Carrying(index) != nil; got != want {
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
	if l := r.Host.Carrying(ledgertest.WAN); l == nil || len(l.Counters) != 0 || len(l.DriverCounters) != 0 {
		t.Errorf("device: %+v", l)
	}
	if r := ledgertest.New().Run(func() {}); r.Host != nil {
		t.Errorf("host without a look at it: %+v", r.Host)
	}
}
