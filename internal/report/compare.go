// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"xfrmscope/internal/compare"
	"xfrmscope/internal/ledger"
)

// WriteComparisonJSON writes what two ends make together, indented, with keys in a fixed order.
func WriteComparisonJSON(w io.Writer, d *compare.Document) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

// WriteComparison writes it for a terminal: where packets are lost, then each SA's account, then the
// findings, then what was not seen.
func WriteComparison(w io.Writer, d *compare.Document) error {
	p := &printer{w: w}
	p.line("xfrmscope: both ends of %s", counted(len(d.SAs), "SA"))
	for i := range d.Ends {
		p.end(&d.Ends[i])
	}
	p.wrap("  clocks: ", "          ", clocks(&d.Clock))
	for _, n := range d.Notes {
		p.wrap("  note: ", "        ", n)
	}
	p.line("")
	for i := range d.Directions {
		p.direction(&d.Directions[i])
	}
	p.bothEnds(d)
	p.foundByEnd(d)
	p.unmatched(d.Unmatched)
	p.blind(d.Ends)
	return p.err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%s %ss", group(int64(n)), what)
}

func (p *printer) end(e *compare.End) {
	parts := []string{e.File}
	if e.Host != "" {
		parts = append(parts, e.Kind+" of host "+e.Host)
	} else {
		parts = append(parts, e.Kind)
	}
	if e.Kernel != "" {
		parts = append(parts, "kernel "+e.Kernel)
	}
	if e.Netns != "" {
		parts = append(parts, "network namespace "+e.Netns)
	}
	if !e.Start.IsZero() {
		parts = append(parts, fmt.Sprintf("%.1f s from %s", e.DurationS, e.Start.Format("2006-01-02 15:04:05 MST")))
	}
	p.wrap(fmt.Sprintf("  %s: ", e.Label), "     ", strings.Join(parts, ", "))
	if e.Damage != "" {
		p.wrap("     ", "     ", e.Damage)
	}
}

// clocks says in words how the clocks stand.
func clocks(c *compare.Clock) string {
	var parts []string
	switch {
	case c.OffsetS != nil:
		o := *c.OffsetS
		way := "ahead of"
		if o < 0 {
			way = "behind"
		}
		parts = append(parts, fmt.Sprintf("B's is %s %s A's, ± %s", length(math.Abs(o)), way, length(*c.UncertaintyS)))
	case c.AtMostS != nil:
		parts = append(parts, fmt.Sprintf("B's is ahead of A's by %s at most", signed(*c.AtMostS)))
	case c.AtLeastS != nil:
		parts = append(parts, fmt.Sprintf("B's is ahead of A's by %s at least", signed(*c.AtLeastS)))
	default:
		return "how they stand to each other is not known"
	}
	if c.From == compare.ClockMarks {
		parts = append(parts, fmt.Sprintf("by %s packets from A to B and %s from B to A that both ends stamped", group(int64(c.AtoB)), group(int64(c.BtoA))))
	} else {
		parts = append(parts, "by the numbers that each end had seen at its snapshots")
	}
	if c.DriftPPM != nil {
		parts = append(parts, fmt.Sprintf("drift %+.1f ± %.1f ppm", *c.DriftPPM, *c.DriftWithin))
	}
	return strings.Join(parts, "; ")
}

// length writes a duration of seconds in the unit that fits it.
func length(s float64) string {
	switch a := math.Abs(s); {
	case a == 0:
		return "0 s"
	case a < 1e-6:
		return fmt.Sprintf("%.0f ns", s*1e9)
	case a < 1e-3:
		return fmt.Sprintf("%.1f µs", s*1e6)
	case a < 1:
		return fmt.Sprintf("%.3f ms", s*1e3)
	}
	return fmt.Sprintf("%.3f s", s)
}

func signed(s float64) string {
	if s < 0 {
		return "-" + length(-s)
	}
	return length(s)
}

func (p *printer) direction(d *compare.Direction) {
	head := fmt.Sprintf("%s to %s: ", d.From, d.To)
	text := fmt.Sprintf("%s numbered by %s", counted(int(d.Numbers), "packet"), counted(d.Joined, "SA"))
	if d.Joined == 0 {
		text = "nothing could be joined"
	} else {
		where := []string{
			place(d.Lost.SenderHost, "in host "+string(d.From)), place(d.Lost.Path, "on the path"), place(d.Lost.ReceiverHost, "in host "+string(d.To)),
		}
		text += "; lost " + strings.Join(where, ", ")
		if d.Lost.Unattributed != nil && *d.Lost.Unattributed != 0 {
			text += fmt.Sprintf("; UNATTRIBUTED %s", group(*d.Lost.Unattributed))
		}
		if d.Delivered != nil {
			text += fmt.Sprintf("; delivered %s", group(*d.Delivered))
		}
		if d.Uncertainty > 0 {
			text += fmt.Sprintf("; uncertain at the edges %s", group(d.Uncertainty))
		}
	}
	if d.Joined < d.SAs {
		text += fmt.Sprintf("; not joined %s", counted(d.SAs-d.Joined, "SA"))
	}
	p.wrap(head, "        ", text)
	if d.Delay != nil {
		p.wrap("        ", "        ", delay(d.Delay))
	}
}

