// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// Request is what a user asks for.
type Request struct {
	Peer   netip.Addr // outer address of a gateway, or an address behind it
	Inside netip.Addr // to probe through the SA; not valid: found, if there is only one it can be
	Source netip.Addr // to send from; not valid: the one that fits
	UDP    uint16
}

// World is what a plan is made of.
type World struct {
	SAs      []ledger.SADEntry
	Policies []ledger.Policy
	Unread   error // why there are neither
	Local    []netip.Addr
	Route    func(dst, src netip.Addr) (Route, error)
}

// Tunnel is the SA that a peer is reached through.
type Tunnel struct {
	Gateway  netip.Addr
	Local    netip.Addr
	Policy   *ledger.Policy   // not nil where an address inside is known
	SA       *ledger.SADEntry // nil: none exists now
	Overhead *ledger.Overhead // nil: not known
	Why      string           // why it is not
}

// Plan says what to send and what not.
type Plan struct {
	Tunnel     *Tunnel // nil: no SA and no policy leads there
	Outside    *Target
	NotOutside string
	Inside     *Target
	NotInside  string
}

// Make finds out which tunnel the peer belongs to and what can be measured.
func Make(r Request, w World) (Plan, error) {
	p := planner{Request: r, World: w}
	if r.Inside.IsValid() && r.Inside.Is4() != r.Peer.Is4() && !p.gateway(r.Peer) {
		return Plan{}, fmt.Errorf("plan probe: %s and %s are of two families, and no SA leads to %s", r.Peer, r.Inside, r.Peer)
	}
	tunnel, inner, err := p.find()
	if err != nil {
		return Plan{}, fmt.Errorf("plan probe: %w", err)
	}
	out := Plan{Tunnel: tunnel}
	if err := p.planInside(&out, inner); err != nil {
		return Plan{}, fmt.Errorf("plan probe: %w", err)
	}
	if err := p.planOutside(&out); err != nil {
		return Plan{}, fmt.Errorf("plan probe: %w", err)
	}
	return out, nil
}

type planner struct {
	Request
	World
}

// gateway says whether an SA or a policy has its end at that address.
func (p *planner) gateway(a netip.Addr) bool {
	return p.sa(a, nil) != nil || slices.ContainsFunc(p.Policies, func(q ledger.Policy) bool {
		t := q.Required()
		return q.Dir == "out" && t != nil && t.Dst == a
	})
}

// sa finds the newest outbound SA to a gateway that a policy's template takes, nil: any.
func (p *planner) sa(gateway netip.Addr, q *ledger.Policy) *ledger.SADEntry {
	var best *ledger.SADEntry
	for i := range p.SAs {
		e := &p.SAs[i]
		if e.Key.Direction == ledger.In || e.Key.Proto != ledger.ESP || e.Key.Dst != gateway {
			continue
		}
		if q != nil && len(q.Required().Differences(e, q)) > 0 {
			continue
		}
		if best == nil || e.Added.After(best.Added) {
			best = e
		}
	}
	return best
}

// taken finds the policy that takes a probe, and of this host's addresses the one to send it from.
func (p *planner) taken(dst netip.Addr) (*ledger.Policy, netip.Addr) {
	candidates := []netip.Addr{p.Source}
	var route Route
	if !p.Source.IsValid() {
		found, err := p.Route(dst, netip.Addr{})
		if err != nil {
			return nil, netip.Addr{}
		}
		route = found
		candidates = append([]netip.Addr{route.Src}, p.Local...)
	} else if found, err := p.Route(dst, p.Source); err == nil {
		route = found
	}
	for _, src := range candidates {
		if !src.IsValid() || src.Is4() != dst.Is4() {
			continue
		}
		if q := p.policy(dst, src, route); q != nil && q.Required() != nil {
			return q, src
		}
	}
	return nil, netip.Addr{}
}

// policy is the one that the kernel asks about a probe: of those that match the one of the lowest
// priority (xfrm_policy_lookup_bytype).
func (p *planner) policy(dst, src netip.Addr, route Route) *ledger.Policy {
	packet := ledger.Refusal{Src: src, Dst: dst, Proto: protoICMP, SrcPort: echoRequest4, Ifindex: route.Index}
	switch {
	case p.UDP != 0:
		packet.Proto, packet.SrcPort, packet.DstPort = protoUDP, 0, p.UDP
	case dst.Is6():
		packet.Proto, packet.SrcPort = protoICMPv6, echoRequest6
	}
	var best *ledger.Policy
	for i := range p.Policies {
		q := &p.Policies[i]
		if q.Dir == "out" && !q.Sub && q.IfID == route.IfID && q.MarkValue == 0 && q.Selector.Takes(packet) && (best == nil || q.Before(best)) {
			best = q
		}
	}
	return best
}

