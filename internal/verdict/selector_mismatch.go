// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// SelectorMismatch is packets that came through an SA whose own selector does not cover them.
const SelectorMismatch ID = "selector-mismatch"

func selectorMismatch(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.StateMismatch) {
		f := g.finding(r, SelectorMismatch, g.severityOfDecrypted())
		f.Remedy = []Remedy{
			{For: forIproute2, Text: "The SA was added with a selector (sel). Add it without one, or with one that covers the traffic; the policies decide what may pass.",
				Commands: []string{"ip -d xfrm state list nokeys | grep -A3 'sel src'"}},
			{For: forStrongSwan, Text: "It sets selectors on SAs in transport and BEET mode only: there the traffic selectors of both ends must agree.",
				Commands: []string{"connections.<conn>.children.<child>.local_ts / remote_ts", "swanctl --list-sas"}},
			{For: forLibreswan, Text: "In transport mode compare the subnets and ports of both ends.", Commands: []string{"leftsubnet= / rightsubnet= / leftprotoport= / rightprotoport="}},
			{For: forPeer, Text: "The far side sends traffic through this SA that was not agreed for it: compare its access list or traffic selectors with this side's."},
		}
		switch {
		case g.first() == nil:
			f.Summary = fmt.Sprintf("%s did not fit the selector of the SA that decrypted them; which flows is not known.", packets(g.packets))
		case len(g.first().Differs) > 0:
			f.Summary = fmt.Sprintf("%s decrypted %s %s, and they were refused: the SA is for %s only.", g.by(), packets(g.packets), g.what(), g.first().Differs[0].Wanted)
		case !g.decrypted():
			f.Summary = fmt.Sprintf("%s %s did not fit the selector of the SA that decrypted them.", packets(g.packets), g.what())
		default:
			f.Summary = fmt.Sprintf("%s decrypted %s %s, and they were refused, because they do not fit its selector.", g.by(), packets(g.packets), g.what())
			f.Confidence = sure(f.Confidence, true)
		}
		out = append(out, f)
	}
	return out
}
