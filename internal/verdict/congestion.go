// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

	"xfrmscope/internal/ledger"
)

// Findings on queues and rate limits outside this host.
const (
	Congestion        ID = "congestion"
	PolicingSuspected ID = "policing-suspected"
)

// congestionKinds tell loss for want of room from loss by a rate limit.
func congestionKinds() []Kind {
	return []Kind{
		{PeerRestarted, "The peer's sequence numbers began anew", peerRestarted},
		{Congestion, "Queues on the path are full", congestion},
		{PolicingSuspected, "A rate limit drops packets on the path", policingSuspected},
	}
}

// pathLost is what an SA of the peer lost on the path.
func pathLost(r *ledger.Report, sa *ledger.SA) int64 {
	if b := sa.Ledger.In; b != nil && b.LostOnPath != nil {
		return max(0, *b.LostOnPath-leaptOver(r, sa))
	}
	return 0
}

// congestedLost is from how many lost packets on a queue that was seen to grow is blamed for them.
const congestedLost = 20

// pathDelays are, by the other end of their SAs, the connections that waited longest between this host and it,
// where they waited so much longer than at first that a queue must have grown there.
func pathDelays(r *ledger.Report) map[netip.Addr]*talk {
	out := map[netip.Addr]*talk{}
	for _, t := range talks(r) {
		if t.inbound() || growth(t) < growthUS {
			continue
		}
		if slowest := out[t.sender.SA.Dst]; slowest == nil || growth(t) > growth(*slowest) {
			out[t.sender.SA.Dst] = &t
		}
	}
	return out
}

// congestion rests on what routers say themselves, the mark that a queue is full (RFC 3168); or on losses
// while round trips through the path grew.
func congestion(r *ledger.Report) []Finding {
	delays := pathDelays(r)
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		w := sa.Sequence()
		if w == nil || sa.Direction == ledger.Out || sa.State == ledger.Absent {
			continue
		}
		lost := pathLost(r, sa)
		p := lossPattern(sa, lost)
		delay := delays[sa.Src]
		if w.ECNCE == 0 {
			if delay != nil && lost >= congestedLost && (p == patternBursts || p == patternRegular) {
				out = append(out, delayedLoss(r, sa, delay, lost, p))
			}
			continue
		}
		f := Finding{
			ID:         Congestion,
			Severity:   Info,
			Confidence: sure(witnessed, blurred(r), p == patternRegular),
			Subject:    about(sa),
			Summary: fmt.Sprintf("%s: %s (%s) arrived marked \"congestion experienced\": a queue on the path, or before the peer, is filling up.",
				who(sa), packets(w.ECNCE), share(w.ECNCE, w.Packets)),
			Evidence: []Evidence{
				{"wire.ecn_ce", w.ECNCE, "packets", "wire", "outer header, set by a router or copied from the inner one by the peer (RFC 6040)"},
				{"wire.packets", w.Packets, "packets", "wire", ""},
			},
			Remedy: congestionRemedies(sa),
		}
		f.Evidence = append(f.Evidence, innerMarks(r, sa)...)
		if lost > 0 {
			f.Severity = pathSeverity(lost, *sa.Ledger.In.Sent)
			f.Summary += fmt.Sprintf(" %s of %d got lost. %s", packets(lost), *sa.Ledger.In.Sent, p.sentence(sa))
			f.Evidence = append(f.Evidence, Evidence{"ledger.lost_on_path", lost, "packets", "wire", "pattern: " + string(p)})
		}
		if delay != nil {
			f.Evidence = append(f.Evidence, delayEvidence(delay)...)
		}
		out = append(out, f)
	}
	return out
}

// innerMarks is what connections inside the SA bear of the mark: the kernel hands it on when it decrypts,
// unless the SA says otherwise, and the ends can only slow down if it does.
func innerMarks(r *ledger.Report, sa *ledger.SA) []Evidence {
	if r.Flows == nil {
		return nil
	}
	var marked, packets int64
	key := ledger.SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}
	for i := range r.Flows.List {
		for j := range r.Flows.List[i].Ends {
			if e := &r.Flows.List[i].Ends[j]; e.SA != nil && e.SA.Key() == key {
				marked, packets = marked+e.Congested, packets+e.Packets
			}
		}
	}
	if packets == 0 {
		return nil
	}
	return []Evidence{{"flows.ecn_ce", marked, "packets", fromInner, fmt.Sprintf("with the mark inside, of %d of the connections that are followed", packets)}}
}

// delayedLoss is congestion that no router marked.
func delayedLoss(r *ledger.Report, sa *ledger.SA, delay *talk, lost int64, p pattern) Finding {
	sent := *sa.Ledger.In.Sent
	return Finding{
		ID:         Congestion,
		Severity:   pathSeverity(lost, sent),
		Confidence: sure(counted, blurred(r), restarted(sa)),
		Subject:    about(sa),
		Summary: fmt.Sprintf("%s: %s of %d got lost while round trips through the tunnel grew from %s to %s: a queue on the path fills and overflows. %s",
			who(sa), packets(lost), sent, seconds(delay.sender.RTT.MinUS), seconds(delay.sender.RTT.SmoothedMaxUS), p.sentence(sa)),
		Evidence: append([]Evidence{{"ledger.lost_on_path", lost, "packets", "wire", "pattern: " + string(p)}}, delayEvidence(delay)...),
		Remedy:   congestionRemedies(sa),
	}
}

