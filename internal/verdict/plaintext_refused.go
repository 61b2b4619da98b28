// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// PlaintextRefused is packets that no SA decrypted, where a policy demands one.
const PlaintextRefused ID = "plaintext-where-protection-required"

func plaintextRefused(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.TmplMismatch) {
		if g.decrypted() {
			continue
		}
		f := g.finding(r, PlaintextRefused, Warning)
		switch {
		case g.first() == nil:
			f.Confidence = sure(inferred, blurred(r))
			f.Summary = fmt.Sprintf("%s did not meet the template of their policy; whether they came in plaintext or through the wrong SA is not known.", packets(g.packets))
		case control(g.first()):
			f.Severity = Critical
			f.Summary = fmt.Sprintf("%s of IPsec itself %s were refused: %s demands protection for the packets that set it up or carry it.",
				packets(g.packets), g.what(), namedPolicy(g))
		default:
			f.Summary = fmt.Sprintf("%s %s came in plaintext and were refused: %s demands that an SA has decrypted them.",
				packets(g.packets), g.what(), namedPolicy(g))
		}
		if g.policy == nil && g.first() != nil {
			f.Confidence = sure(f.Confidence, true)
		}
		f.Remedy = plaintextRemedies(g)
		out = append(out, f)
	}
	return out
}

// control says whether a flow is IPsec's own: ESP, AH, or IKE and encapsulated ESP on their ports.
func control(f *ledger.RefusedFlow) bool {
	natt := func(port uint16) bool { return port == 500 || port == 4500 }
	return f.Proto == 50 || f.Proto == 51 || f.Proto == 17 && (natt(f.SrcPort) || natt(f.DstPort))
}

func namedPolicy(g *refused) string {
	if g.policy == nil {
		return "a policy that is not in the SPD any more"
	}
	return policyText(g.policy)
}

func plaintextRemedies(g *refused) []Remedy {
	out := []Remedy{{For: forPeer, Text: "Whoever sent them did not send them through the tunnel: on the far side look for NAT that rewrites them before they " +
		"meet the policy (except the tunnel's traffic from it), for a policy that does not cover this flow, and for a route around the gateway.",
		Commands: []string{"nft insert rule ip nat postrouting ip daddr <this side's network> accept   # on a Linux peer, before masquerade"}},
		{For: forHost, Text: "Find out who sends them: the same addresses may be spoofed."}}
	if f := g.first(); f != nil {
		out[1].Commands = []string{fmt.Sprintf("tcpdump -eni any src %s and dst %s", f.Src, f.Dst)}
		s := ledger.Selector{Src: hostPrefix(f.Src), Dst: hostPrefix(f.Dst), Proto: f.Proto}
		out = append(out, Remedy{For: forIproute2, Text: "If the flow is meant to pass unprotected, a policy without template, asked before the other one, lets it.",
			Commands: []string{policyCommand("add", f.Dir, s, nil, "") + " priority 0 action allow"}})
	}
	return append(out,
		Remedy{For: forStrongSwan, Text: "A pass policy for what is to stay outside the tunnel.",
			Commands: []string{"connections.<conn>.children.<child>.mode = pass", "connections.<conn>.children.<child>.start_action = trap"}},
		Remedy{For: forLibreswan, Text: "The same as a connection of type passthrough.", Commands: []string{"type=passthrough", "authby=never", "auto=route"}},
	)
}
