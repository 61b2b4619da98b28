// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// ledger writes the SAs: those that suffer in full, the healthy ones a line each.
func (p *printer) ledger(d *Document) {
	p.line("Ledger, in packets")
	p.line("")
	if len(d.SAs) == 0 {
		p.line("  no SAs seen")
		p.line("")
	}
	var healthy, shown []*ledger.SA
	for i := range d.SAs {
		sa := &d.SAs[i]
		if !suffers(sa) {
			healthy = append(healthy, sa)
			continue
		}
		shown = append(shown, sa)
		p.sa(d, sa)
	}
	if len(healthy) > 0 {
		if len(shown) > 0 {
			p.line("  Healthy")
		}
		for i, sa := range healthy {
			if i == healthyMax {
				p.line("  … and %d more healthy SAs (--json lists them all)", len(healthy)-i)
				break
			}
			p.wrap("  ", "      ", saName(sa)+": "+healthyLine(sa))
		}
		p.line("")
	}
	p.strangers(d.UnknownSPIs)
	p.saNotes(d.SAs)
}

// suffers says whether any bin of the SA holds what should not be there.
func suffers(sa *ledger.SA) bool {
	for _, n := range sa.Xfrm {
		if n != 0 {
			return true
		}
	}
	if b := sa.Ledger.In; b != nil {
		return anyOf(b.LostOnPath, b.Duplicates, b.Stale, b.LostInHost, b.XfrmDropped, b.PolicyDropped,
			b.InnerDropped, b.Unattributed)
	}
	if b := sa.Ledger.Out; b != nil {
		return anyOf(b.XfrmOutDropped, b.EncryptFailed, b.LostInHostEgress, b.Unattributed)
	}
	return false
}

func anyOf(bins ...*int64) bool {
	for _, b := range bins {
		if b != nil && *b != 0 {
			return true
		}
	}
	return false
}

// saName names an SA in one line.
func saName(sa *ledger.SA) string {
	src := "?"
	if sa.Src.IsValid() {
		src = sa.Src.String()
	}
	s := fmt.Sprintf("%s %-3s %s -> %s", sa.SPI, sa.Direction, src, sa.Dst)
	if sa.Proto != ledger.ESP {
		s += " " + string(sa.Proto)
	}
	return s
}

func healthyLine(sa *ledger.SA) string {
	if b := sa.Ledger.Out; b != nil {
		return fmt.Sprintf("encapsulated %s, on wire %s", bin(b.Encapsulated), bin(b.OnWire))
	}
	b := sa.Ledger.In
	if sa.Direction == ledger.Unknown {
		return fmt.Sprintf("sent %s, arrived %s", bin(b.Sent), bin(b.Arrivals))
	}
	return fmt.Sprintf("sent %s, arrived %s, decapsulated %s", bin(b.Sent), bin(b.Arrivals), bin(b.Decapsulated))
}

// bin writes one bin; what nobody observes is a question mark, never a zero.
func bin(n *int64) string {
	if n == nil {
		return "?"
	}
	return group(*n)
}

// sa writes one SA as a sum that can be checked by eye.
func (p *printer) sa(d *Document, sa *ledger.SA) {
	p.line("  SA %s", saName(sa))
	p.wrap("     ", "     ", strings.Join(traits(sa), ", "))
	p.wireLines(sa)
	p.steps(steps(d, sa))
	p.line("")
}

// traits lists what is known of an SA.
func traits(sa *ledger.SA) []string {
	t := []string{string(sa.Proto)}
	if sa.Mode != "" {
		t[0] += " " + sa.Mode
	}
	if sa.Encap == ledger.EncapUDP {
		t = append(t, fmt.Sprintf("in UDP %d -> %d", sa.SrcPort, sa.DstPort))
	}
	if sa.Connection != "" {
		t = append(t, "connection "+strings.TrimSuffix(sa.Connection+", child "+sa.Child, ", child "))
	}
	if sa.ReqID != 0 {
		t = append(t, fmt.Sprintf("reqid %d", sa.ReqID))
	}
	if sa.IfID != 0 {
		t = append(t, fmt.Sprintf("if_id %d", sa.IfID))
	}
	if sa.Mark != "" {
		t = append(t, "mark "+sa.Mark)
	}
	if sa.SharedBy > 1 {
		t = append(t, fmt.Sprintf("shared by %d SAs", sa.SharedBy))
	}
	if sa.ReplayWindow != nil && sa.Direction != ledger.Out {
		t = append(t, fmt.Sprintf("replay window %d", *sa.ReplayWindow))
	}
	if sa.ESN != nil && *sa.ESN {
		t = append(t, "ESN")
	}
	t = append(t, sa.Algorithms...)
	if sa.Offload != "" {
		t = append(t, sa.Offload+" offload")
	}
	switch sa.State {
	case ledger.Absent:
		t = append(t, "not in the SA database")
	case ledger.Alive, ledger.Gone, ledger.NotCovered:
	}
	for _, e := range sa.Endings {
		t = append(t, fmt.Sprintf("%s at %s", e.Why, e.At.Format("15:04:05.000 MST")))
	}
	return t
}

// step is one term of an SA's sum.
type step struct {
	sign, name string
	n          *int64
	remark     string
	quiet      bool // says something only where it is not zero
}

// shown says whether the term is worth a line.
func (s *step) shown() bool { return !s.quiet || s.n != nil && *s.n != 0 }

// text is the remark, or that nobody observes the bin.
func (s *step) text() string {
	if s.n == nil && s.remark == "" {
		return "not observed"
	}
	return s.remark
}

