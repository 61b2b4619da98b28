// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// Inner compares what is known of the largest packet inside the tunnel, in octets; 0: not known.
type Inner struct {
	Measured int   `json:"measured"`
	Computed int   `json:"computed"` // what the SA leaves of the MTU measured outside
	Agree    *bool `json:"agree"`    // null: one of them is not known
	Believed int   `json:"believed"` // what the kernel lets through, by its routes
}

// Set is what to set.
type Set struct {
	MTU  int `json:"mtu"`
	MSS4 int `json:"mss_ipv4"` // TCP maximum segment size
	MSS6 int `json:"mss_ipv6"`
}

// Judgement says what follows from the measurements.
type Judgement struct {
	Inner   *Inner           `json:"inner"` // null: no tunnel is known
	Set     *Set             `json:"set"`   // null: not known
	Fits    *bool            `json:"fits"`  // the path carries what is set; null: not known
	Reasons []string         `json:"reasons"`
	Notes   []string         `json:"notes"`
	Remedy  []verdict.Remedy `json:"remedy"`
}

// Judge compares what passes with what this host goes by.
func Judge(p Plan, outside, inside *Side) Judgement {
	j := Judgement{Reasons: []string{}, Notes: []string{}, Remedy: []verdict.Remedy{}}
	for _, s := range []*Side{outside, inside} {
		if s != nil {
			j.sideNotes(s)
		}
	}
	j.weigh(p, outside, inside)
	outer, inner := 0, 0
	if outside != nil && outside.Result.Exact() {
		outer = outside.Result.MTU
	}
	if j.Inner != nil {
		if inner = j.Inner.Measured; inner == 0 {
			inner = j.Inner.Computed
		}
	}
	switch {
	case inner > 0:
		j.Set = &Set{inner, ledger.MSS(inner, 4), ledger.MSS(inner, 6)}
		j.Fits = new(j.Inner.Believed <= inner)
		if !*j.Fits {
			j.Reasons = append(j.Reasons, fmt.Sprintf("this host lets packets of %d octets into the tunnel, and no more than %d pass%s", j.Inner.Believed, inner, silence(p, outside, inside)))
		}
	case outer > 0:
		j.Set = &Set{outer, ledger.MSS(outer, 4), ledger.MSS(outer, 6)}
		j.Fits = new(outside.Before.MTU <= outer)
	case outside != nil && outside.Result.Limit == LimitAsked && outside.Before.MTU <= outside.Result.MTU:
		j.Fits = new(true)
	}
	if outer > 0 && outside.Before.MTU > outer {
		text := fmt.Sprintf("this host takes the path to %s for one of %d octets, and it carries %d%s", outside.Target.Dst, outside.Before.MTU, outer, silence(p, outside, nil))
		if *j.Fits {
			j.Notes = append(j.Notes, text+"; what goes through the tunnel is small enough all the same")
		} else {
			j.Reasons = append(j.Reasons, text)
		}
	}
	j.remedies(p, outside, outer, inner)
	return j
}

// weigh compares the measured with the computed.
func (j *Judgement) weigh(p Plan, outside, inside *Side) {
	if p.Tunnel == nil {
		return
	}
	n := &Inner{}
	j.Inner = n
	overhead := p.Tunnel.Overhead
	if overhead == nil {
		j.Notes = append(j.Notes, "what the SA adds to a packet is not known: "+p.Tunnel.Why)
	}
	if overhead != nil && outside != nil {
		n.Believed = overhead.Inner(outside.Before.MTU)
		if outside.Result.Exact() {
			n.Computed = overhead.Inner(outside.Result.MTU)
		}
	}
	if inside == nil {
		return
	}
	if overhead != nil && outside == nil && inside.Target.Dst == p.Tunnel.Gateway {
		// In transport mode the packet's own route is the tunnel's.
		n.Believed = overhead.Inner(inside.Before.MTU)
	}
	if n.Believed == 0 || inside.Before.MTU < n.Believed {
		n.Believed = inside.Before.MTU
	}
	if inside.Result.Refused != 0 {
		// The kernel has said itself what it let through, before it learned better from the probes.
		n.Believed = min(n.Believed, inside.Result.Refused)
	}
	if !inside.Result.Exact() {
		return
	}
	n.Measured = inside.Result.MTU
	if n.Computed == 0 {
		return
	}
	n.Agree = new(n.Measured == n.Computed)
	switch {
	case n.Measured < n.Computed && inside.Result.Limit == LimitNone:
		j.Notes = append(j.Notes, fmt.Sprintf("%s takes no more than %d octets, where the SA leaves room for %d", inside.Before.Device, n.Measured, n.Computed))
	case n.Measured < n.Computed && inside.Result.Limit == LimitHost:
		j.Notes = append(j.Notes, fmt.Sprintf("the kernel lets no more than %d octets into the tunnel, where the path has room for %d: a route or an interface is set to less, or it still goes by an old path MTU", n.Measured, n.Computed))
	case n.Measured < n.Computed:
		j.Notes = append(j.Notes, fmt.Sprintf("inside, %d octets pass of the %d that the outer path has room for: the network behind the peer takes less, or the path treats ESP unlike other packets", n.Measured, n.Computed))
	case n.Measured > n.Computed:
		j.Notes = append(j.Notes, fmt.Sprintf("inside, %d octets pass where the outer path has room for %d: the ESP packets are cut into fragments, or take another path", n.Measured, n.Computed))
	}
}

