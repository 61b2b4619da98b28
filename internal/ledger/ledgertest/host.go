// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"maps"
	"slices"

	"xfrmscope/internal/ledger"
)

// The index of the device that the SAs of a world are on, and of one that carries none.
const (
	WAN   = 3
	Other = 4
)

// Furnish gives the world a machine of two CPUs with two network cards.
func (w *World) Furnish() *ledger.Host {
	w.Host = &ledger.Host{
		Sysctls: map[string]string{
			"net/core/netdev_max_backlog": "1000", "net/core/netdev_budget": "300", "net/core/netdev_budget_usecs": "2000",
			"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth1/rp_filter": "0",
		},
		Snmp: map[string]uint64{"Ip.InReceives": 5000},
		CPUs: []ledger.CPU{{ID: 0, Total: 9000, Idle: 8000, Softirq: 100, Processed: 70}, {ID: 1, Total: 9000, Idle: 8500}},
	}
	for i, name := range map[int]string{WAN: "eth0", Other: "eth1"} {
		w.Host.Links = append(w.Host.Links, ledger.Link{
			Index: i, Name: name, Kind: "device", Driver: "ixgbe", MTU: 1500, Up: true, TxQueue: 1000,
			Counters:       counters(map[string]uint64{"rx_packets": 9000, "tx_packets": 8000, "rx_dropped": 12, "rx_missed_errors": 3}),
			DriverCounters: map[string]uint64{"rx_no_buffer_count": 3, "rx_steer_missed_packets": 5},
			RingRx:         512, RingRxMax: 4096, RxQueues: 4, TxQueues: 4, RPS: []string{"0", "0", "0", "0"},
			Features: map[string]bool{"esp-hw-offload": false, "rx-gro": true},
			Qdiscs:   []ledger.Qdisc{{Kind: "fq_codel", Handle: "8001:", Parent: "root", Limit: 10240, LimitUnit: "packets", Packets: 8000, Bytes: 8000000}},
		})
	}
	slices.SortFunc(w.Host.Links, func(a, b ledger.Link) int { return a.Index - b.Index })
	return w.Host
}

// counters adds those that are zero, as the kernel lists them all.
func counters(m map[string]uint64) map[string]uint64 {
	for _, name := range []string{
		"rx_errors", "tx_errors", "tx_dropped", "rx_crc_errors", "rx_frame_errors", "rx_length_errors",
		"rx_fifo_errors", "rx_over_errors", "tx_carrier_errors", "tx_aborted_errors", "tx_fifo_errors",
	} {
		m[name] += 0
	}
	return m
}

// Link is the device with this index of a furnished world.
func (w *World) Link(index int) *ledger.Link {
	return &w.Host.Links[slices.IndexFunc(w.Host.Links, func(l ledger.Link) bool { return l.Index == index })]
}

// Work lets a CPU be busy for so many ticks, some of them in softirq.
func (w *World) Work(cpu int, total, idle, softirq uint64) {
	c := &w.Host.CPUs[cpu]
	c.Total, c.Idle, c.Softirq = c.Total+total, c.Idle+idle, c.Softirq+softirq
}

// cloneHost makes a copy that later changes do not reach.
func cloneHost(h *ledger.Host) *ledger.Host {
	if h == nil {
		return nil
	}
	c := *h
	c.Sysctls, c.Snmp = maps.Clone(h.Sysctls), maps.Clone(h.Snmp)
	c.CPUs, c.Links = slices.Clone(h.CPUs), slices.Clone(h.Links)
	for i := range c.Links {
		l := &c.Links[i]
		l.Counters, l.DriverCounters, l.Qdiscs = maps.Clone(l.Counters), maps.Clone(l.DriverCounters), slices.Clone(l.Qdiscs)
	}
	return &c
}

// On says on which CPU n packets of the SA were seen.
func (s *SA) On(cpu int, n uint64) {
	if s.Wire.CPUs == nil {
		s.Wire.CPUs = map[int]uint64{}
	}
	s.Wire.CPUs[cpu] += n
}
