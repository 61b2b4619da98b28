// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// overUDP makes SAs of both directions speak ESP in UDP, with the peer at this port.
func overUDP(w *ledgertest.World, port uint16) (in, out *ledgertest.SA) {
	in, out = w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
	for _, sa := range []*ledgertest.SA{in, out} {
		from, to := port, uint16(4500)
		if sa == out {
			from, to = to, from
		}
		sa.Wire.Encap, sa.Wire.SrcPort, sa.Wire.DstPort = ledger.EncapUDP, from, to
		sa.Entry.Encap, sa.Entry.EncapSrcPort, sa.Entry.EncapDstPort = ledger.EncapUDP, from, to
	}
	w.NAT = &ledger.NATReading{Peers: []ledger.PeerReading{{Local: ledgertest.Here, Remote: ledgertest.Peer}}}
	return in, out
}

// move gives the peer another port.
func move(w *ledgertest.World, in *ledgertest.SA, port uint16) {
	in.Wire.Rebinds++
	in.Wire.RebindAt = w.Mono()
	in.Wire.OldSrc, in.Wire.OldSrcPort, in.Wire.OldDstPort, in.Wire.OldEncap = in.Wire.Src, in.Wire.SrcPort, 4500, ledger.EncapUDP
	in.Wire.SrcPort = port
}

// announce lets the kernel say so.
func announce(w *ledgertest.World, in *ledgertest.SA, n uint64) {
	w.NAT.Mappings = append(w.NAT.Mappings, ledger.MappingReading{
		Key: in.Key, ReqID: 1, First: w.Now(), Last: w.Now(), Announcements: n,
		Old: netip.AddrPortFrom(in.Wire.OldSrc, in.Wire.OldSrcPort), New: netip.AddrPortFrom(in.Wire.Src, in.Wire.SrcPort),
	})
}

// sendOn sends from here after a second.
func sendOn(w *ledgertest.World, out *ledgertest.SA, n uint64) {
	w.Tick(time.Second)
	out.Send(n)
	out.Wire.LastSeen = w.Mono()
}

// silence is what the reader says of a peer that was heard, then not for so long, and then not at all
// while this host sent.
func silence(w *ledgertest.World, quiet time.Duration, unanswered uint64) {
	p := &w.NAT.Peers[0]
	p.In, p.LastIn = p.In+100, w.Mono()
	p.Out = p.Out + 100
	w.Tick(quiet)
	p.Quiet = quiet
	if unanswered > 0 {
		p.QuietBefore, p.OneWaySince = quiet, w.Mono()
		w.Tick(10 * time.Second)
		p.OutSinceIn, p.OutSinceQuiet = unanswered+3, unanswered // a few went out before the silence
		p.Out, p.LastOut = p.Out+unanswered, w.Mono()
	}
}

// beats are keepalives from behind the NAT.
func beats(w *ledgertest.World, n uint64) {
	w.NAT.Keepalives = append(w.NAT.Keepalives, ledger.KeepaliveReading{
		Src: netip.AddrPortFrom(ledgertest.Peer, 61000), Dst: netip.AddrPortFrom(ledgertest.Here, 4500), Direction: ledger.In,
		Packets: n, First: w.Mono(), Last: w.Mono() + time.Duration(n-1)*20*time.Second, IntervalMin: 20 * time.Second, IntervalMax: 20 * time.Second,
	})
}