func delayEvidence(t *talk) []Evidence {
	return []Evidence{
		{"flows.rtt.min", t.sender.RTT.MinUS, "µs", fromInner, "from here to " + port(t.reader) + " and back"},
		{"flows.rtt.smoothed_max", t.sender.RTT.SmoothedMaxUS, "µs", fromInner, "RFC 6298"},
	}
}

// Bounds of what is called a rate limit: how long it was seen at work, how even the rate was that it
// let pass, and, where even distances do not prove it, how much what was sent varied, by itself and against what
// passed. What passes of random loss varies at least as much as what was sent.
const (
	policingIntervals = 6
	policingLost      = 20
	flatSpread        = 0.15
	variedSpread      = 0.1
	steadierBy        = 2
	limitMargin       = 1.15
)

// policingSuspected: what passes while packets are lost has one rate, which is never exceeded without
// loss, and no queue says that it is full.
func policingSuspected(r *ledger.Report) []Finding {
	delays := pathDelays(r)
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		w := sa.Sequence()
		if w == nil || sa.Direction == ledger.Out || sa.State == ledger.Absent || w.ECNCE > 0 || w.Packets == 0 || delays[sa.Src] != nil {
			continue
		}
		lost, passed, sent := pathLost(r, sa), w.LossyRate, w.OfferedRate
		if lost < policingLost || passed == nil || sent == nil || passed.Count < policingIntervals || 4*w.Late > lost ||
			float64(w.CleanRateMax) > limitMargin*passed.Mean {
			continue
		}
		varied := sent.Deviation / sent.Mean
		capped := varied >= variedSpread && passed.Deviation/passed.Mean <= varied/steadierBy
		if passed.Deviation > flatSpread*passed.Mean || lossPattern(sa, lost) != patternRegular && !capped {
			continue
		}
		bytes := float64(w.Bytes) / float64(w.Packets)
		f := Finding{
			ID:         PolicingSuspected,
			Severity:   pathSeverity(lost, *sa.Ledger.In.Sent),
			Confidence: sure(inferred, blurred(r), restarted(sa)),
			Subject:    about(sa),
			Summary: fmt.Sprintf("%s: %s of %d got lost, and whenever some did, %.0f packets a second passed (about %s), never more. This is what a rate limit looks like.",
				who(sa), packets(lost), *sa.Ledger.In.Sent, passed.Mean, bitRate(passed.Mean*bytes*8)),
			Evidence: append([]Evidence{
				{"ledger.lost_on_path", lost, "packets", "wire", ""},
				{"wire.lossy_rate.mean", int64(passed.Mean + 0.5), "packets/s", "wire",
					fmt.Sprintf("passed in %d intervals with a loss, deviation %.1f", passed.Count, passed.Deviation)},
				{"wire.offered_rate.mean", int64(sent.Mean + 0.5), "packets/s", "wire",
					fmt.Sprintf("was sent in these, deviation %.1f", sent.Deviation)},
				{"wire.clean_rate_max", w.CleanRateMax, "packets/s", "wire", "most that passed without a loss"},
			}, patternEvidence(sa, lossPattern(sa, lost))...),
			Remedy: policingRemedies(passed.Mean * bytes * 8),
		}
		out = append(out, f)
	}
	return out
}

func bitRate(bits float64) string {
	switch {
	case bits >= 1e9:
		return fmt.Sprintf("%.2f Gbit/s", bits/1e9)
	case bits >= 1e6:
		return fmt.Sprintf("%.2f Mbit/s", bits/1e6)
	}
	return fmt.Sprintf("%.0f kbit/s", bits/1e3)
}

func congestionRemedies(sa *ledger.SA) []Remedy {
	return []Remedy{
		{For: forPath, Text: "Find the hop whose queue fills: delay that grows with load shows it. Give the tunnel room there, or shape what enters the tunnel below it, so that the queue " +
			"forms where you can manage it.",
			Commands: []string{
				fmt.Sprintf("mtr --report --report-cycles 100 --psize 1400 %s   # once idle, once under load", address(sa)),
				"tc qdisc replace dev <interface> root cake bandwidth <95 % of the bottleneck>   # on the sender",
			}},
		{For: forStrongSwan, Text: "Keep ECN usable end to end: the kernel copies the mark to the inner packet on decapsulation unless the SA says otherwise.",
			Commands: []string{"ip xfrm state list | grep -w noecn   # should list nothing", "connections.<conn>.children.<child>.copy_ecn = yes"}},
		{For: forPeer, Text: "Shape on the peer's outside interface: a policy with fair queueing (Cisco: shape average, fair-queue; Windows: a QoS policy with a throttle rate)."},
	}
}

func policingRemedies(bits float64) []Remedy {
	return []Remedy{
		{For: forPath, Text: "Ask the provider for the contracted rate of the sender's line, and whether UDP or ESP is limited apart. If every n-th packet is lost whatever the rate is, " +
			"look for one dead link in a per-packet bundle instead.",
			Commands: []string{fmt.Sprintf("tc qdisc replace dev <interface> root cake bandwidth %.0fkbit   # on the sender: shape 5 %% below the limit, packets wait instead of dying", bits/1e3*0.95)}},
		{For: forPeer, Text: "Shape on the peer's outside interface below the limit (Cisco: shape average; Windows: New-NetQosPolicy -ThrottleRateActionBitsPerSecond)."},
		{For: forHost, Text: "A policer of one's own looks the same, if it sits before the wire hook of this host: on a hypervisor or a switch.",
			Commands: []string{"tc -s filter show dev <interface> ingress   # on the hypervisor"}},
	}
}
