// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// OutboundPolicyBlock is packets that a policy, or the default one, forbids to send.
const OutboundPolicyBlock ID = "outbound-policy-block"

func outboundPolicyBlock(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.OutPolBlock, ledger.OutDefaultBlock) {
		f := g.finding(r, OutboundPolicyBlock, Warning)
		switch {
		case g.first() == nil:
			f.Summary = fmt.Sprintf("%s to be sent were refused by a policy that blocks; which flows is not known.", packets(g.packets))
		case g.cause == ledger.OutDefaultBlock:
			f.Summary = fmt.Sprintf("%s to be forwarded %s were refused: no policy is for them, and the default for out is to block. No xfrm counter shows it.",
				packets(g.packets), g.what())
			f.Confidence = sure(witnessed, blurred(r), r.PolicyDefault == nil || r.PolicyDefault.Out != "block")
		default:
			f.Summary = fmt.Sprintf("%s to be sent %s were refused: %s blocks them.%s", packets(g.packets), g.what(), namedPolicy(g), insteadOf(r, g))
			f.Confidence = sure(f.Confidence, g.policy == nil)
		}
		f.Remedy = outBlockRemedies(g)
		out = append(out, f)
	}
	return append(out, localSendersBlocked(r)...)
}

// insteadOf names a policy with an SA that covers the flow and is asked after the one that blocks, or
// covers its addresses under a mark that the packets did not have.
func insteadOf(r *ledger.Report, g *refused) string {
	flow := g.first()
	for i := range r.Policies {
		p := r.Policies[i].Policy()
		if p.Dir != "out" || p.Action != "allow" || p.Required() == nil || !p.Selector.Takes(ledger.Refusal{
			Src: flow.Src, Dst: flow.Dst, Proto: flow.Proto, SrcPort: flow.SrcPort, DstPort: flow.DstPort}) {
			continue
		}
		why := "is asked later"
		switch {
		case flow.Mark&p.MarkMask != p.MarkValue:
			why = fmt.Sprintf("wants mark 0x%x/0x%x, and the packets have 0x%x", p.MarkValue, p.MarkMask, flow.Mark)
		case p.IfID != 0:
			why = fmt.Sprintf("is for interface id %d only", p.IfID)
		}
		return fmt.Sprintf(" %s would protect them, but %s.", policyText(p), why)
	}
	return ""
}

// localSendersBlocked is what the kernel counted for this host's own senders: their look-up is refused
// before there is a packet, and they see EPERM.
func localSendersBlocked(r *ledger.Report) []Finding {
	n := r.Kernel.Residue["XfrmOutPolBlock"]
	if n == 0 {
		return nil
	}
	return []Finding{{
		ID: OutboundPolicyBlock, Severity: Warning, Confidence: sure(counted, blurred(r)), Subject: Subject{Direction: ledger.Out},
		Summary:  fmt.Sprintf("Senders on this host were refused %d times by a policy that blocks; they see \"operation not permitted\".", n),
		Evidence: []Evidence{{"kernel.residue.XfrmOutPolBlock", n, "look-ups", "/proc/net/xfrm_stat", "refused without a packet: senders on this host"}},
		Remedy:   outBlockRemedies(&refused{dir: "out"}),
	}}
}

func outBlockRemedies(g *refused) []Remedy {
	own := Remedy{For: forIproute2, Text: "If this traffic is meant to leave, remove the policy or put one with a lower priority number before it.",
		Commands: []string{"ip xfrm policy list dir out"}}
	switch {
	case g.policy != nil:
		own.Commands = append(own.Commands, fmt.Sprintf("ip xfrm policy delete index %d dir out", g.policy.Index))
	case g.cause == ledger.OutDefaultBlock:
		own.Text = "If this traffic is meant to leave, add a policy for it or change the default."
		own.Commands = append(own.Commands, "ip xfrm policy getdefault", "ip xfrm policy setdefault out accept")
	}
	return []Remedy{own,
		{For: forStrongSwan, Text: "While a tunnel is down, a child of mode drop or a trap without an SA holds its traffic back.", Commands: []string{"swanctl --list-pols", "swanctl --list-sas"}},
		{For: forLibreswan, Text: "Look for connections whose shunt drops.", Commands: []string{"ipsec shuntstatus", "failureshunt=passthrough   # lets traffic out unprotected"}},
	}
}
