// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// A long list helps nobody at a terminal; JSON holds all of it.
const (
	fullPerKind = 3  // findings of one kind shown in full
	healthyMax  = 40 // lines for healthy SAs
)

// WriteText writes the report for a terminal: findings first, then the ledger, then what vouches for
// it and what was not seen.
func (d Document) WriteText(w io.Writer) error {
	p := &printer{w: w}
	p.header(&d)
	p.findings(d.Findings)
	p.open(&d)
	p.ledger(&d)
	p.flows(d.Flows)
	p.drops(&d)
	p.refusals(d.Refusals)
	p.pmtu(d.PMTU)
	p.nat(d.NAT)
	p.ike(&d)
	p.host(d.Host)
	p.latency(d.SAs)
	if d.Source.Kind != ledger.KindCapture {
		p.kernel(&d.Kernel)
	}
	p.hooks(d.Hooks)
	p.self(&d.Self)
	return p.err
}

func (p *printer) header(d *Document) {
	s := &d.Source
	parts := []string{s.Kind}
	if s.Name != "" {
		parts = append(parts, s.Name)
	}
	if s.Kernel != "" {
		parts = append(parts, "kernel "+s.Kernel)
	}
	if s.Netns != "" {
		parts = append(parts, "network namespace "+s.Netns)
	}
	p.wrap("", "  ", "xfrmscope: "+strings.Join(parts, ", "))
	if !s.Start.IsZero() {
		p.line("  %.1f s from %s", s.DurationS, s.Start.Format("2006-01-02 15:04:05 MST"))
	}
	for _, n := range d.Notes {
		p.wrap("  note: ", "        ", n)
	}
	p.line("")
}

func (p *printer) findings(all []verdict.Finding) {
	switch len(all) {
	case 0:
		p.line("No findings.")
		p.line("")
		return
	case 1:
		p.line("1 finding")
	default:
		p.line("%d findings", len(all))
	}
	p.line("")
	shown := map[verdict.ID]int{}
	for i := range all {
		f := &all[i]
		head := fmt.Sprintf("%2d. %-8s  %s", i+1, strings.ToUpper(string(f.Severity)), f.ID)
		p.line("%s", head+strings.Repeat(" ", max(1, 76-len(head)))+fmt.Sprintf("confidence %3.0f %%", 100*f.Confidence))
		p.wrap("    ", "    ", f.Summary)
		shown[f.ID]++
		if shown[f.ID] > fullPerKind {
			p.line("    (evidence and remedy as for the others of its kind: see --json)")
			p.line("")
			continue
		}
		p.evidence(f)
		p.remedy(f)
		p.line("")
	}
}

// open names what the findings do not cover, so that their silence is not taken for health.
func (p *printer) open(d *Document) {
	said := false
	if len(d.Unjudged) > 0 {
		p.wrap("Dropped for causes that no verdict covers yet: ", "  ", strings.Join(pairsOf(d.Unjudged), ", "))
		said = true
	}
	sum, sas := int64(0), 0
	for i := range d.SAs {
		if u, _ := d.SAs[i].Ledger.Unattributed(); u != 0 {
			sum, sas = sum+max(u, -u), sas+1
		}
	}
	if sas > 0 {
		p.wrap("Unattributed: ", "  ", fmt.Sprintf("%s packets, SAs concerned: %d; see the ledger", group(sum), sas))
		said = true
	}
	if k := d.Kernel.Reconciled; k != nil && !*k {
		p.line("The ledger and the kernel's counters disagree; see the reconciliation")
		said = true
	}
	if said {
		p.line("")
	}
}

func (p *printer) evidence(f *verdict.Finding) {
	p.line("    Evidence")
	for _, e := range f.Evidence {
		p.wrap("      ", strings.Repeat(" ", 8), fmt.Sprintf("%s = %s %s (%s)", e.Counter, group(e.Value), unit(e), e.Source))
		if e.Note != "" {
			p.wrap(strings.Repeat(" ", 8), strings.Repeat(" ", 8), e.Note)
		}
	}
	if len(f.Consequences) > 0 {
		ids := make([]string, len(f.Consequences))
		for i, c := range f.Consequences {
			ids[i] = string(c)
		}
		p.wrap("    Explains also: ", "      ", strings.Join(ids, ", "))
	}
	for _, e := range f.Explains {
		p.wrap("      "+string(e.ID)+": ", "        ", e.Summary)
	}
}

// unit writes a unit in the number that its value asks for.
func unit(e verdict.Evidence) string {
	if e.Value == 1 {
		return strings.TrimSuffix(e.Unit, "s")
	}
	return e.Unit
}

