// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// PolicyMissing is packets that an SA decrypted and that no policy lets in.
const PolicyMissing ID = "policy-missing"

func policyMissing(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.NoPols) {
		if g.first() != nil && !g.decrypted() {
			continue // the default policy's block: policy-blocked
		}
		f := g.finding(r, PolicyMissing, g.severityOfDecrypted())
		d := g.first()
		if d == nil {
			f.Summary = fmt.Sprintf("%s were refused because no policy is for them; which ones is not known.", packets(g.packets))
			f.Remedy = []Remedy{{For: forIproute2, Text: "Look for SAs without policies of their own, above all without a fwd policy.", Commands: []string{listPolicies("")}}}
			out = append(out, f)
			continue
		}
		why := fmt.Sprintf("no %s policy is for them.", d.Dir)
		sibling := policyLike(r, d)
		switch {
		case d.Elsewhere:
			why = "the SA belongs to another network namespace, and there is no policy for them in this one. A packet that is handed over with its security " +
				"path still counts as decrypted there."
		case sibling != nil:
			why = fmt.Sprintf("no %s policy is for them, while %s is.", d.Dir, policyText(sibling))
		case g.policy != nil:
			why = "there was none when they came; " + policyText(g.policy) + " was added since."
			f.Confidence = sure(f.Confidence, true)
		}
		f.Summary = fmt.Sprintf("%s decrypted %s %s, and they were refused: %s", g.by(), packets(g.packets), g.what(), why)
		f.Remedy = missingRemedies(g, sibling)
		out = append(out, f)
	}
	return out
}

// policyLike finds the policy of the other receiving direction that would have taken the flow: who
// sets policies by hand forgets fwd.
func policyLike(r *ledger.Report, f *ledger.RefusedFlow) *ledger.Policy {
	other := map[string]string{"fwd": "in", "in": "fwd"}[f.Dir]
	for i := range r.Policies {
		p := r.Policies[i].Policy()
		if p.Dir == other && p.Selector.Takes(ledger.Refusal{
			Src: f.Src, Dst: f.Dst, Proto: f.Proto, SrcPort: f.SrcPort, DstPort: f.DstPort, Ifindex: f.Ifindex}) {
			return p
		}
	}
	return nil
}

func missingRemedies(g *refused, sibling *ledger.Policy) []Remedy {
	d := g.first()
	s := ledger.Selector{Src: hostPrefix(d.Src), Dst: hostPrefix(d.Dst)}
	if sibling != nil {
		s = sibling.Selector
	}
	tmpl := "proto esp mode tunnel"
	if g.sa != nil && g.sa.Mode != "" {
		tmpl = templateOf(g.sa)
	}
	return []Remedy{
		{For: forIproute2, Text: fmt.Sprintf("Add the %s policy; what is forwarded after decryption is checked against fwd, not in.", d.Dir),
			Commands: []string{policyCommand("add", d.Dir, s, sibling, tmpl)}},
		{For: forStrongSwan, Text: "It installs in and fwd together unless it is told not to. With policies = no something else has to install them; " +
			"after the kernel's policies were flushed, install the child anew.",
			Commands: []string{"connections.<conn>.children.<child>.policies = yes", "connections.<conn>.children.<child>.policies_fwd_out = yes   # if what is forwarded must leave again",
				"swanctl --terminate --child <child> && swanctl --initiate --child <child>"}},
		{For: forLibreswan, Text: "Load the connection anew; it installs all three directions.", Commands: []string{"ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
		{For: forPeer, Text: "If these addresses are not part of the tunnel on this side, the far side's traffic selectors are wider than what was agreed."},
	}
}
