// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// InnerRTTGrowth is a queue on the way that a connection fills: everything behind it waits.
const InnerRTTGrowth ID = "inner-rtt-growth"

const (
	growthSamples = 16      // fewer say little, and there is one in each round trip at most
	growthFactor  = 4       // the smoothed round trip against the least one
	growthUS      = 100_000 // and by at least so much
	growthGraveUS = 400_000 // from which on it asks for action: speech and typing suffer
)

// grown picks the half of the round trip that grew most, towards the reader or back to the sender.
// Where the window binds, both ends wait for each other for reasons of their own.
func grown(t talk) (rtt *ledger.FlowRTT, by int64, back bool) {
	if hits, looks, _ := usedUp(t); stalled(t) || 2*hits >= looks {
		return nil, 0, false
	}
	for i, r := range []*ledger.FlowRTT{t.sender.RTT, t.sender.Back} {
		if r == nil || r.Steady < growthSamples {
			continue
		}
		// Echoes begin when the queue may be there already; the handshake went the same way before it.
		if own := t.reader.RTT; i == 1 && own != nil && own.MinUS < r.MinUS {
			r = new(*r)
			r.MinUS = own.MinUS
		}
		if g := r.SmoothedMaxUS - r.MinUS; r.SmoothedMaxUS >= growthFactor*r.MinUS && g > by {
			rtt, by, back = r, g, i == 1
		}
	}
	return rtt, by, back
}

func growth(t talk) int64 { _, by, _ := grown(t); return by }

func innerRTTGrowth(r *ledger.Report) []Finding {
	var out []Finding
	for _, group := range groups(talks(r), func(t talk) ledger.SAKey { return t.sender.SA.Key() }) {
		t := worst(group, growth)
		rtt, by, back := grown(t)
		if by < growthUS {
			continue
		}
		severity := Info
		if by >= growthGraveUS {
			severity = Warning
		}
		whom, how := t.reader, "its acknowledgements"
		if back {
			whom, how = t.sender, "echoed timestamps"
		}
		// What goes out into the tunnel and comes back, or what came from it: the far half.
		where := "on this gateway's own side"
		if t.inbound() == back {
			where = "in the tunnel's path or behind the peer"
		}
		marks := total(group, func(t talk) int64 { return t.sender.Congested })
		out = append(out, Finding{
			ID: InnerRTTGrowth, Severity: severity, Subject: t.subject(),
			Confidence: sure(counted, blurred(r), missed(r)),
			Summary: fmt.Sprintf("%s: the round trip from here to %s grew from %s to %s under load. A queue %s holds about %s of this connection "+
				"(bufferbloat); everything that shares it waits as long.",
				t.saName(), port(whom), seconds(rtt.MinUS), seconds(rtt.SmoothedMaxUS), where,
				size(int64(float64(t.rate())*float64(by)/1e6))),
			Evidence: []Evidence{
				{"flows.rtt.min", rtt.MinUS, "µs", fromInner, "from here to " + whom.Addr.String() + " and back, by " + how},
				{"flows.rtt.smoothed_max", rtt.SmoothedMaxUS, "µs", fromInner, "RFC 6298"},
				{"flows.rtt.early", rtt.EarlyUS, "µs", fromInner, "mean of the first samples"},
				{"flows.rtt.samples", rtt.Samples, "samples", fromInner, ""},
				{"flows.in_flight_max", t.sender.InFlightMax, "bytes", fromInner, "sent and not acknowledged"},
				{"flows.ecn_ce", marks, "packets", fromInner, "marked by a router that would rather have dropped them"},
			},
			Remedy: growthRemedies(t, t.inbound() == back),
		})
	}
	return out
}

func growthRemedies(t talk, far bool) []Remedy {
	kbit := max(1, t.rate()*8*95/100/1000)
	text := "Put the queue where it can be kept short: shape a little below the bottleneck's rate, with fair queueing. Before encryption it " +
		"tells the connections apart; behind it an SA is one flow. The rate is 95 % of what this connection reached."
	shaper, device := forHost, "<xfrm interface or the one towards the path>"
	if far && t.inbound() {
		shaper, device = forPath, "<there, at the peer: the interface towards this gateway>"
	} else if !far && t.inbound() {
		device = "<interface towards the hosts>"
	}
	return []Remedy{
		{For: shaper, Text: text, Commands: []string{
			fmt.Sprintf("tc qdisc replace dev %s root cake bandwidth %dkbit", device, kbit),
			"tc -s qdisc show   # backlog and delays of the queues here",
		}},
		{For: forSender, Text: "Let senders keep less in flight than a queue holds, and react to marks instead of loss.",
			Commands: []string{"sysctl -w net.ipv4.tcp_ecn=1", "sysctl -w net.ipv4.tcp_congestion_control=bbr   # where the module is there"}},
		{For: forStrongSwan, Text: "ECN passes through tunnels as RFC 6040 wants unless it is switched off.",
			Commands: []string{"swanctl.conf: connections.<conn>.children.<child>.copy_ecn = yes"}},
		{For: forPeer, Text: "A Cisco gateway shapes on its tunnel interface (policy-map with shape average and fair-queue); on Windows a QoS policy bounds the senders.",
			Commands: []string{"show policy-map interface   ! queue depth and drops"}},
	}
}
