// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"net/netip"
)

// askedOf is the direction of the policies that refused a packet at this place: a look-up is for
// sending, a check in ip_forward() asks the fwd policies (xfrm_policy_check, xfrm_route_forward).
func (r Refusal) askedOf() string {
	switch {
	case r.Cause.Outbound():
		return "out"
	case r.Place == SiteForward:
		return "fwd"
	case r.Place == SiteLookup, r.Place == SiteInterface, r.Place == SiteOutput:
		return "out"
	}
	return "in"
}

// decide finds the policy that the kernel asked about a packet: of those that match the one of the
// lowest priority, the oldest of equals (xfrm_policy_lookup_bytype, xfrm_policy_insert).
func decide(policies []Policy, dir string, r Refusal) *Policy {
	var best *Policy
	for i := range policies {
		p := &policies[i]
		if p.Dir != dir || p.Sub || !p.takes(r) {
			continue
		}
		if best == nil || p.Before(best) {
			best = p
		}
	}
	return best
}

// Before says whether the kernel asks a policy before another that matches as well. Indices grow
// with each policy that is added.
func (p *Policy) Before(q *Policy) bool {
	if p.Priority != q.Priority {
		return p.Priority < q.Priority
	}
	return p.Index < q.Index
}

// takes says whether a policy matches a packet (xfrm_policy_match). Of an xfrm interface the interface
// id is not known here, only that there is one.
func (p *Policy) takes(r Refusal) bool {
	if r.Mark&p.MarkMask != p.MarkValue {
		return false
	}
	switch {
	case r.Place == SiteInterface:
		if p.IfID == 0 {
			return false
		}
	case p.IfID != r.IfID:
		return false
	}
	s := p.Selector
	if r.Cause.Outbound() {
		// What is known is where the packet came from, not the interface that it was to leave by.
		s.Ifindex = 0
	}
	return s.Takes(r)
}

// Takes says whether a selector covers a packet (xfrm_selector_match).
func (s Selector) Takes(r Refusal) bool {
	return within(s.Src, r.Src) && within(s.Dst, r.Dst) && (s.Proto == 0 || s.Proto == r.Proto) &&
		port(s.SrcPort, s.SrcMask, r.SrcPort) && port(s.DstPort, s.DstMask, r.DstPort) &&
		(s.Ifindex == 0 || s.Ifindex == r.Ifindex)
}

func within(p netip.Prefix, a netip.Addr) bool { return !p.IsValid() || p.Contains(a) }

// unnamed is where the ports begin of which the higher one of a packet is not kept.
const unnamed = 1024

func port(want, mask, have uint16) bool {
	if mask == 0 || have&mask == want&mask {
		return true
	}
	return have == 0 && want >= unnamed
}

// Covers says whether every packet that other covers is covered by s, too.
func (s Selector) Covers(other Selector) bool {
	net := func(wide, narrow netip.Prefix) bool {
		if !wide.IsValid() {
			return true
		}
		return narrow.IsValid() && wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
	}
	number := func(want, mask, narrow, narrowMask uint16) bool {
		return mask == 0 || mask&narrowMask == mask && want&mask == narrow&mask
	}
	return net(s.Src, other.Src) && net(s.Dst, other.Dst) && (s.Proto == 0 || s.Proto == other.Proto) &&
		number(s.SrcPort, s.SrcMask, other.SrcPort, other.SrcMask) && number(s.DstPort, s.DstMask, other.DstPort, other.DstMask) &&
		(s.Ifindex == 0 || s.Ifindex == other.Ifindex)
}

// String writes a selector as iproute2 does.
func (s Selector) String() string {
	out := fmt.Sprintf("src %s dst %s", prefixText(s.Src), prefixText(s.Dst))
	if s.Proto != 0 {
		out += " proto " + protoText(s.Proto)
	}
	if s.SrcMask != 0 {
		out += fmt.Sprintf(" sport %d", s.SrcPort)
	}
	if s.DstMask != 0 {
		out += fmt.Sprintf(" dport %d", s.DstPort)
	}
	return out
}

// String writes a refused packet in the same words.
func (r Refusal) String() string { return flowText(r.Src, r.Dst, r.Proto, r.SrcPort, r.DstPort) }

// String writes a refused flow in the words of a selector.
func (f *RefusedFlow) String() string { return flowText(f.Src, f.Dst, f.Proto, f.SrcPort, f.DstPort) }

func flowText(src, dst netip.Addr, proto uint8, sport, dport uint16) string {
	out := fmt.Sprintf("src %s dst %s proto %s", src, dst, protoText(proto))
	switch proto {
	case 1, 58:
		return out + fmt.Sprintf(" type %d code %d", sport, dport)
	}
	if sport != 0 {
		out += fmt.Sprintf(" sport %d", sport)
	}
	if dport != 0 {
		out += fmt.Sprintf(" dport %d", dport)
	}
	return out
}

func protoText(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "ipv6-icmp"
	case 132:
		return "sctp"
	}
	return fmt.Sprint(p)
}

// Required is the template that packets must fulfil, the first that is not optional; nil: none.
func (p *Policy) Required() *Template {
	for i := range p.Templates {
		if !p.Templates[i].Optional {
			return &p.Templates[i]
		}
	}
	return nil
}

// Differences says in what an SA is not what the template demands. Received packets are held against
// protocol, SPI, reqid, mode, source and interface id (xfrm_state_ok), an SA to send by against the
// destination, too (xfrm_state_find).
func (t *Template) Differences(sa *SADEntry, p *Policy) []Difference {
	var out []Difference
	differ := func(field string, same bool, wanted, found any) {
		if !same {
			out = append(out, Difference{field, fmt.Sprint(wanted), fmt.Sprint(found)})
		}
	}
	address := func(field string, wanted, found netip.Addr) {
		differ(field, !wanted.IsValid() || wanted.IsUnspecified() || wanted == found, wanted, found)
	}
	differ("proto", t.Proto == sa.Key.Proto, t.Proto, sa.Key.Proto)
	differ("spi", t.SPI == 0 || t.SPI == sa.Key.SPI, t.SPI, sa.Key.SPI)
	differ("reqid", t.ReqID == 0 || t.ReqID == sa.ReqID, t.ReqID, sa.ReqID)
	differ("mode", t.Mode == sa.Mode, t.Mode, sa.Mode)
	if t.Mode != "transport" {
		address("src", t.Src, sa.Src)
		if p.Dir == "out" {
			address("dst", t.Dst, sa.Key.Dst)
		}
	}
	differ("if_id", p.IfID == 0 || p.IfID == sa.IfID, p.IfID, sa.IfID)
	return out
}
