// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// WatchPMTU attaches the path MTU programs: nothing has happened, and the route to the peer has the MTU
// of its link.
func (w *World) WatchPMTU() *ledger.PMTUInput {
	w.PMTU = &ledger.PMTUInput{
		Totals: map[string]uint64{}, Events: []ledger.PMTUEventInput{},
		Routes: []ledger.RouteInput{{Src: Here, Dst: Peer, Ifindex: WAN, LinkMTU: 1500}},
	}
	w.Hooks = append(w.Hooks, ledger.Hook{Name: "icmp_out_count", Attached: true, Why: "fentry"})
	if w.Host == nil {
		w.Host = &ledger.Host{}
	}
	if w.Host.Snmp == nil {
		w.Host.Snmp = map[string]uint64{}
	}
	return w.PMTU
}

// event counts packets of one kind. A later call for the same key adds to it.
func (w *World) event(key ledger.PMTUKey, add ledger.PMTUEventInput) {
	w.PMTU.Totals[string(key.Kind)] += add.Packets
	for i := range w.PMTU.Events {
		if e := &w.PMTU.Events[i]; e.Key == key {
			e.Packets, e.Sent, e.Late = e.Packets+add.Packets, e.Sent+add.Sent, e.Late+add.Late
			return
		}
	}
	add.Key = key
	add.First, add.Last = w.now, w.now.Add(10*time.Second)
	w.PMTU.Events = append(w.PMTU.Events, add)
}

// TooBig lets packets of a host inside be too big for the SA: the kernel told their sender of mtu so
// many times, and so many of them came late.
func (s *SA) TooBig(src, dst string, proto uint8, size, mtu int, packets, sent, late uint64) {
	key := ledger.PMTUKey{Kind: ledger.PMTUTellSender, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: proto, MTU: mtu}
	s.world.event(key, ledger.PMTUEventInput{Packets: packets, Sent: sent, Late: late, Size: size, SizeMax: size, SA: s.Key})
	if key.Dst.Is6() {
		s.world.PMTU.Totals["too_big_v6"] += packets
		s.world.Host.Snmp["Icmp6.OutPktTooBigs"] += sent
		return
	}
	s.world.Host.Snmp["Icmp.OutDestUnreachs"] += sent
}

// TooBigPlain lets packets be too big for a route without an SA: the one in front of device `ifindex`, or
// through it where that is a tunnel's.
func (w *World) TooBigPlain(ifindex int, src, dst string, packets, late uint64) {
	w.event(ledger.PMTUKey{Kind: ledger.PMTUTellSender, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: 6, MTU: 1446},
		ledger.PMTUEventInput{Packets: packets, Sent: packets, Late: late, Size: 1500, SizeMax: 1500, Ifindex: ifindex})
}

// Told lets a router say that ESP of this SA is too big.
func (s *SA) Told(mtu int, messages uint64) {
	s.world.event(ledger.PMTUKey{Kind: ledger.PMTUTold, Src: Here, Dst: s.Key.Dst, Proto: 50, SPI: s.Key.SPI, MTU: mtu},
		ledger.PMTUEventInput{Packets: messages, SizeMax: 1500, Took: mtu, Reporter: netip.MustParseAddr("198.51.100.1")})
}

// Learn gives the route to the peer an MTU of its own.
func (w *World) Learn(mtu int) { w.PMTU.Routes[0].MTU = mtu }

// Cut lets ESP of this SA be cut into fragments.
func (s *SA) Cut(packets uint64, size, mtu int) {
	s.world.event(ledger.PMTUKey{Kind: ledger.PMTUFragmented, Src: Here, Dst: s.Key.Dst, Proto: 50, SPI: s.Key.SPI, MTU: mtu},
		ledger.PMTUEventInput{Packets: packets, Size: size, SizeMax: size})
	s.world.Host.Snmp["Ip.FragCreates"] += 2 * packets
}

// Expire lets packets of this SA arrive without all of their fragments.
func (s *SA) Expire(packets uint64) {
	s.world.event(ledger.PMTUKey{Kind: ledger.PMTUExpired, Src: Peer, Dst: Here, Proto: 50, SPI: s.Key.SPI},
		ledger.PMTUEventInput{Packets: packets})
	s.world.Host.Snmp["Ip.ReasmFails"] += packets
}

func clonePMTU(p *ledger.PMTUInput) *ledger.PMTUInput {
	if p == nil {
		return nil
	}
	return &ledger.PMTUInput{Totals: maps.Clone(p.Totals), Events: slices.Clone(p.Events), Routes: slices.Clone(p.Routes)}
}