func place(n *int64, where string) string {
	if n == nil {
		return "? " + where
	}
	return group(*n) + " " + where
}

func delay(d *compare.Delay) string {
	if d.MinS == nil {
		return fmt.Sprintf("one-way delay not known; it varies by %s (95 %%), at most %s, over %s", length(d.VariationS), length(d.VariationMaxS),
			counted(d.Packets, "packet"))
	}
	return fmt.Sprintf("one-way delay %s at least, median %s, 95 %% within %s, at most %s, all ± %s, over %s", signed(*d.MinS), signed(*d.MedianS),
		signed(*d.P95S), signed(*d.MaxS), length(*d.UncertaintyS), counted(d.Packets, "packet"))
}

// bothEnds writes the SAs: those that suffer in full, the healthy ones a line each.
func (p *printer) bothEnds(d *compare.Document) {
	p.line("")
	p.line("Ledger of both ends, in packets")
	p.line("")
	var healthy []*compare.SA
	idle := 0
	for i := range d.SAs {
		sa := &d.SAs[i]
		switch {
		case sa.Joined && sa.Range.Numbers == 0 && !disturbed(sa):
			idle++
		case sa.Joined && !disturbed(sa):
			healthy = append(healthy, sa)
		default:
			p.joint(sa)
		}
	}
	for i, sa := range healthy {
		if i == healthyMax {
			p.line("  … and %d more healthy SAs (--json lists them all)", len(healthy)-i)
			break
		}
		p.wrap("  ", "      ", fmt.Sprintf("%s: numbers %s, arrived %s, delivered %s%s", jointName(sa), group(sa.Range.Numbers),
			bin(sa.Receiver.Arrivals), bin(sa.Receiver.Delivered), edgeRemark(sa.Range)))
	}
	if idle > 0 {
		p.line("  idle: %s", counted(idle, "SA"))
	}
	if len(healthy)+idle > 0 {
		p.line("")
	}
	p.jointNotes(d.SAs)
}

func disturbed(sa *compare.SA) bool {
	s, r := &sa.Sender, &sa.Receiver
	return anyOf(s.XfrmDropped, s.EncryptFailed, s.LostInHost, s.Unattributed, sa.Path.Lost, sa.Path.Unattributed, r.Duplicates, r.Stale,
		r.LostInHost, r.XfrmDropped, r.Unattributed, r.PolicyDropped, r.InnerDropped)
}

func jointName(sa *compare.SA) string {
	return fmt.Sprintf("%s %s to %s, %s -> %s", sa.SPI, sa.From, sa.To, sa.Src, sa.Dst)
}

func edgeRemark(r *compare.Range) string {
	if r.Uncertainty == 0 {
		return ""
	}
	return fmt.Sprintf(", ± %s at the edges", group(r.Uncertainty))
}

// joint writes one SA as a sum from the one host to the other that can be checked by eye.
func (p *printer) joint(sa *compare.SA) {
	p.line("  SA %s", jointName(sa))
	if !sa.Joined {
		p.wrap("     not joined: ", "     ", sa.Why)
		p.line("")
		return
	}
	var t []string
	if sa.ReqID != 0 {
		t = append(t, fmt.Sprintf("reqid %d", sa.ReqID))
	}
	if sa.ESN {
		t = append(t, "ESN")
	}
	t = append(t, fmt.Sprintf("numbers %s to %s", group(int64(sa.Range.First)), group(int64(sa.Range.Last)))+edgeRemark(sa.Range))
	p.wrap("     ", "     ", strings.Join(t, ", "))
	s, r := &sa.Sender, &sa.Receiver
	from, to := "host "+string(sa.From), "host "+string(sa.To)
	if s.Numbered != nil {
		p.step("", "offered to "+from, s.Offered, "")
		p.step("-", "dropped by xfrm", s.XfrmDropped, causeList(s.Causes, func(c ledger.Cause) bool { return !c.AfterNumbering() }))
		p.step("=", "numbered", s.Numbered, "")
		p.quiet("-", "failed to encrypt", s.EncryptFailed, "")
		p.step("-", "lost in "+from, s.LostInHost, jointDrops(sa, sa.From, ledger.AtEgress))
		p.quiet("-", "in flight", s.InFlight, "under way between the readings")
		p.step("-", "UNATTRIBUTED", s.Unattributed, hiddenRemark(s.Unattributed))
	}
	p.step("=", "on "+string(sa.From)+"'s wire", s.OnWire, "")
	p.step("-", "lost on the path", sa.Path.Lost, "")
	p.quiet("-", "pending", sa.Path.Pending, "missing, but may still come")
	p.quiet("-", "UNATTRIBUTED", sa.Path.Unattributed, hiddenRemark(sa.Path.Unattributed))
	p.step("=", "unique on "+string(sa.To)+"'s wire", r.Unique, "")
	p.step("+", "duplicates", r.Duplicates, "")
	p.quiet("+", "stale", r.Stale, "too far from the others to tell new from repeated")
	p.quiet("+", "unsorted", r.Unsorted, "counted, but not yet sorted, when it was read")
	p.step("=", "arrived", r.Arrivals, "")
	if r.Decapsulated != nil || r.XfrmDropped != nil {
		p.step("-", "lost in "+to, r.LostInHost, jointDrops(sa, sa.To, ledger.BeforeXfrm))
		p.step("-", "dropped by xfrm", r.XfrmDropped, causeList(r.Causes, func(c ledger.Cause) bool { return !c.AfterDecap() }))
		p.quiet("-", "in flight", r.InFlight, "under way between the readings")
		p.step("-", "UNATTRIBUTED", r.Unattributed, hiddenRemark(r.Unattributed))
		p.step("=", "decapsulated", r.Decapsulated, "")
		p.step("-", "dropped by policy", r.PolicyDropped, causeList(r.Causes, ledger.Cause.AfterDecap))
		p.step("-", "dropped on the inner path", r.InnerDropped, jointDrops(sa, sa.To, ledger.AfterDecap))
		p.step("=", "delivered", r.Delivered, "")
	}
	p.line("")
}

