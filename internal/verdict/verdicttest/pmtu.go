// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// Hosts inside, and their protocols.
const (
	inside, outside   = "10.2.0.1", "10.1.0.1"
	inside6, outside6 = "fd00:2::1", "fd00:1::1"
	tcp, udp          = 6, 17
)

// pmtuScenarios are packets that do not fit, and what looks like it and is healthy.
var pmtuScenarios = []Scenario{
	{Name: "path MTU discovery inside", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside, outside, tcp, 1500, 1446, 10, 10, 0)
		sa.TooBig(inside6, outside6, tcp, 1500, 1446, 10, 10, 0)
	})},
	{Name: "a datagram probes the path", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside, outside, udp, 1500, 1446, 9, 9, 6)
	})},
	{Name: "the path takes less, and this host knows", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Told(1400, 2)
		w.Learn(1400)
		sa.TooBig(inside, outside, tcp, 1446, 1346, 4, 4, 0)
	}), Want: []verdict.ID{verdict.PMTUReduced}, Says: []string{"takes 1400 octets, the link takes 1500", "Azure", "inner MTU of 1346", "MSS 1306 (IPv6 inside: 1286)"},
		Grade: verdict.Info, Sure: 0.99},
	{Name: "what discovery costs is repeated", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(163)
		sa.Told(1400, 4)
		w.Learn(1400)
		sa.TooBig(inside, outside, tcp, 1500, 1446, 10, 10, 0)
		w.Flows = table(bulk(sa, 150, 13, 1306, 30000, 12))
	}), Want: []verdict.ID{verdict.PMTUReduced}, Grade: verdict.Info, Sure: 0.99},
	{Name: "more is repeated than discovery costs", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(163)
		sa.Told(1400, 4)
		w.Learn(1400)
		w.Flows = table(bulk(sa, 150, 23, 1306, 30000, 12))
	}), Want: []verdict.ID{verdict.InnerRetransmissions, verdict.PMTUReduced}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "told of the SA of another host", Prepare: func(w *ledgertest.World) func() {
		w.WatchPMTU()
		alien := w.Foreign(0xdeadbeef)
		alien.Key.Dst = ledgertest.Peer
		return func() { alien.Told(600, 5) }
	}},
	{Name: "a router's word is not taken", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) { sa.Told(1400, 7) }),
		Want: []verdict.ID{verdict.PMTUNotApplied}, Says: []string{"198.51.100.1 said 7 times", "which takes 1400", "goes by 1500 still", "not to be seen"},
		Grade: verdict.Critical, Sure: 0.95},
	{Name: "the route's MTU is locked", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Told(1400, 7)
		w.Learn(1500)
		w.PMTU.Routes[0].Locked = true
	}), Want: []verdict.ID{verdict.PMTUNotApplied}, Says: []string{"is locked"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "an MTU that nobody has", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Told(300, 1)
		w.Learn(552)
	}), Want: []verdict.ID{verdict.PMTUNotApplied}, Says: []string{"a broken router, or a forged message"}, Grade: verdict.Warning, Sure: 0.76},
	{Name: "told long ago and forgotten since", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Told(1400, 7)
		w.Tick(20 * time.Minute)
	})},
	{Name: "a host does not listen, and no tunnel is concerned", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		w.TooBigPlain(ledgertest.WAN, inside, outside, 40, 30)
	})},
	{Name: "a host does not listen, before a tunnel device", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		w.Host.Links = append(w.Host.Links, ledger.Link{Index: 9, Name: "ipsec0", Kind: "xfrm", MTU: 1500, Up: true})
		w.TooBigPlain(9, inside, outside, 40, 30)
	}), Want: []verdict.ID{verdict.PMTUIgnored}, Says: []string{"the tunnel device ipsec0"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "a host does not listen", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside, outside, tcp, 1500, 1446, 14, 14, 4)
		sa.TooBig("10.2.0.9", outside, tcp, 1500, 1446, 10, 10, 0)
	}), Want: []verdict.ID{verdict.PMTUIgnored}, Says: []string{"tcp of 10.2.0.1 to 10.1.0.1", "they fit 1446 octets", "inner MTU 1446, MSS 1406"},
		Grade: verdict.Warning, Sure: 0.95},
	{Name: "a sender of datagrams does not listen", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside, outside, udp, 1500, 1446, 40, 40, 25)
	}), Want: []verdict.ID{verdict.PMTUIgnored}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "two hosts that do not listen are told two sizes", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside, outside, tcp, 1500, 1346, 20, 20, 8)
		sa.TooBig("10.2.0.9", outside, tcp, 1500, 1446, 10, 10, 5)
	}), Want: []verdict.ID{verdict.PMTUIgnored}, Says: []string{"they fit 1346 octets"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "messages are swallowed", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside, outside, tcp, 1500, 1446, 14, 0, 4)
	}), Want: []verdict.ID{verdict.PMTUSwallowed}, Says: []string{"14 packets were too big", "never left this host"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "one message does not leave", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside, outside, tcp, 1500, 1446, 10, 9, 0)
	})},
	{Name: "messages are swallowed over IPv6", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.TooBig(inside6, outside6, tcp, 1500, 1446, 14, 0, 4)
	}), Want: []verdict.ID{verdict.PMTUSwallowed}, Grade: verdict.Critical, Sure: 0.8},
	{Name: "ESP is cut", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(100)
		sa.Cut(60, 1556, 1500)
	}), Want: []verdict.ID{verdict.OuterFragmentation}, Says: []string{"cut 60 of 100 ESP packets", "up to 1556 octets they do not fit 1500"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "ESP is cut, to what is not told at first", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(100)
		sa.Cut(60, 1556, 0)
		sa.Cut(20, 1556, 1500)
	}), Want: []verdict.ID{verdict.OuterFragmentation}, Says: []string{"cut 80 of 100 ESP packets", "do not fit 1500"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "ESP is hardly cut", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(10000)
		sa.Cut(20, 1556, 1500)
	}), Want: []verdict.ID{verdict.OuterFragmentation}, Grade: verdict.Info, Sure: 0.95},
	{Name: "fragments do not become whole", Prepare: func(w *ledgertest.World) func() {
		w.WatchPMTU()
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() { sa.Deliver(80); sa.Expire(12) }
	}, Want: []verdict.ID{verdict.ReassemblyFailed}, Says: []string{"12 of 80 ESP packets"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "fragments arrive", Prepare: func(w *ledgertest.World) func() {
		w.WatchPMTU()
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(80)
			arriving(w, 80, 12, 300)
		}
	}, Want: []verdict.ID{verdict.OuterFragmentation}, Says: []string{"12 of 80 ESP packets arrived in fragments"}, Grade: verdict.Info, Sure: 0.95},
	{Name: "fragments of something else arrive", Prepare: func(w *ledgertest.World) func() {
		w.WatchPMTU()
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(80)
			arriving(w, 80, 0, 300)
		}
	}},
	{Name: "a few fragments arrive", Prepare: func(w *ledgertest.World) func() {
		w.WatchPMTU()
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(8000)
			arriving(w, 8000, 12, 0)
		}
	}},
	{Name: "large segments disappear", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(100)
		w.Flows = table(bulk(sa, 10, 5, 1406, 14060, 0), bulk(sa, 40, 0, 200, 400, 12))
	}), Want: []verdict.ID{verdict.MTUBlackHole}, Says: []string{"full-size segments (1406 octets)", "ESP of up to 1500 octets", "other flows (1, up to 200 octets)"}, Grade: verdict.Critical, Sure: 0.8},
	{Name: "large segments disappear, and nothing else is under way", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(100)
		w.Flows = table(bulk(sa, 10, 5, 1406, 14060, 0))
	}), Want: []verdict.ID{verdict.MTUBlackHole}, Says: []string{"from a host that went away"}, Grade: verdict.Warning, Sure: 0.6},
	{Name: "large segments of one flow disappear, those of another pass", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(100)
		w.Flows = table(bulk(sa, 10, 5, 1406, 14060, 0), bulk(sa, 400, 0, 1406, 14060, 12))
	})},
	{Name: "large segments are lost and repeated", Prepare: narrowPath(func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Send(100)
		w.Flows = table(bulk(sa, 60, 5, 1406, 14060, 12))
	})},
}

