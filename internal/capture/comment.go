// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"strings"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// comment is what the file says of a packet: SA, number, verdict, and where its other forms are.
func (r *Recorder) comment(p *packet) string {
	parts := []string{r.subject(p), r.verdict(p)}
	if link := p.links(); link != "" {
		parts = append(parts, link)
	}
	if p.head.Segments > 1 {
		parts = append(parts, fmt.Sprintf("super-packet of %d segments", p.head.Segments))
	}
	if p.head.Flags&bpfobj.PacketFlagPaged != 0 {
		parts = append(parts, "cut where the driver keeps it in pages")
	}
	return strings.Join(parts, "; ")
}

// subject names SA and sequence number.
func (r *Recorder) subject(p *packet) string {
	if p.key.SPI == 0 {
		if p.dropped() && p.head.Flags&bpfobj.PacketFlagCause == 0 && p.key.Proto == "" && p.head.Family != 0 {
			return "IKE or NAT keepalive"
		}
		return "no SA"
	}
	s := fmt.Sprintf("SA %s %s", p.key.SPI, p.key.Direction)
	known := r.sas[p.key]
	reqid := p.head.Reqid
	if known.reqid != 0 {
		reqid = known.reqid
	}
	if reqid != 0 {
		s += fmt.Sprintf(" reqid %d", reqid)
	}
	if known.name != "" {
		s += " (" + known.name + ")"
	}
	if p.src.IsValid() && p.key.Dst.IsValid() {
		s += fmt.Sprintf(" %s > %s", p.src, p.key.Dst)
	}
	switch {
	case p.numbered():
		s += fmt.Sprintf(" seq %d", p.head.Seq)
	case p.chain.sequenced:
		s += fmt.Sprintf(" seq %d", p.chain.seq)
	}
	return s
}

// verdict says what became of a packet, as seen from where this copy was made.
func (r *Recorder) verdict(p *packet) string {
	switch p.head.Point {
	case bpfobj.PacketWireIn:
		return join(p.order(), r.fate(p.chain))
	case bpfobj.PacketWireOut:
		if p.chain.drop != nil {
			return join(p.order(), "dropped: "+p.chain.drop.end())
		}
		return join(p.order(), "sent")
	case bpfobj.PacketDecrypted:
		if p.chain.drop != nil {
			return "decrypted, then dropped: " + p.chain.drop.end()
		}
		return "delivered: decrypted and handed on"
	case bpfobj.PacketPlain:
		switch {
		case p.chain.drop != nil:
			return "dropped: " + p.chain.drop.end()
		case p.chain.outer != nil:
			return "encrypted and sent"
		case p.chain.sequenced:
			return "encrypted"
		}
		return "to be encrypted"
	case bpfobj.PacketDrop:
		return "dropped: " + p.end()
	}
	return ""
}

// fate is what became of a packet that came in.
func (r *Recorder) fate(ch *chain) string {
	switch {
	case ch.drop != nil && ch.inner != nil:
		return "decrypted, then dropped: " + ch.drop.end()
	case ch.drop != nil:
		return "dropped: " + ch.drop.end()
	case ch.inner != nil:
		return "delivered: decrypted and handed on"
	case !ch.sequenced:
		return "not followed: no SPI or number that could be read"
	case !r.source.Points[bpfobj.PacketDecrypted]:
		return "its fate is not observed"
	}
	return "neither decrypted nor dropped as far as was seen"
}

// order is what the number says on the wire.
func (p *packet) order() string {
	d := p.head.Distance
	switch p.head.Order {
	case bpfobj.OrderFirst:
		return "first seen of its SA"
	case bpfobj.OrderNext:
		return "in order"
	case bpfobj.OrderAhead:
		return fmt.Sprintf("ahead: %d numbers before it have not come", d)
	case bpfobj.OrderLate:
		return fmt.Sprintf("late: %d below the highest", d)
	case bpfobj.OrderDuplicate:
		if d == 0 {
			return "duplicate of the packet with the highest number"
		}
		return fmt.Sprintf("duplicate: seen before, %d below the highest", d)
	case bpfobj.OrderOutside:
		return fmt.Sprintf("too far from the highest number to tell late from repeated: %d", d)
	case bpfobj.OrderRestart:
		return "the sequence began anew"
	}
	if p.head.Class < uint16(len(brokenClasses)) && brokenClasses[p.head.Class] != "" {
		return brokenClasses[p.head.Class]
	}
	return ""
}

// brokenClasses are the wire classes of packets without an SA, by enum why.
var brokenClasses = map16(map[bpfobj.Why]string{
	bpfobj.LockfreeWhyWHY_AH:         "AH",
	bpfobj.LockfreeWhyWHY_BAD_AH:     "malformed: AH that is cut short or has an impossible length",
	bpfobj.LockfreeWhyWHY_BAD_UDP:    "malformed: UDP with an impossible length on an IPsec port",
	bpfobj.LockfreeWhyWHY_ESP_SHORT:  "malformed: ends before SPI and sequence number",
	bpfobj.LockfreeWhyWHY_NATT_SHORT: "malformed: too short for ESP in UDP, and no keepalive",
})

func map16(m map[bpfobj.Why]string) []string {
	out := make([]string, bpfobj.LockfreeWhyWHY_MAX)
	for why, s := range m {
		out[why] = s
	}
	return out
}

// end says why and where a packet was dropped.
func (p *packet) end() string {
	var s string
	switch {
	case p.cause != "":
		s = "xfrm, " + string(p.cause)
		if p.head.Top != 0 && p.head.Distance != 0 {
			s += fmt.Sprintf(" (%d below the SA's highest number)", p.head.Distance)
		}
	case p.place == ledger.PlaceXfrm:
		s = "xfrm, no counter moved"
	default:
		s = string(p.place)
	}
	s += " at " + p.where
	if p.reason != "" && p.reason != "NOT_SPECIFIED" {
		s += ", reason " + p.reason
	}
	return s
}

// links says where the other forms of the datagram are.
func (p *packet) links() string {
	var out []string
	tell := func(what string, q *packet) {
		switch {
		case q == nil || q == p:
		case q.number != 0 && q.file == p.file:
			out = append(out, fmt.Sprintf("%s: packet %d", what, q.number))
		case q.number != 0:
			out = append(out, what+": in the file before")
		default:
			out = append(out, fmt.Sprintf("%s: packet id %d", what, p.chain.id))
		}
	}
	tell("outer", p.chain.outer)
	tell("inner", p.chain.inner)
	tell("drop", p.chain.drop)
	return strings.Join(out, ", ")
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