// steps are the terms of an SA's sum, in order.
func steps(d *Document, sa *ledger.SA) []step {
	if b := sa.Ledger.In; b != nil {
		return inboundSteps(d, sa, b)
	}
	if b := sa.Ledger.Out; b != nil {
		return outboundSteps(d, sa, b)
	}
	return nil
}

func (p *printer) steps(all []step) {
	for i := range all {
		if s := &all[i]; s.shown() {
			p.step(s.sign, s.name, s.n, s.remark)
		}
	}
}

// step writes one term of a sum.
func (p *printer) step(sign, name string, n *int64, remark string) {
	s := step{sign, name, n, remark, false}
	p.wrap(fmt.Sprintf("     %1s %-28s %14s  ", sign, name, bin(n)), strings.Repeat(" ", 53), s.text())
}

// quiet writes a term only where it says something.
func (p *printer) quiet(sign, name string, n *int64, remark string) {
	if n != nil && *n != 0 {
		p.step(sign, name, n, remark)
	}
}

func inboundSteps(d *Document, sa *ledger.SA, b *ledger.Inbound) []step {
	all := []step{
		{"", "sent by the peer", b.Sent, "", false},
		{"-", "lost on the path", b.LostOnPath, lostRemark(sa), false},
		{"-", "pending", b.Pending, "missing, but may still come", true},
		{"=", "unique", b.Unique, lateRemark(sa), false},
		{"+", "duplicates", b.Duplicates, "", false},
		{"+", "stale", b.Stale, "too far from the others to tell new from repeated", true},
		{"+", "unsorted", b.Unsorted, "counted, but not yet sorted, when it was read", true},
		{"=", "arrived", b.Arrivals, "", false},
	}
	if sa.Direction == ledger.Unknown {
		return all // what came of them nobody here can know: the notes say why
	}
	return append(all, []step{
		{"-", "lost in host", b.LostInHost, dropRemark(d, sa, ledger.BeforeXfrm), false},
		{"-", "dropped by xfrm", b.XfrmDropped, causes(sa, func(c ledger.Cause) bool { return !c.Outbound() && !c.AfterDecap() }), false},
		{"-", "in flight", b.InFlight, "under way between the readings", true},
		{"-", "UNATTRIBUTED", b.Unattributed, hiddenRemark(b.Unattributed), false},
		{"=", "decapsulated", b.Decapsulated, "", false},
		{"-", "dropped by policy", b.PolicyDropped, causes(sa, ledger.Cause.AfterDecap), false},
		{"-", "dropped on the inner path", b.InnerDropped, dropRemark(d, sa, ledger.AfterDecap), false},
		{"=", "delivered", b.Delivered, "", false},
	}...)
}

func outboundSteps(d *Document, sa *ledger.SA, b *ledger.Outbound) []step {
	return []step{
		{"", "offered", b.Offered, "", false},
		{"-", "dropped by xfrm", b.XfrmOutDropped, causes(sa, func(c ledger.Cause) bool { return c.Outbound() && !c.AfterNumbering() }), false},
		{"=", "encapsulated", b.Encapsulated, "sequence numbers assigned", false},
		{"-", "failed to encrypt", b.EncryptFailed, "", true},
		{"-", "lost in host", b.LostInHostEgress, dropRemark(d, sa, ledger.AtEgress), false},
		{"-", "in flight", b.InFlight, "under way between the readings", true},
		{"-", "UNATTRIBUTED", b.Unattributed, hiddenRemark(b.Unattributed), false},
		{"=", "on the wire", b.OnWire, "", false},
	}
}

// hiddenRemark says what it means that a ledger does not add up.
func hiddenRemark(n *int64) string {
	switch {
	case n == nil || *n == 0:
		return ""
	case *n > 0:
		return "went in and is in no bin: a drop that no hook saw"
	}
	return "more came out than was seen to go in"
}

func lateRemark(sa *ledger.SA) string {
	w := sa.Sequence()
	if w == nil || w.Late == 0 {
		return ""
	}
	return fmt.Sprintf("%s late, by up to %s numbers", group(w.Late), group(w.DisplacementMax))
}

// causes lists the causes of one bin.
func causes(sa *ledger.SA, belongs func(ledger.Cause) bool) string {
	m := map[ledger.Cause]int64{}
	for c, n := range sa.Xfrm {
		if n != 0 && belongs(c) {
			m[c] = n
		}
	}
	return strings.Join(pairsOf(m), ", ")
}

func (p *printer) strangers(list []ledger.Stranger) {
	if len(list) == 0 {
		return
	}
	p.line("  SPIs without an SA")
	for i, u := range list {
		if i == healthyMax {
			p.line("  … and %d more (--json lists them all)", len(list)-i)
			break
		}
		from := ""
		if u.Src.IsValid() {
			from = " from " + u.Src.String()
		}
		p.wrap("  ", "      ", fmt.Sprintf("%s %s%s to %s: %s packets dropped", u.SPI, u.Proto, from, u.Dst, group(u.Packets)))
	}
	p.line("")
}

// saNotes writes each note once, with the number of SAs that it holds for.
func (p *printer) saNotes(sas []ledger.SA) {
	var order []string
	of := map[string][]*ledger.SA{}
	for i := range sas {
		for _, n := range sas[i].Notes {
			if of[n] == nil {
				order = append(order, n)
			}
			of[n] = append(of[n], &sas[i])
		}
	}
	if len(order) == 0 {
		return
	}
	p.line("  Notes")
	for _, n := range order {
		whose := fmt.Sprintf("%d SAs", len(of[n]))
		if len(of[n]) == 1 {
			whose = of[n][0].SPI.String()
		}
		p.wrap("  - ", "    ", fmt.Sprintf("%s (%s)", n, whose))
	}
	p.line("")
}
