// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

	"xfrmscope/internal/ledger"
)

// aboutPeer names two gateways as a finding's subject.
func aboutPeer(local, remote netip.Addr) Subject {
	return Subject{Src: new(remote), Dst: new(local)}
}

// ikeWith counts the IKE messages between two gateways, which keep a binding alive as well.
func ikeWith(r *ledger.Report, local, remote netip.Addr) (sent, received, unanswered int64) {
	if r.IKE == nil {
		return 0, 0, 0
	}
	for i := range r.IKE.Peers {
		p := &r.IKE.Peers[i]
		if p.Local.Addr() != local || p.Remote.Addr() != remote {
			continue
		}
		sent, received = sent+p.Sent, received+p.Received
		for _, e := range p.Exchanges {
			if e.Requester == ledger.Local {
				unanswered += e.Unanswered
			}
		}
	}
	return sent, received, unanswered
}

// natBindingLost: after a long silence this host sends, and the peer behind its NAT is heard no more.
func natBindingLost(r *ledger.Report) []Finding {
	if r.NAT == nil {
		return nil
	}
	var out []Finding
	for i := range r.NAT.Peers {
		p := &r.NAT.Peers[i]
		if !p.Translated || p.OutSinceQuiet < natUnanswered || p.QuietBeforeS < natPatience || p.OneWaySince == nil ||
			p.LastOut == nil || p.LastOut.Sub(*p.OneWaySince) < natWaited || p.InPackets == 0 {
			continue
		}
		_, received, unanswered := ikeWith(r, p.Local, p.Remote)
		base := inferred
		if unanswered > 0 {
			base = counted // IKE asked as well, and nobody answered
		}
		f := Finding{
			ID:         NATBindingLost,
			Severity:   Critical,
			Confidence: sure(base, blurred(r), received > 0 && unanswered == 0),
			Subject:    aboutPeer(p.Local, p.Remote),
			Summary: fmt.Sprintf("Peer %s behind NAT (port %d): nothing passed for %.0f seconds; since%s this host sent %s there and heard nothing back. The NAT has probably forgotten the peer.",
				p.Remote, p.OutPort, p.QuietBeforeS, atTime(p.OneWaySince), packets(p.OutSinceQuiet)),
			Evidence: []Evidence{
				{"nat.quiet_before_s", int64(p.QuietBeforeS), "s", "wire", "neither ESP nor keepalives"},
				{"nat.out_since_quiet", p.OutSinceQuiet, "packets", "wire", "since then, without a sign of life from the peer"},
				{"nat.in_packets", p.InPackets, "packets", "wire", "before"},
			},
			Remedy: mappingRemedies(),
		}
		if unanswered > 0 {
			f.Evidence = append(f.Evidence, Evidence{"ike.unanswered", unanswered, "requests", "IKE headers", "of this host's"})
		}
		out = append(out, f)
	}
	return out
}

// natKeepaliveMissing: a peer behind NAT, silence longer than a NAT may keep a binding, no keepalive.
func natKeepaliveMissing(r *ledger.Report) []Finding {
	if r.NAT == nil || r.Source.Kind == ledger.KindCapture {
		return nil
	}
	var out []Finding
	for i := range r.NAT.Peers {
		p := &r.NAT.Peers[i]
		if !p.Translated || p.QuietS < natPatience || p.KeepalivesIn != nil || p.KeepalivesOut != nil {
			continue
		}
		// IKE on the same port is a sign of life too; its messages are counted here, not timed.
		sent, received, _ := ikeWith(r, p.Local, p.Remote)
		if sent+received > 0 {
			continue
		}
		out = append(out, Finding{
			ID:         NATKeepaliveMissing,
			Severity:   Warning,
			Confidence: sure(witnessed, blurred(r), r.Self.Lost["keepalive_table_full"] > 0),
			Subject:    aboutPeer(p.Local, p.Remote),
			Summary: fmt.Sprintf("Peer %s is behind NAT (port %d), and for %.0f seconds nothing passed in either direction, not even a keepalive. NATs give UDP bindings up after 30 seconds to some minutes.",
				p.Remote, max(p.InPort, p.OutPort), p.QuietS),
			Evidence: []Evidence{
				{"nat.quiet_s", int64(p.QuietS), "s", "wire", "the longest time without ESP and keepalives"},
				{"nat.keepalives_in", 0, "packets", "wire", "RFC 3948 section 4: one every 20 seconds from behind the NAT"},
				{"ike messages", 0, "packets", "wire", ""},
			},
			Remedy: mappingRemedies(),
		})
	}
	return out
}