// silence says whether senders learn of it by themselves.
func silence(p Plan, sides ...*Side) string {
	for _, s := range sides {
		if s == nil {
			continue
		}
		switch s.Result.Limit {
		case LimitBlackHole:
			if s.Result.OneWay {
				return "; the larger ones arrive, but their answers do not come back"
			}
			return "; larger ones disappear and nobody says so, so no sender can learn of it"
		case LimitRouter:
			return fmt.Sprintf("; %s says so to senders that listen, which lose the first packets to it", s.Result.By)
		}
	}
	return ""
}

// sideNotes tells what else was seen.
func (j *Judgement) sideNotes(s *Side) {
	note := func(format string, args ...any) { j.Notes = append(j.Notes, fmt.Sprintf(format, args...)) }
	r, dst := &s.Result, s.Target.Dst
	for _, t := range r.Told {
		switch {
		case t.Right || !r.Exact():
		case t.MTU == 0:
			note("%s says that %d octets are too big for it, but not what would fit (RFC 1191 section 4 asks for it)", t.From, t.Size)
		case t.MTU < r.MTU:
			note("%s says that %d octets fit, and %d pass: who believes it sends less than could be sent", t.From, t.MTU, r.MTU)
		case r.Limit == LimitBlackHole:
			note("%s says that %d octets fit, and behind it no more than %d pass", t.From, t.MTU, r.MTU)
		}
	}
	if r.Changed {
		note("the path to %s changed while it was measured", dst)
	}
	if r.OneWay {
		note("larger packets arrive at %s; it is their answers that get lost, so the limit is on the way back, for what the peer sends", dst)
	}
	if r.Exhausted {
		note("%d packets did not suffice for %s: at least %d octets pass%s; allow more with --count", r.Sent, dst, r.MTU, less(r.Above))
	}
	if !s.Target.Inside && r.Exact() && s.Before.MTU < r.MTU {
		note("the kernel goes by %d octets to %s (%s), and %d pass: it sends less than it could", s.Before.MTU, dst, s.Before.origin(), r.MTU)
	}
	if s.After != s.Before.MTU {
		note("while it was probed, the kernel learned an MTU of %d for the route to %s, where it went by %d", s.After, dst, s.Before.MTU)
	}
}

func less(above int) string {
	if above == 0 {
		return ""
	}
	return fmt.Sprintf(", %d do not", above)
}

// origin says where the kernel has the MTU of a route from.
func (r *Route) origin() string {
	switch {
	case r.Locked:
		return "set on the route, and locked"
	case r.Learned:
		return "learned; it is forgotten after net.ipv4.route.mtu_expires, net.ipv6.route.mtu_expires"
	case r.MTU != r.DeviceMTU:
		return "set on the route"
	}
	return "the MTU of " + r.Device
}

// remedies says what to type where something has to be changed.
func (j *Judgement) remedies(p Plan, outside *Side, outer, inner int) {
	if j.Fits == nil || *j.Fits {
		return
	}
	if outer > 0 && outside.Before.MTU > outer {
		text := "Tell the kernel what the path carries."
		if inner > 0 {
			text += " It then lets no more into the SA than fits, and tells senders behind this gateway so."
		}
		j.Remedy = append(j.Remedy, verdict.Remedy{For: "iproute2", Text: text, Commands: []string{outside.routeCommand(outer)}})
	}
	if inner == 0 {
		return
	}
	family := 4
	known := []string{}
	if q := p.Tunnel.Policy; q != nil && q.Selector.Dst.IsValid() {
		if q.Selector.Dst.Addr().Is6() {
			family = 6
		}
		known = append(known, "<network behind the peer>", q.Selector.Dst.String())
	}
	if outside != nil {
		known = append(known, "dev <interface>", "dev "+outside.Before.Device)
		if outside.Before.Gateway.IsValid() {
			known = append(known, "via <gateway>", "via "+outside.Before.Gateway.String())
		}
	}
	fill := strings.NewReplacer(known...)
	for _, r := range verdict.Shrink(inner, family) {
		for i := range r.Commands {
			r.Commands[i] = fill.Replace(r.Commands[i])
		}
		j.Remedy = append(j.Remedy, r)
	}
}

// routeCommand gives the path's MTU to a route of its own.
func (s *Side) routeCommand(mtu int) string {
	ip, bits := "ip", 32
	if s.Target.Dst.Is6() {
		ip, bits = "ip -6", 128
	}
	via := ""
	if s.Before.Gateway.IsValid() {
		via = " via " + s.Before.Gateway.String()
	}
	return fmt.Sprintf("%s route replace %s/%d%s dev %s src %s mtu %d", ip, s.Target.Dst, bits, via, s.Before.Device, s.Target.Src, mtu)
}
