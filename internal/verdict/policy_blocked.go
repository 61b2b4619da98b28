// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

	"xfrmscope/internal/ledger"
)

// PolicyBlocked is received packets that a policy, or the default one, forbids.
const PolicyBlocked ID = "policy-blocked"

func policyBlocked(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.PolBlock, ledger.NoPols) {
		if g.cause == ledger.NoPols && (g.first() == nil || g.decrypted()) {
			continue
		}
		// Plaintext that is forbidden is what such policies are for; what came through a tunnel was
		// meant to arrive.
		f := g.finding(r, PolicyBlocked, Info)
		by := namedPolicy(g)
		if g.cause == ledger.NoPols {
			by = fmt.Sprintf("no policy is for them, and the default for %s is to block", g.dir)
		} else {
			by += " blocks them"
		}
		switch {
		case g.first() == nil:
			f.Severity = Warning
			f.Summary = fmt.Sprintf("%s were refused by a policy that blocks; which one is not known.", packets(g.packets))
		case g.decrypted():
			f.Severity = g.severityOfDecrypted()
			f.Summary = fmt.Sprintf("%s decrypted %s %s, and they were refused: %s.", g.by(), packets(g.packets), g.what(), by)
		default:
			f.Summary = fmt.Sprintf("%s %s, not decrypted by any SA, were refused: %s.", packets(g.packets), g.what(), by)
		}
		f.Remedy = blockRemedies(g)
		out = append(out, f)
	}
	return out
}

func blockRemedies(g *refused) []Remedy {
	if g.first() == nil {
		return []Remedy{{For: forIproute2, Text: "Look for policies with the action block.", Commands: []string{"ip xfrm policy list action block"}}}
	}
	own := Remedy{For: forIproute2, Text: "If this traffic is meant to pass, remove the policy or put one with a lower priority number before it; else nothing is wrong.",
		Commands: []string{listPolicies(g.dir)}}
	if g.policy != nil {
		own.Commands = append(own.Commands, fmt.Sprintf("ip xfrm policy delete index %d dir %s", g.policy.Index, g.policy.Dir))
	} else {
		own.Text = "If this traffic is meant to pass, add a policy for it or change the default; else nothing is wrong."
		own.Commands = append(own.Commands, fmt.Sprintf("ip xfrm policy setdefault %s accept", g.dir))
	}
	return []Remedy{own,
		{For: forStrongSwan, Text: "Children of mode drop install such policies.", Commands: []string{"swanctl --list-pols", "connections.<conn>.children.<child>.mode = drop"}},
		{For: forLibreswan, Text: "So do connections of type drop or reject, and those that failed to come up.", Commands: []string{"failureshunt=drop", "negotiationshunt=hold"}},
	}
}

// hostPrefix is the prefix of one address.
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