// oneWaySegments without an answer are a connection that waits for one: a SYN is sent six times.
const oneWaySegments = 5

// oneWayTraffic: this host sends and the peer is not heard, though what is inside asks for an answer.
// Traffic may go one way by nature, so packets alone prove nothing; TCP that is not acknowledged does.
func oneWayTraffic(r *ledger.Report) []Finding {
	if r.Flows == nil {
		return nil
	}
	type peer struct{ local, remote netip.Addr }
	asked := map[peer]int64{}
	flows := map[peer]int64{}
	for i := range r.Flows.List {
		f := &r.Flows.List[i]
		for e := range f.Ends {
			from, to := &f.Ends[e], &f.Ends[1-e]
			if from.SA == nil || from.SA.Direction != ledger.Out || to.Packets > 0 || from.Packets < oneWaySegments {
				continue
			}
			for j := range r.SAs {
				sa := &r.SAs[j]
				if sa.SPI == from.SA.SPI && sa.Dst == from.SA.Dst && sa.Direction == ledger.Out && sa.Src.IsValid() {
					k := peer{sa.Src, sa.Dst}
					asked[k] += from.Packets
					flows[k]++
				}
			}
		}
	}
	var out []Finding
	for k := range asked {
		var in, sent int64
		var udp bool
		for j := range r.SAs {
			sa := &r.SAs[j]
			// What another interface received, where nobody looks, the SA has counted.
			if sa.Direction == ledger.In && sa.Own != nil && sa.Src == k.remote && sa.Dst == k.local {
				in += sa.Own.Packets
			}
			if sa.Wire == nil {
				continue
			}
			switch {
			case sa.Direction == ledger.In && wireSource(sa) == k.remote && sa.Dst == k.local:
				in += sa.Wire.Packets
			case sa.Direction == ledger.Out && sa.Src == k.local && sa.Dst == k.remote:
				sent += sa.Wire.Packets
				udp = udp || sa.Wire.Encap == ledger.EncapUDP
			}
		}
		if in > 0 || sent == 0 {
			continue
		}
		_, received, unanswered := ikeWith(r, k.local, k.remote)
		f := Finding{
			ID:         OneWayTraffic,
			Severity:   Critical,
			Confidence: sure(inferred, blurred(r)),
			Subject:    aboutPeer(k.local, k.remote),
			Summary: fmt.Sprintf("This host sent %s of ESP to %s and received none, though %d TCP connections inside wait for an answer. %s",
				packets(sent), k.remote, flows[k], oneWayGuess(received, unanswered, udp)),
			Evidence: []Evidence{
				{"wire.packets out", sent, "packets", "wire", ""},
				{"wire.packets in", 0, "packets", "wire", ""},
				{"flows without an answer", flows[k], "connections", "inner TCP", fmt.Sprintf("%s sent", packets(asked[k]))},
				{"ike.received", received, "messages", "IKE headers", ""},
			},
			Remedy: []Remedy{
				{For: forPath, Text: "See at the peer whether the packets arrive, and whether its answers leave. Where IKE passes and plain ESP does not, a firewall drops protocol 50.",
					Commands: []string{fmt.Sprintf("tcpdump -ni <interface> 'host %s and (esp or udp port 4500)'   # at the peer", k.local)}},
				{For: forHost, Text: "Let ESP in.", Commands: []string{
					"nft add rule inet filter input ip protocol esp accept", "nft add rule inet filter input udp dport { 500, 4500 } accept"}},
				{For: forStrongSwan, Text: "Where ESP is filtered on the way and nothing can be done about it, carry it in UDP.", Commands: []string{"connections.<conn>.encap = yes"}},
				{For: forLibreswan, Text: "The same.", Commands: []string{"encapsulation=yes", "ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
				{For: forPeer, Text: "Look at the peer's counters of this SA: decrypted packets that rise say that the way there is whole (Cisco: show crypto ipsec sa peer)."},
			},
		}
		out = append(out, f)
	}
	return out
}

func oneWayGuess(received, unanswered int64, udp bool) string {
	switch {
	case received > 0 && !udp:
		return "IKE gets through: ESP (IP protocol 50) is filtered on the way, or the peer sends elsewhere."
	case received > 0:
		return "IKE gets through: the peer does not decrypt, or its answers take another way."
	case unanswered > 0:
		return "IKE is not answered either: the peer is gone or the way to it is cut."
	}
	return "The peer is gone, or the way there or back is cut."
}