func causeList(m map[ledger.Cause]int64, belongs func(ledger.Cause) bool) string {
	of := map[ledger.Cause]int64{}
	for c, n := range m {
		if belongs(c) {
			of[c] = n
		}
	}
	return strings.Join(pairsOf(of), ", ")
}

// jointDrops names the places of one bin.
func jointDrops(sa *compare.SA, end compare.Label, stage ledger.DropStage) string {
	var out []string
	for _, d := range sa.Drops {
		if d.End != end || d.Stage != stage {
			continue
		}
		name := string(d.Place) + " " + d.Function
		if d.Hook != "" {
			name += " (" + d.Hook + ")"
		}
		out = append(out, fmt.Sprintf("%s %s", name, group(d.Packets)))
	}
	return strings.Join(out, ", ")
}

// jointNotes writes each note once, with the SAs that it holds for.
func (p *printer) jointNotes(sas []compare.SA) {
	var order []string
	of := map[string][]string{}
	for i := range sas {
		for _, n := range sas[i].Notes {
			if of[n] == nil {
				order = append(order, n)
			}
			of[n] = append(of[n], sas[i].SPI.String())
		}
	}
	if len(order) == 0 {
		return
	}
	p.line("  Notes")
	for _, n := range order {
		whose := counted(len(of[n]), "SA")
		if len(of[n]) == 1 {
			whose = of[n][0]
		}
		p.wrap("  - ", "    ", fmt.Sprintf("%s (%s)", n, whose))
	}
	p.line("")
}

func (p *printer) foundByEnd(d *compare.Document) {
	if len(d.Findings) == 0 {
		p.line("No findings at either end.")
		p.line("")
		return
	}
	p.line("Findings of each end over all of its file (evidence and remedies: 'xfrmscope report', or --json)")
	p.line("")
	for i := range d.Findings {
		f := &d.Findings[i]
		p.line("  %-8s  %s: %s, seen at %s", strings.ToUpper(string(f.Severity)), clean(f.Place), f.ID, f.End)
		p.wrap("    ", "    ", f.Summary)
		if f.Note != "" {
			p.wrap("    both ends: ", "    ", f.Note)
		}
	}
	p.line("")
}

func (p *printer) unmatched(list []compare.Unmatched) {
	if len(list) == 0 {
		return
	}
	p.line("SAs that only one end has")
	for i, u := range list {
		if i == healthyMax {
			p.line("  … and %d more (--json lists them all)", len(list)-i)
			break
		}
		p.line("  %s: %s %s, %s -> %s, %s on the wire", u.End, u.SPI, u.Direction, u.Src, u.Dst, counted(int(u.Packets), "packet"))
	}
	p.line("")
}

// blind says what each end could not see.
func (p *printer) blind(ends []compare.End) {
	said := map[int]bool{}
	for i := range ends {
		if len(ends[i].Blind) == 0 || said[i] {
			continue
		}
		at := []string{string(ends[i].Label)}
		for j := i + 1; j < len(ends); j++ {
			if slices.Equal(ends[i].Blind, ends[j].Blind) {
				at, said[j] = append(at, string(ends[j].Label)), true
			}
		}
		p.line("Not seen at %s", strings.Join(at, " and "))
		p.missing(ends[i].Blind)
		p.line("")
	}
}
