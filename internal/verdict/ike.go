// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

// ikeKinds are about the negotiation of SAs and their succession.
func ikeKinds() []Kind {
	return []Kind{
		{IKEUnanswered, "IKE requests are not answered", ikeUnanswered},
		{RekeyFailed, "An SA ran out and got no successor", rekeyFailed},
		{SequenceExhausted, "An SA has used up its sequence numbers", sequenceExhausted},
		{RekeyGap, "Packets were refused around a rekey", rekeyGap},
		{SequenceExhaustionAhead, "An SA will use up its sequence numbers", sequenceExhaustionAhead},
		{IKERetransmissions, "IKE requests had to be repeated", ikeRetransmissions},
		{RekeyStormAhead, "Many SAs will be renewed at one time", rekeyStormAhead},
	}
}

// aboutIKE names two ends of IKE as a subject. The requester is the source.
func aboutIKE(r *ledger.Report, p *ledger.IKEPeer, requester ledger.End) Subject {
	src, dst := p.Local.Addr(), p.Remote.Addr()
	dir := ledger.Out
	if requester == ledger.Remote {
		src, dst, dir = dst, src, ledger.In
	}
	if r.Source.Kind == ledger.KindCapture {
		dir = ledger.Unknown
	}
	return Subject{Src: &src, Dst: &dst, Direction: dir, Connection: connectionOf(r, p)}
}

// connectionOf names the IKE daemon's connection with a peer, if it is one.
func connectionOf(r *ledger.Report, p *ledger.IKEPeer) string {
	name := ""
	for i := range r.IKE.SAs {
		sa := &r.IKE.SAs[i]
		if sa.Connection == "" || sa.Local.Addr() != p.Local.Addr() || sa.Remote.Addr() != p.Remote.Addr() {
			continue
		}
		if name != "" && name != sa.Connection {
			return ""
		}
		name = sa.Connection
	}
	return name
}

// between writes the two ends, the one that asks first.
func between(p *ledger.IKEPeer, requester ledger.End) string {
	if requester == ledger.Remote {
		return fmt.Sprintf("%s -> %s", p.Remote, p.Local)
	}
	return fmt.Sprintf("%s -> %s", p.Local, p.Remote)
}

// exchangesOf gives the notable exchanges with a peer that pass a test.
func exchangesOf(r *ledger.Report, p *ledger.IKEPeer, want func(*ledger.IKEExchange) bool) []*ledger.IKEExchange {
	var out []*ledger.IKEExchange
	for i := range r.IKE.Notable {
		x := &r.IKE.Notable[i]
		if x.Local.Addr() == p.Local.Addr() && x.Remote.Addr() == p.Remote.Addr() && want(x) {
			out = append(out, x)
		}
	}
	return out
}

// kindsOf lists the types of exchanges with their numbers, the most frequent first.
func kindsOf(all []*ledger.IKEExchange) string {
	count := map[string]int{}
	var names []string
	for _, x := range all {
		if count[x.Exchange] == 0 {
			names = append(names, x.Exchange)
		}
		count[x.Exchange]++
	}
	slices.SortStableFunc(names, func(a, b string) int { return count[b] - count[a] })
	for i, n := range names {
		if count[n] > 1 {
			names[i] = fmt.Sprintf("%d %s", count[n], n)
		}
	}
	return strings.Join(names, ", ")
}

// onlyTypes says whether all exchanges are of one of these types.
func onlyTypes(all []*ledger.IKEExchange, types ...string) bool {
	return !slices.ContainsFunc(all, func(x *ledger.IKEExchange) bool { return !slices.Contains(types, x.Exchange) })
}

// endOf is when the observation ended.
func endOf(r *ledger.Report) time.Time {
	return r.Source.Start.Add(time.Duration(r.Source.DurationS * float64(time.Second)))
}

// egressSeen says whether this host's own messages would have been seen. A capture holds both ways.
func egressSeen(r *ledger.Report) bool {
	if r.Source.Kind == ledger.KindCapture {
		return true
	}
	if r.Packets == nil {
		return false
	}
	for _, n := range r.Packets.Classes[ledger.Out] {
		if n > 0 {
			return true
		}
	}
	return false
}

// espAfter counts the packets of SAs from an address of which some came well after a moment; when the
// last one came is known to a quarter of a second.
func espAfter(r *ledger.Report, a netip.Addr, t time.Time) (n int64) {
	const sampled = 500 * time.Millisecond
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction == ledger.In && sa.Src == a && sa.Wire != nil && sa.Wire.LastSeen != nil && sa.Wire.LastSeen.Sub(t) > sampled {
			n += sa.Wire.Packets
		}
	}
	return n
}

// droppedIKE counts IKE packets between two ends that this host itself dropped, and names the place.
func droppedIKE(r *ledger.Report, p *ledger.IKEPeer) (n int64, place string) {
	for i := range r.Drops {
		d := &r.Drops[i]
		ends := d.Src == p.Remote.Addr() && d.Dst == p.Local.Addr() || d.Src == p.Local.Addr() && d.Dst == p.Remote.Addr()
		if d.Stage == ledger.IKEPacket && d.Lost && ends {
			if n == 0 {
				place = string(d.Place)
			}
			n += d.Packets
		}
	}
	return n, place
}

// dropEvidence names such drops.
func dropEvidence(r *ledger.Report, p *ledger.IKEPeer) []Evidence {
	n, place := droppedIKE(r, p)
	if n == 0 {
		return nil
	}
	return []Evidence{{"drops.ike", n, "packets", "stack hooks", "IKE packets between these ends that this host itself dropped: " + place}}
}

// tunnelled says whether this host has an SA with a peer.
func tunnelled(r *ledger.Report, a netip.Addr) bool {
	return slices.ContainsFunc(r.SAs, func(sa ledger.SA) bool {
		return sa.State != ledger.Absent && (sa.Src == a || sa.Dst == a)
	})
}

// retryRemedies sets how long requests are repeated before a peer is given up.
func retryRemedies() []Remedy {
	return []Remedy{
		{For: forStrongSwan,
			Text: "How long a request is repeated before the IKE SA is given up, in strongswan.conf; the values below are the defaults and make 165 s. " +
				"What happens then is dpd_action and close_action.",
			Commands: []string{
				"charon.retransmit_timeout = 4.0", "charon.retransmit_base = 1.8", "charon.retransmit_tries = 5",
				"connections.<conn>.dpd_delay = 30s",
				"connections.<conn>.children.<child>.dpd_action = restart",
			}},
		{For: forLibreswan, Text: "The same with its own names, in the conn section of ipsec.conf.",
			Commands: []string{"retransmit-interval=500", "retransmit-timeout=60s", "dpddelay=30", "dpdtimeout=150", "dpdaction=restart"}},
		{For: forPeer, Text: "Cisco has dead peer detection and its interval in the IKEv2 profile. Windows: see what its own IKE made of it.",
			Commands: []string{"dpd 30 5 on-demand   (Cisco, crypto ikev2 profile)", "netsh wfp capture start   (Windows; stop, then wfpdiag.cab)"}},
	}
}