func (p *printer) remedy(f *verdict.Finding) {
	if len(f.Remedy) == 0 {
		return
	}
	p.line("    What to do")
	for _, r := range f.Remedy {
		p.wrap("      "+r.For+": ", "        ", r.Text)
		for _, c := range r.Commands {
			// A command is never broken: it is there to be copied.
			p.line("          %s", clean(c))
		}
	}
}

func (p *printer) kernel(k *ledger.Kernel) {
	p.line("Reconciliation with the kernel's own counters")
	switch {
	case k.Reconciled == nil:
		p.line("  not done: needs the stack hooks and /proc/net/xfrm_stat or the SA database")
	case *k.Reconciled:
		p.line("  the counters agree to the packet")
	default:
		p.line("  disagrees:")
		for _, s := range k.Disagreements {
			p.wrap("  - ", "    ", s)
		}
	}
	p.checks(k.Checks)
	p.pairs("  /proc/net/xfrm_stat: ", k.XfrmStat)
	if len(k.Residue) > 0 {
		p.pairs("  of these without a packet: ", k.Residue)
	}
	if len(k.WithoutSA) > 0 {
		p.pairs("  drops that belong to no SA: ", k.WithoutSA)
	}
	p.line("")
}

// checksMax bounds the comparisons that are shown one by one; those that fail are always shown.
const checksMax = 12

// checks shows what was held against what. Of a long list the agreeing rest is only counted.
func (p *printer) checks(all []ledger.Check) {
	shown, rest := 0, 0
	for _, c := range all {
		if c.Agrees && shown >= checksMax {
			rest++
			continue
		}
		shown++
		whose, mark := "", "="
		if c.SA != "" {
			whose = " of " + c.SA
		}
		switch {
		case !c.Agrees:
			mark = "but"
		case c.Kernel != c.Ledger:
			mark = fmt.Sprintf("within %s of", group(c.Tolerance))
		}
		p.wrap("  ", "    ", fmt.Sprintf("%s%s (%s): kernel %s %s ledger %s", c.Counter, whose, c.Source, group(c.Kernel), mark, group(c.Ledger)))
	}
	if rest > 0 {
		p.line("  … and %d more that agree", rest)
	}
}

func (p *printer) hooks(hooks []ledger.Hook) {
	if len(hooks) == 0 {
		return
	}
	missing := 0
	for _, h := range hooks {
		if !h.Attached {
			missing++
		}
	}
	p.line("Hooks: %d attached, %d missing", len(hooks)-missing, missing)
	p.missing(hooks)
	p.line("")
}

// missing lists the hooks that are not attached, and what that costs.
func (p *printer) missing(hooks []ledger.Hook) {
	for _, group := range byReason(hooks) {
		if len(group) == 1 {
			p.wrap("  - ", "    ", group[0].Name+because(group[0].Why)+costing(group[0].Costs))
			continue
		}
		// One cause often takes several hooks; it is told once.
		p.wrap("  - ", "    ", fmt.Sprintf("%d hooks%s", len(group), because(group[0].Why)))
		for _, h := range group {
			p.wrap("    - ", "      ", h.Name+costing(h.Costs))
		}
	}
}

// byReason groups the hooks that are missing by why they are, in the order of their first.
func byReason(hooks []ledger.Hook) (groups [][]ledger.Hook) {
	at := map[string]int{}
	for _, h := range hooks {
		if h.Attached {
			continue
		}
		i, known := at[h.Why]
		if !known {
			i = len(groups)
			at[h.Why] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], h)
	}
	return groups
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func costing(costs string) string {
	if costs == "" {
		return ""
	}
	return "; costs: " + costs
}

func (p *printer) self(s *ledger.SelfReport) {
	if len(s.Lost) == 0 && s.EventsLost == 0 && s.EventsSuppressed == 0 && s.RecursionMisses == 0 && s.Evicted == 0 {
		p.line("xfrmscope itself lost nothing.")
		return
	}
	p.line("What xfrmscope itself lost or withheld")
	p.line("  events lost %s, withheld by the rate limit %s; program runs skipped %s; idle SAs folded %s",
		group(s.EventsLost), group(s.EventsSuppressed), group(s.RecursionMisses), group(s.Evicted))
	if len(s.Lost) > 0 {
		p.pairs("  by cause: ", s.Lost)
	}
	p.line("  Totals never depend on events; the figures of a full table are blurred by what it lost.")
}

// pairs writes counters in order of their names.
func pairsOf[K ~string](m map[K]int64) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %s", k, group(m[k])))
	}
	return out
}
