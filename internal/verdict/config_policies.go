// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"

	"xfrmscope/internal/ledger"
)

// Kinds of findings about policies that stand in each other's way.
const (
	ConfigShadowedPolicy       ID = "config-shadowed-policy"
	ConfigRedundantPolicy      ID = "config-redundant-policy"
	ConfigMissingForwardPolicy ID = "config-missing-forward-policy"
)

func configShadowedPolicy(r *ledger.Report) []Finding  { return neverAsked(r, false) }
func configRedundantPolicy(r *ledger.Report) []Finding { return neverAsked(r, true) }

// hiddenMax bounds the comparison of each policy with each other.
const hiddenMax = 2000

// neverAsked finds policies before which another one takes all their packets: with the same effect, or
// with another one. A policy that was asked since it was added is not hidden.
func neverAsked(r *ledger.Report, same bool) []Finding {
	if len(r.Policies) > hiddenMax {
		return nil
	}
	var out []Finding
	for i := range r.Policies {
		p := r.Policies[i].Policy()
		if !p.Used.IsZero() {
			continue
		}
		q := before(r, p)
		if q == nil || sameEffect(p, q) != same {
			continue
		}
		f := Finding{
			ID: ConfigShadowedPolicy, Severity: Warning, Confidence: sure(weighed),
			Summary: fmt.Sprintf("%s is never asked: %s comes before it, takes all its packets, and does something else with them (%s instead of %s).",
				upper(policyText(p)), policyText(q), effect(q), effect(p)),
			Evidence: []Evidence{
				{"policies.index", int64(p.Index), "index", "SPD", policyText(p) + ": " + effect(p)},
				{"policies.index", int64(q.Index), "index", "SPD", policyText(q) + ": " + effect(q)},
			},
			Remedy: []Remedy{
				{For: forIproute2, Text: "Give the narrower policy the lower priority number, or remove it.",
					Commands: []string{fmt.Sprintf("ip xfrm policy delete index %d dir %s", p.Index, p.Dir), listPolicies(p.Dir)}},
				{For: forStrongSwan, Text: "It orders policies by how narrow their selectors are, unless priorities are configured.",
					Commands: []string{"connections.<conn>.children.<child>.priority = 0   # 0: computed", "swanctl --list-pols"}},
				{For: forLibreswan, Text: "Look for two connections of which one covers the other.", Commands: []string{"ipsec status | grep -E 'prio|erouted'"}},
			},
		}
		if same {
			f.ID, f.Severity, f.Confidence = ConfigRedundantPolicy, Info, sure(configured)
			f.Summary = fmt.Sprintf("%s does nothing: %s comes before it, takes all its packets, and says the same.", upper(policyText(p)), policyText(q))
		}
		out = append(out, f)
	}
	return out
}

// before finds the policy that takes every packet of p before it. Of equal priorities the order depends
// on the kernel's way of keeping them, and nothing is said.
func before(r *ledger.Report, p *ledger.Policy) *ledger.Policy {
	if p.Dir != "in" && p.Dir != "fwd" && p.Dir != "out" {
		return nil // a socket's own
	}
	for i := range r.Policies {
		q := r.Policies[i].Policy()
		if q.Index != p.Index && q.Dir == p.Dir && q.Sub == p.Sub && q.IfID == p.IfID && q.MarkValue == p.MarkValue && q.MarkMask == p.MarkMask &&
			q.Priority < p.Priority && q.Selector.Covers(p.Selector) {
			return q
		}
	}
	return nil
}

func sameEffect(p, q *ledger.Policy) bool {
	return p.Action == q.Action && slices.Equal(p.Templates, q.Templates)
}

func effect(p *ledger.Policy) string {
	t := p.Required()
	switch {
	case p.Action != "allow":
		return p.Action
	case t == nil:
		return "pass unprotected"
	}
	return "protect by an SA to " + templateText(p)
}

// configMissingForwardPolicy: a gateway that routes, and lets a whole network's traffic out of a
// tunnel to itself only. A selector of a single address may be its own.
func configMissingForwardPolicy(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.Policies {
		p := r.Policies[i].Policy()
		t := p.Required()
		if p.Dir != "in" || p.Sub || p.Action != "allow" || t == nil || t.Mode != "tunnel" || !p.Selector.Dst.IsValid() || p.Selector.Dst.IsSingleIP() {
			continue
		}
		if !routes(r, p.Selector.Dst.Addr().Is4()) || hasForward(r, p) || refusedForIt(r, p) {
			continue
		}
		tmpl := fmt.Sprintf("src %s dst %s proto %s reqid %d mode %s", t.Src, t.Dst, t.Proto, t.ReqID, t.Mode)
		out = append(out, Finding{
			ID: ConfigMissingForwardPolicy, Severity: Info, Confidence: sure(configured), Subject: Subject{ReqID: t.ReqID, IfID: p.IfID, Direction: ledger.In},
			Summary: fmt.Sprintf("%s lets a whole network in from a tunnel and this host routes, but no fwd policy covers it: what is decrypted for hosts behind this one is dropped.",
				upper(policyText(p))),
			Evidence: []Evidence{{"policies.index", int64(p.Index), "index", "SPD", policyText(p)}},
			Remedy: []Remedy{
				{For: forIproute2, Text: "Add the fwd policy.", Commands: []string{policyCommand("add", "fwd", p.Selector, p, tmpl)}},
				{For: forStrongSwan, Text: "It installs both unless policies = no.", Commands: []string{"connections.<conn>.children.<child>.policies = yes"}},
				{For: forLibreswan, Text: "It installs both; load the connection anew.", Commands: []string{"ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
			},
		})
	}
	return out
}

// refusedForIt says whether packets were already refused for want of the fwd policy: policy-missing says so.
func refusedForIt(r *ledger.Report, p *ledger.Policy) bool {
	for i := range r.Refusals {
		f := &r.Refusals[i]
		if f.Cause == ledger.NoPols && f.Dir == "fwd" && policyLike(r, f) == p {
			return true
		}
	}
	return false
}

// routes says whether the host forwards packets of a family.
func routes(r *ledger.Report, ipv4 bool) bool {
	if r.Host == nil {
		return false
	}
	if ipv4 {
		return r.Host.Sysctls["net/ipv4/ip_forward"] == "1"
	}
	return r.Host.Sysctls["net/ipv6/conf/all/forwarding"] == "1"
}

// hasForward says whether any fwd policy touches the selector: where one does, somebody has thought
// of it.
func hasForward(r *ledger.Report, p *ledger.Policy) bool {
	for i := range r.Policies {
		q := r.Policies[i].Policy()
		if q.Dir != "fwd" || q.Sub {
			continue
		}
		any := !q.Selector.Dst.IsValid() || !q.Selector.Src.IsValid()
		if any || q.Selector.Dst.Overlaps(p.Selector.Dst) && q.Selector.Src.Overlaps(p.Selector.Src) {
			return true
		}
	}
	return false
}
