// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"slices"

	"xfrmscope/internal/ledger"
)

// MTUBlackHole is large packets that leave through an SA and of which nobody says what becomes.
const MTUBlackHole ID = "mtu-black-hole"

// What makes a flow stuck: repeats enough that it is no single loss, of segments that are no small ones.
const (
	stuckRepeats = 3
	largeSegment = 1000
)

// stuck says whether a flow's end sent full-size segments of which not one was ever acknowledged,
// however often they were repeated, although the other end answers. All that it sent but once was still
// in flight when most was; the part of repeats in it is at most their number times the largest segment.
func stuck(me, other *ledger.FlowEnd) bool {
	once := me.PayloadBytes - me.Retransmissions*me.SegmentMax
	return me.Retransmissions >= stuckRepeats && me.SegmentMax >= largeSegment && other.Packets > 0 &&
		once < me.InFlightMax+me.SegmentMax && (other.Zero.Episodes == 0)
}

// hole gathers the stuck flows of one outbound SA, and what passes through it all the same.
type hole struct {
	flows   []*ledger.FlowEnd
	remote  map[netip.Addr]bool // hosts that they are for
	repeats int64
	segment int64                  // the smallest of the segments that do not get through
	passing map[netip.Addr][]int64 // largest segments of flows that are acknowledged, by the host that they are for
}

// alive counts the flows that do get through to the same hosts, and their largest segment: those hosts,
// and the SA, are alive.
func (h *hole) alive() (flows int, segment int64) {
	for host := range h.remote {
		for _, s := range h.passing[host] {
			flows, segment = flows+1, max(segment, s)
		}
	}
	return flows, segment
}

func mtuBlackHole(r *ledger.Report) []Finding {
	if r.Flows == nil {
		return nil
	}
	holes := map[ledger.SAKey]*hole{}
	for i := range r.Flows.List {
		f := &r.Flows.List[i]
		for j := range f.Ends {
			me, other := &f.Ends[j], &f.Ends[1-j]
			if me.SA == nil || me.SA.Direction != ledger.Out {
				continue
			}
			h := holes[me.SA.Key()]
			if h == nil {
				h = &hole{remote: map[netip.Addr]bool{}, passing: map[netip.Addr][]int64{}}
				holes[me.SA.Key()] = h
			}
			switch {
			case stuck(me, other):
				h.flows = append(h.flows, me)
				h.remote[other.Addr] = true
				h.repeats += me.Retransmissions
				if h.segment == 0 || me.SegmentMax < h.segment {
					h.segment = me.SegmentMax
				}
			case me.RTT != nil && me.RTT.Samples > 1 && me.Retransmissions == 0:
				h.passing[other.Addr] = append(h.passing[other.Addr], me.SegmentMax)
			}
		}
	}
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		h := holes[ledger.SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}]
		// Where it is known why they do not get through, that is another finding.
		if h == nil || len(h.flows) == 0 || explained(r, sa) || h.wide() {
			continue
		}
		out = append(out, h.finding(r, sa))
	}
	return out
}

// explained says whether this host saw that packets for the SA were too big: then it is known who was
// told and who was not.
func explained(r *ledger.Report, sa *ledger.SA) bool {
	if r.PMTU == nil {
		return false
	}
	for _, t := range toldOf(r) {
		if t.sa == sa {
			if yes, known := t.applied(); known && !yes {
				return true
			}
		}
	}
	for ref, list := range oversizes(r) {
		for _, o := range list {
			if ref.SPI == sa.SPI && ref.Dst == sa.Dst && (o.ignoring() || o.swallowed()) {
				return true
			}
		}
	}
	return false
}

// wide says whether segments as large as those that are stuck get through to anybody.
func (h *hole) wide() bool {
	for _, list := range h.passing {
		if slices.Max(list) >= h.segment {
			return true
		}
	}
	return false
}

func (h *hole) finding(r *ledger.Report, sa *ledger.SA) Finding {
	base, severity := inferred, Warning
	beside := "Nothing else of this SA goes to the same hosts, which could tell a hole in the path from a host that went away."
	if flows, segment := h.alive(); flows > 0 {
		base, severity = counted, Critical
		beside = fmt.Sprintf("Meanwhile smaller segments of other flows (%d, up to %d octets) reach the same hosts through the same SA.", flows, segment)
	}
	path := pathTo(r, sa.SPI, sa.Dst)
	size := ""
	evidence := []Evidence{
		{"flows.retransmissions", h.repeats, "segments", "inner flows", fmt.Sprintf("of %d flows of which no full-size segment was ever acknowledged", len(h.flows))},
		{"flows.segment_max", h.segment, "octets", "inner flows", "payload of the segments that do not get through"},
		{"pmtu.told", told(r, sa), "messages", "path MTU hooks", "ICMP about this SA; none: no router says that anything is too big"},
	}
	if path != nil && path.Overhead != nil {
		family := 4
		if h.flows[0].Addr.Is6() {
			family = 6
		}
		outer := path.Overhead.Outer(int(h.segment) + (1500 - ledger.MSS(1500, family)))
		size = fmt.Sprintf(" of up to %d octets on the wire", outer)
		evidence = append(evidence, Evidence{"outer_size", int64(outer), "octets", "computed", "such a segment as ESP, without TCP options"})
	}
	first := h.flows[0]
	return Finding{
		ID: MTUBlackHole, Severity: severity, Confidence: sure(base, blurred(r)), Subject: about(sa),
		Summary: fmt.Sprintf("%s: full-size segments (%d octets) of %s are repeated and never acknowledged, while handshakes and empty acknowledgements pass. "+
			"Somewhere on the path ESP%s disappears and nobody says so. %s",
			through(ledger.SARef{SPI: sa.SPI, Dst: sa.Dst}), h.segment, flowsOf(len(h.flows), first), size, beside),
		Evidence: append(evidence, overheadEvidence(path)...),
		Remedy: append([]Remedy{{For: forPath,
			Text: "Measure what the path takes, from this host, outside the tunnel, with DF: the largest size that is answered, plus 28 (IPv6: 48), is the path MTU. " +
				"Then subtract what the SA adds.",
			Commands: []string{
				fmt.Sprintf("for s in 1472 1432 1372 1272 1172; do ping -M do -c 2 -W 1 -s $s %s; done", sa.Dst),
				fmt.Sprintf("ip route replace %s/%d via <gateway> dev <interface> mtu <path MTU>   # then this host tells the hosts inside", sa.Dst, sa.Dst.BitLen()),
			}},
			{For: forPath, Text: "Whoever runs the router or firewall with the small MTU must let ICMP type 3 code 4 (ICMPv6 type 2) out. Until then a careful guess, for a path of 1400:"}},
			shrinkRemedies(path, 4, innerMTU(path, 1400))...),
	}
}

func told(r *ledger.Report, sa *ledger.SA) (n int64) {
	for _, t := range toldOf(r) {
		if t.sa == sa {
			n += t.n
		}
	}
	return n
}

func flowsOf(n int, first *ledger.FlowEnd) string {
	if n == 1 {
		return fmt.Sprintf("a flow from %s", first.Addr)
	}
	return fmt.Sprintf("%d flows, one of them from %s,", n, first.Addr)
}