var natScenarios = []Scenario{
	{Name: "UDP without NAT, idle", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 4500)
		return func() { in.Deliver(100); out.Send(100); silence(w, 5*time.Minute, 0) }
	}},
	{Name: "UDP without NAT, one way after a silence", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 4500)
		return func() { in.Deliver(100); out.Send(200); silence(w, 5*time.Minute, 100) }
	}},
	{Name: "moved, and this host followed", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() {
			in.Deliver(100)
			move(w, in, 62000)
			in.Deliver(100)
			announce(w, in, 3)
			out.Wire.DstPort = 62000
			sendOn(w, out, 50)
			beats(w, 2)
		}
	}, Want: []verdict.ID{verdict.NATMappingChanged}, Says: []string{"come from 192.0.2.1:62000", "before they came from 192.0.2.1:61000", "has followed"},
		Grade: verdict.Info, Sure: 0.99},
	{Name: "moved, and this host sends to the old port", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() {
			in.Deliver(100)
			move(w, in, 62000)
			in.Deliver(100)
			announce(w, in, 100)
			sendOn(w, out, 50)
			beats(w, 2)
		}
	}, Want: []verdict.ID{verdict.NATMappingChanged}, Says: []string{"still sends SA 0xc0ffee02 to port 61000"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "moved before the run, and the SA does not know", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		in.Wire.SrcPort = 62000
		return func() {
			in.Deliver(100)
			in.Wire.OldSrc, in.Wire.OldSrcPort = in.Wire.Src, 61000
			announce(w, in, 100)
			sendOn(w, out, 50)
			beats(w, 2)
		}
	}, Want: []verdict.ID{verdict.NATMappingChanged}, Says: []string{"come from 192.0.2.1:62000", "still sends SA 0xc0ffee02 to port 61000"},
		Grade: verdict.Critical, Sure: 0.99},
	{Name: "moved, nothing sent since", Prepare: func(w *ledgertest.World) func() {
		in, _ := overUDP(w, 61000)
		return func() { in.Deliver(100); move(w, in, 62000); in.Deliver(100); beats(w, 2) }
	}, Want: []verdict.ID{verdict.NATMappingChanged}, Says: []string{"it sent nothing since"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "moved, then silence", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() {
			in.Deliver(100)
			move(w, in, 62000)
			in.Deliver(100)
			silence(w, 40*time.Second, 60)
			sendOn(w, out, 60)
			beats(w, 2)
		}
	}, Want: []verdict.ID{verdict.NATMappingChanged}, Folded: []verdict.ID{verdict.NATBindingLost}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "binding lost", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() { in.Deliver(100); out.Send(160); beats(w, 1); silence(w, 90*time.Second, 60) }
	}, Want: []verdict.ID{verdict.NATBindingLost}, Says: []string{"behind NAT (port 61000)", "for 90 seconds", "60 packets"}, Grade: verdict.Critical, Sure: 0.6},
	{Name: "binding lost for want of keepalives", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() { in.Deliver(100); out.Send(160); silence(w, 90*time.Second, 60) }
	}, Want: []verdict.ID{verdict.NATKeepaliveMissing}, Folded: []verdict.ID{verdict.NATBindingLost}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "idle behind NAT without keepalives", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() { in.Deliver(100); out.Send(100); silence(w, 45*time.Second, 0) }
	}, Want: []verdict.ID{verdict.NATKeepaliveMissing}, Says: []string{"port 61000", "for 45 seconds"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "idle behind NAT, with too many bindings to know of keepalives", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() {
			in.Deliver(100)
			out.Send(100)
			silence(w, 45*time.Second, 0)
			w.Self.Lost = map[string]uint64{"keepalive_table_full": 3}
		}
	}, Want: []verdict.ID{verdict.NATKeepaliveMissing}, Grade: verdict.Warning, Sure: 0.76},
	{Name: "idle behind NAT with keepalives", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() { in.Deliver(100); out.Send(100); beats(w, 4); silence(w, 20*time.Second, 0) }
	}},
	{Name: "a short silence behind NAT", Prepare: func(w *ledgertest.World) func() {
		in, out := overUDP(w, 61000)
		return func() { in.Deliver(100); out.Send(160); silence(w, 10*time.Second, 60) }
	}},
	{Name: "plain ESP for an SA in UDP", Prepare: func(w *ledgertest.World) func() {
		in, _ := overUDP(w, 4500)
		in.Wire.Encap, in.Wire.SrcPort, in.Wire.DstPort = ledger.EncapNone, 0, 0
		return func() { in.Refuse(70, ledger.EncapMismatch) }
	}, Want: []verdict.ID{verdict.EncapMismatch}, Says: []string{"wants ESP in UDP, on the wire is plain ESP"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "ESP in UDP for a plain SA", Prepare: func(w *ledgertest.World) func() {
		in := w.Inbound(0xc0ffee01, 32, false)
		in.Wire.Encap, in.Wire.SrcPort, in.Wire.DstPort = ledger.EncapUDP, 4500, 4500
		return func() { in.Refuse(70, ledger.EncapMismatch) }
	}, Want: []verdict.ID{verdict.EncapMismatch}, Says: []string{"wants plain ESP, on the wire is ESP in UDP"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "ESP in UDP for a plain SA, and no socket", Prepare: func(w *ledgertest.World) func() {
		in := w.Inbound(0xc0ffee01, 32, false)
		in.Wire.Encap, in.Wire.SrcPort, in.Wire.DstPort = ledger.EncapUDP, 4500, 4500
		return func() { in.Stop(70, "__udp4_lib_rcv", "NO_SOCKET", "") }
	}, Want: []verdict.ID{verdict.EncapMismatch}, Folded: []verdict.ID{verdict.HostIngressDrop},
		Says: []string{"wants plain ESP, on the wire is ESP in UDP, and no socket"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "ESP in UDP for an SA in UDP, and no socket", Prepare: func(w *ledgertest.World) func() {
		in, _ := overUDP(w, 4500)
		return func() { in.Stop(70, "__udp4_lib_rcv", "NO_SOCKET", "") }
	}, Want: []verdict.ID{verdict.HostIngressDrop}, Says: []string{"at their socket"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "encapsulation changed after the packets", Prepare: func(w *ledgertest.World) func() {
		in, _ := overUDP(w, 4500)
		in.Wire.Encap = ledger.EncapNone
		return func() { in.Deliver(70) }
	}},
	{Name: "the peer is not heard", Prepare: func(w *ledgertest.World) func() {
		_, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() { out.Send(400); unheard(w, out, 6) }
	}, Want: []verdict.ID{verdict.OneWayTraffic}, Says: []string{"sent 400 packets of ESP to 192.0.2.1 and received none", "1 TCP connections"},
		Grade: verdict.Critical, Sure: 0.6},
	{Name: "one way by nature", Prepare: func(w *ledgertest.World) func() {
		_, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() { out.Send(400) }
	}},
	{Name: "one server does not answer, the peer is heard", Prepare: func(w *ledgertest.World) func() {
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return func() { out.Send(400); in.Deliver(100); unheard(w, out, 6) }
	}},
}

// unheard is a TCP connection through the SA that asks so often and gets no answer.
func unheard(w *ledgertest.World, out *ledgertest.SA, asked uint64) {
	sender, reader := w.Talk(out, out)
	addr := reader.Addr
	*reader = ledger.FlowEndReading{Addr: addr}
	sender.Packets, sender.Segments, sender.PayloadBytes, sender.InFlightMax, sender.RTT = asked, 0, 0, 0, ledger.RTTReading{}
}