// find tells an address behind a gateway from the gateway's own. inner is what there is to probe inside.
func (p *planner) find() (t *Tunnel, inner netip.Addr, err error) {
	inner = p.Request.Inside
	if !inner.IsValid() && !p.gateway(p.Peer) {
		inner = p.Peer
	}
	if !inner.IsValid() {
		inner = p.only(p.Peer)
	}
	if !inner.IsValid() {
		// A policy in transport mode may take what goes to the gateway itself.
		inner = p.Peer
	}
	q, src := p.taken(inner)
	if q == nil {
		if p.Request.Inside.IsValid() {
			return nil, inner, p.notCovered(inner)
		}
		if p.gateway(p.Peer) {
			t := &Tunnel{Gateway: p.Peer, SA: p.sa(p.Peer, nil)}
			if t.SA != nil {
				t.Local = t.SA.Src
			}
			t.weigh()
			return t, netip.Addr{}, nil
		}
		return nil, netip.Addr{}, nil
	}
	tmpl := q.Required()
	t = &Tunnel{Policy: q, Gateway: tmpl.Dst, Local: tmpl.Src}
	if tmpl.Mode == "transport" || !tmpl.Dst.IsValid() || tmpl.Dst.IsUnspecified() {
		t.Gateway, t.Local = inner, src
	}
	if p.gateway(p.Peer) && t.Gateway != p.Peer {
		return nil, inner, fmt.Errorf("%s is not behind %s: the policy %q leads to %s", inner, p.Peer, q.Selector, t.Gateway)
	}
	t.SA = p.sa(t.Gateway, q)
	if t.SA != nil && (!t.Local.IsValid() || t.Local.IsUnspecified()) {
		t.Local = t.SA.Src
	}
	t.weigh()
	return t, inner, nil
}

// weigh computes what the SA adds.
func (t *Tunnel) weigh() {
	if t.SA == nil {
		t.Why = fmt.Sprintf("there is no SA to %s now", t.Gateway)
		return
	}
	o, err := ledger.OverheadOf(t.SA)
	if err != nil {
		t.Why = err.Error()
		return
	}
	t.Overhead = &o
}

// only is the one address behind a gateway, where its policies are for no more.
func (p *planner) only(gateway netip.Addr) (found netip.Addr) {
	for i := range p.Policies {
		q := &p.Policies[i]
		t := q.Required()
		if q.Dir != "out" || t == nil || t.Dst != gateway || t.Mode == "transport" || !q.Selector.Dst.IsSingleIP() {
			continue
		}
		a := q.Selector.Dst.Addr()
		if _, src := p.taken(a); src.IsValid() && (!found.IsValid() || a.Less(found)) {
			found = a
		}
	}
	return found
}

func (p *planner) notCovered(inner netip.Addr) error {
	if p.Unread != nil {
		return fmt.Errorf("which SA leads to %s is not known: %w", inner, p.Unread)
	}
	if p.Source.IsValid() {
		return fmt.Errorf("no policy takes packets from %s to %s through an SA: give another --source or --inside (see `ip xfrm policy`)", p.Source, inner)
	}
	return fmt.Errorf("no policy takes packets from an address of this host to %s through an SA: give a --source that one is for, or run it on a host behind the gateway (see `ip xfrm policy`)", inner)
}

func (p *planner) planInside(out *Plan, inner netip.Addr) error {
	switch {
	case out.Tunnel == nil && p.Unread != nil:
		out.NotInside = fmt.Sprintf("the SAs and policies cannot be read: %v", p.Unread)
	case out.Tunnel == nil:
		out.NotInside = fmt.Sprintf("no SA and no policy of this host leads to %s", p.Peer)
	case out.Tunnel.Policy == nil:
		out.NotInside = "give --inside ADDR, an address behind the gateway that answers" + p.behind(out.Tunnel.Gateway)
	case out.Tunnel.SA == nil:
		out.NotInside = out.Tunnel.Why + ": bring the tunnel up first"
	default:
		_, src := p.taken(inner)
		out.Inside = &Target{Src: src, Dst: inner, UDP: p.UDP, Inside: true}
	}
	return nil
}

// behind lists the networks that policies lead to through a gateway.
func (p *planner) behind(gateway netip.Addr) string {
	var nets []string
	for i := range p.Policies {
		q := &p.Policies[i]
		if t := q.Required(); q.Dir == "out" && t != nil && t.Dst == gateway && q.Selector.Dst.IsValid() {
			nets = append(nets, fmt.Sprintf("%s from %s", q.Selector.Dst, q.Selector.Src))
		}
	}
	slices.Sort(nets)
	nets = slices.Compact(nets)
	if len(nets) == 0 {
		return ""
	}
	more := ""
	if n := len(nets) - 5; n > 0 {
		nets, more = nets[:5], fmt.Sprintf(" and %d more", n)
	}
	return " (its policies are for " + strings.Join(nets, ", ") + more + ")"
}

func (p *planner) planOutside(out *Plan) error {
	dst, src := p.Peer, p.Source
	if t := out.Tunnel; t != nil {
		dst, src = t.Gateway, t.Local
	}
	route, err := p.Route(dst, src)
	if err != nil {
		return err
	}
	if !src.IsValid() {
		src = route.Src
	}
	if !src.IsValid() {
		return errors.New("the route to " + dst.String() + " names no address to send from: give --source")
	}
	q := p.policy(dst, src, route)
	switch {
	case q != nil && q.Action == "block":
		out.NotOutside = fmt.Sprintf("the policy %q blocks it", q.Selector)
	case q != nil && q.Required() != nil:
		out.NotOutside = fmt.Sprintf("the policy %q takes packets to %s through the SA, so they do not show what passes beside it", q.Selector, dst)
	default:
		out.Outside = &Target{Src: src, Dst: dst, UDP: p.UDP}
	}
	return nil
}
