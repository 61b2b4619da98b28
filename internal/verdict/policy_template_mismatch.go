// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// PolicyTemplateMismatch is packets that an SA decrypted which is not the one that their policy demands.
const PolicyTemplateMismatch ID = "policy-template-mismatch"

func policyTemplateMismatch(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.TmplMismatch) {
		if !g.decrypted() {
			continue
		}
		f := g.finding(r, PolicyTemplateMismatch, g.severityOfDecrypted())
		demand := "the policy that refused them is not in the SPD any more."
		switch {
		case g.policy == nil:
			f.Confidence = sure(f.Confidence, true)
		case g.policy.Required() == nil:
			demand = policyText(g.policy) + " demands no SA, and what came through a tunnel does not pass it."
		case len(g.first().Differs) == 0:
			demand = policyText(g.policy) + " refused them; by what is in the databases now the SA would pass."
			f.Confidence = sure(f.Confidence, true)
		default:
			demand = policyText(g.policy) + " demands " + differences(g.first().Differs) + "."
		}
		f.Summary = fmt.Sprintf("%s decrypted %s %s, and they were refused: %s", g.by(), packets(g.packets), g.what(), demand)
		f.Remedy = templateRemedies(g)
		out = append(out, f)
	}
	return out
}

// differences reads "reqid 77, the SA has 1".
func differences(all []ledger.Difference) string {
	var parts []string
	for _, d := range all {
		parts = append(parts, fmt.Sprintf("%s %s where the SA has %s", d.Field, d.Wanted, d.Found))
	}
	return strings.Join(parts, ", ")
}

func templateRemedies(g *refused) []Remedy {
	change := Remedy{For: forIproute2, Text: "Make policy and SA agree; if the SA is right, change the policy's template.",
		Commands: []string{listPolicies(g.dir)}}
	if g.policy != nil && g.sa != nil && g.sa.Mode != "" && g.policy.Required() != nil {
		change.Commands = append(change.Commands, policyCommand("update", g.policy.Dir, g.policy.Selector, g.policy, templateOf(g.sa)))
	}
	return []Remedy{change,
		{For: forStrongSwan, Text: "Two child SAs with overlapping traffic selectors, or one that was left over after a restart, give this. " +
			"Look for duplicates, and give each child selectors of its own; reqid is fixed only where it is configured.",
			Commands: []string{"swanctl --list-sas", "swanctl --list-pols", "connections.<conn>.children.<child>.remote_ts / local_ts / reqid"}},
		{For: forLibreswan, Text: "Look for two connections that cover the same subnets.", Commands: []string{"ipsec status | grep -E 'erouted|prospective'", "ipsec look"}},
		{For: forPeer, Text: "If the far side sends this traffic through the wrong one of several SAs, order its traffic selectors from narrow to wide."},
	}
}
