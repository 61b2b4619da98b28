// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
)

// Hooks that figures come from, by the beginning of the hook's name.
var (
	wireHooks  = []string{"wire ingress", "wire egress"}
	stackHooks = []string{"kfree_skb"}
	dropHooks  = []string{"kfree_skb outside xfrm"}
	sadHooks   = []string{"SA database"}
	everyHook  = slices.Concat(wireHooks, stackHooks, dropHooks, sadHooks)
)

// sourceOf tells which hooks a figure needs. A name that is not here needs any that is missing.
var sourceOf = map[string][]string{
	"wire": wireHooks, "sent": wireHooks, "unique": wireHooks, "missing": wireHooks, "lost_on_path": wireHooks,
	"pending": wireHooks, "arrivals": wireHooks, "duplicates": wireHooks, "stale": wireHooks, "unsorted": wireHooks,
	"on_wire": wireHooks, "packets": wireHooks, "ike": wireHooks, "nat": wireHooks,
	"lost_in_host": dropHooks, "inner_dropped": dropHooks, "lost_in_host_egress": dropHooks, "drops": dropHooks,
	"xfrm": stackHooks, "xfrm_dropped": stackHooks, "policy_dropped": stackHooks, "xfrm_out_dropped": stackHooks,
	"encrypt_failed": stackHooks, "without_sa": stackHooks, "unknown_spis": stackHooks, "refusals": stackHooks,
	"decapsulated": sadHooks, "own": sadHooks, "encapsulated": sadHooks, "offered": slices.Concat(sadHooks, stackHooks),
	"replay_window": sadHooks, "esn": sadHooks,
	"delivered": everyHook, "in_flight": everyHook, "unattributed": everyHook, nameLoss: everyHook,
	"flows":    {"gro_cells_receive", "xfrm_output", "xfrm4_transport_finish", "xfrm6_transport_finish"},
	"pmtu":     {"__icmp_send", "icmp6_send", "xfrm4_local_error", "xfrm6_local_error", "xfrm4_esp_err", "xfrm6_esp_err"},
	"policies": {"policies over netlink", "SA database"},
}

func init() {
	for _, c := range causes() {
		sourceOf[c] = stackHooks
	}
}

var word = regexp.MustCompile(`[A-Za-z_][A-Za-z_0-9]*`)

// lacks says why a figure was not observed: the hooks that it needs and that are missing, else what the
// ledger notes of the SA.
func lacks(d *report.Document, sa *ledger.SA, name string) string {
	words := word.FindAllString(name, -1)
	slices.Reverse(words)
	var missing, needed []string
	known := false
	for _, w := range words {
		if needed, known = sourceOf[w]; known {
			break
		}
	}
	for _, h := range d.Hooks {
		if h.Attached || known && !slices.ContainsFunc(needed, func(prefix string) bool { return strings.HasPrefix(h.Name, prefix) }) {
			continue
		}
		text := "hook " + h.Name + " is missing"
		if h.Why != "" {
			text += " (" + h.Why + ")"
		}
		missing = append(missing, text)
	}
	if len(missing) > 0 {
		if n := len(missing) - failingMax; n > 0 {
			missing = append(missing[:failingMax], fmt.Sprintf("and %d more hooks", n))
		}
		return strings.Join(missing, ", ")
	}
	sas := d.SAs
	if sa != nil {
		sas = []ledger.SA{*sa}
	}
	for i := range sas {
		if notes := sas[i].Notes; len(notes) > 0 {
			return fmt.Sprintf("%s: %s", saName(&sas[i]), strings.Join(notes, "; "))
		}
	}
	if d.Source.Kind == ledger.KindCapture {
		return "a capture shows the wire only"
	}
	return "no source that was read has it"
}