// narrowPath is a world with one SA to the peer, of which the path MTU is watched.
func narrowPath(happen func(*ledgertest.World, *ledgertest.SA)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.WatchPMTU()
		sa := w.Outbound(0xc0ffee02)
		return func() { happen(w, sa) }
	}
}

func table(list ...ledger.FlowReading) *ledger.FlowTable {
	return &ledger.FlowTable{Flows: list, Fates: map[string]uint64{"opened": uint64(len(list))}}
}

// arriving lets the wire programs count ESP, some of it and other packets in fragments.
func arriving(w *ledgertest.World, esp, cut, others uint64) {
	w.Packets = map[ledger.Direction]map[string]uint64{ledger.In: {"esp": esp, "frag_later": cut + others}}
	w.Asides = map[ledger.Direction]map[string]uint64{ledger.In: {"frag_first": cut + others, "frag_esp": cut}}
}

// bulk is a connection of which one end sends segments through an SA, of a size, some of them again.
func bulk(sa *ledgertest.SA, segments, repeats, size, inFlight, samples uint64) ledger.FlowReading {
	port := uint16(40000 + size + repeats)
	return ledger.FlowReading{Opened: 1, Connections: 1, Ends: [2]ledger.FlowEndReading{
		{
			Addr: netip.AddrPortFrom(netip.MustParseAddr(inside), port), SA: sa.Key, Packets: segments + repeats + 2,
			Segments: segments + repeats, Retransmissions: repeats, PayloadBytes: (segments + repeats) * size, SegmentMax: size,
			InFlightMax: inFlight, RTT: ledger.RTTReading{Samples: samples, Sum: time.Duration(samples) * time.Millisecond, Min: time.Millisecond, Max: time.Millisecond},
		},
		{
			Addr: netip.AddrPortFrom(netip.MustParseAddr(outside), 443), Packets: 3, SA: ledger.SAKey{Dst: ledgertest.Here, SPI: 1, Proto: ledger.ESP, Direction: ledger.In},
		},
	}}
}
