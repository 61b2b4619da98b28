// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
)

// shownSA finds the SA that the screen is about in the shown frame, by its row.
func (m *Model) shownSA() *row {
	for i := range m.base {
		if m.base[i].key == m.sa {
			return &m.base[i]
		}
	}
	return nil
}

func (m *Model) saTitle() string {
	k := m.sa.sa
	text := fmt.Sprintf("%s %s", k.SPI, k.Direction)
	if r := m.shownSA(); r != nil {
		text += fmt.Sprintf("  %s > %s", r.sa.Src, r.sa.Dst)
		if r.name != "" {
			text += "  " + r.name
		}
	}
	return text
}

// saLines is all that is known of one SA.
func (m *Model) saLines() []string {
	r := m.shownSA()
	if r == nil {
		return []string{"", "  This SA is not in the ledger any more."}
	}
	sa, rep := r.sa, &m.shown.Report
	var out []string
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		if len(out) > 0 {
			out = append(out, "")
		}
		out = append(append(out, m.ruled(title, "")), lines...)
	}
	section("Findings over "+m.shown.Scope, m.saFindings(sa))
	section("Ledger since "+rep.Source.Start.Local().Format("15:04:05")+", in packets",
		report.Document{Report: *rep, Findings: m.shown.Findings}.SALines(sa, m.width)[1:])
	section(m.past(r))
	section("Replay window", m.windowLines(sa))
	section("Reordering, RFC 4737 extent in packets", m.reorderLines(sa))
	section("Numbers and lifetimes", m.lifeLines(sa))
	section("Path MTU", pathLines(rep, sa, m.width))
	section("Rekeys", rekeyLines(rep, sa, m.width))
	section("TCP inside", flowLines(rep, sa, m.width))
	section(m.eventsTitle(sa), m.eventLines(sa))
	return out
}

func (m *Model) saFindings(sa *ledger.SA) (lines []string) {
	for i := range m.shown.Findings {
		if f := &m.shown.Findings[i]; concerns(f, sa) {
			lines = append(lines, severityStyle(f.Severity).Render(fmt.Sprintf("  %-8s %3.0f%%", strings.ToUpper(string(f.Severity)), 100*f.Confidence))+
				"  "+styleHead.Render(string(f.ID)))
			lines = append(lines, wrapped("      ", "      ", report.Clean(f.Summary), m.width)...)
		}
	}
	return lines
}

// past draws rate and loss of the recent past, and says how far they went.
func (m *Model) past(r *row) (title string, lines []string) {
	width := depth
	for width > m.width-9 && width > 1 {
		width /= 2
	}
	most, worst := 0.0, 0.0
	for f := max(1, m.frozen.n-depth); f < m.frozen.n; f++ {
		c, ok := r.at(f)
		if since := m.frozen.times[f%depth].Sub(m.frozen.times[(f-1)%depth]).Seconds(); ok && since > 0 {
			most = max(most, float64(c.packets)/since)
		}
		if c.lost > 0 {
			worst = max(worst, 100*float64(c.lost)/float64(max(c.offered, c.lost)))
		}
	}
	return fmt.Sprintf("Last %s: at most %s pkt/s, at worst %s lost", lasting(m.frozen.span()), short(most, 6), percent(worst, true)), []string{
		"  rate  " + styleNote.Render(m.glyphs.rateLine(r, m.frozen.n, width)),
		"  loss  " + lossStyle(worst, true).Render(m.glyphs.lossLine(r, m.frozen.n, width)),
	}
}

// lifeLines tells where the SA's numbers stand and when it ends.
func (m *Model) lifeLines(sa *ledger.SA) []string {
	var lines []string
	if w := sa.Sequence(); w != nil && w.Packets > 0 {
		lines = append(lines, wrapped("  ", "    ", fmt.Sprintf("on the wire: first %s, highest %s; restarts %s, jumps %s, gaps %s",
			group(w.FirstSeq), group(w.HighestSeq), report.Group(w.Restarts), report.Group(w.Jumps), report.Group(w.GapEvents)), m.width)...)
	}
	switch {
	case sa.Direction == ledger.Out && sa.OSeq > 0:
		lines = append(lines, "  last number sent, by the SA database: "+group(sa.OSeq))
	case sa.Direction != ledger.Out && sa.Seq > 0:
		lines = append(lines, "  highest number accepted, by the SA database: "+group(sa.Seq))
	}
	if l := sa.Lifetimes; l != nil {
		var parts []string
		for _, p := range []struct {
			n    uint64
			text string
		}{
			{uint64(max(l.SoftAddS, 0)), "soft %s"}, {uint64(max(l.HardAddS, 0)), "hard %s"},
		} {
			if p.n > 0 {
				parts = append(parts, fmt.Sprintf(p.text, lasting(time.Duration(p.n)*time.Second)))
			}
		}
		for _, p := range []struct {
			n    uint64
			text string
		}{
			{l.SoftPackets, "soft %s packets"}, {l.HardPackets, "hard %s packets"},
			{l.SoftBytes, "soft %s bytes"}, {l.HardBytes, "hard %s bytes"},
		} {
			if p.n > 0 {
				parts = append(parts, fmt.Sprintf(p.text, group(p.n)))
			}
		}
		if len(parts) > 0 {
			lines = append(lines, wrapped("  ", "    ", "lifetimes: "+strings.Join(parts, ", "), m.width)...)
		}
	}
	if sa.Added != nil {
		lines = append(lines, fmt.Sprintf("  added %s, %s ago", sa.Added.Local().Format("2006-01-02 15:04:05"), lasting(m.shown.At.Sub(*sa.Added))))
	}
	return lines
}

func group(n uint64) string { return report.Group(int64(min(n, 1<<62))) }

// pathLines tells what an outbound SA lets through.
func pathLines(r *ledger.Report, sa *ledger.SA, width int) (lines []string) {
	if r.PMTU == nil {
		return nil
	}
	for i := range r.PMTU.Paths {
		p := &r.PMTU.Paths[i]
		if sa.Direction != ledger.Out || p.SPI != sa.SPI || p.Dst != sa.Dst {
			continue
		}
		text := fmt.Sprintf("path MTU %s of a link's %s", known0(p.Known()), known0(p.LinkMTU))
		if p.ToldMTU > 0 {
			text += fmt.Sprintf(", a router asked for %d", p.ToldMTU)
		}
		if p.Locked {
			text += ", locked"
		}
		if o := p.Overhead; o != nil && p.Known() > 0 {
			inner := o.Inner(p.Known())
			text += fmt.Sprintf("; the SA adds at most %d: inner MTU %d, TCP MSS %d (IPv6 %d)", o.Most(), inner, ledger.MSS(inner, 4), ledger.MSS(inner, 6))
		}
		lines = append(lines, wrapped("  ", "    ", text, width)...)
	}
	for i := range r.PMTU.Events {
		e := &r.PMTU.Events[i]
		about := e.SPI != nil && *e.SPI == sa.SPI && e.Dst == sa.Dst || e.SA != nil && e.SA.SPI == sa.SPI && e.SA.Dst == sa.Dst
		if about {
			lines = append(lines, wrapped("  - ", "    ", fmt.Sprintf("%s: %s packets, %s > %s, MTU %d, size up to %d, last at %s",
				e.Kind, report.Group(e.Packets), addrOr(e.Src), addrOr(e.Dst), e.MTU, e.SizeMax, e.Last.Local().Format("15:04:05")), width)...)
		}
	}
	return lines
}

func known0(n int) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func addrOr(a netip.Addr) string {
	if !a.IsValid() {
		return "?"
	}
	return a.String()
}

// stamp is one line of the time line.
type stamp struct {
	at   time.Time
	text string
}

// rekeyLines tells what renewed the SA, or what it renewed, in the order in which it happened.
func rekeyLines(r *ledger.Report, sa *ledger.SA, width int) (lines []string) {
	var all []stamp
	add := func(at *time.Time, format string, args ...any) {
		if at != nil {
			all = append(all, stamp{*at, fmt.Sprintf(format, args...)})
		}
	}
	add(sa.Announced, "added")
	add(sa.SoftExpired, "reached its soft limit: the kernel asked for a successor")
	renewed := false
	for i := range r.Rekeys {
		k := &r.Rekeys[i]
		if k.Dst != sa.Dst || k.Direction != sa.Direction || k.Old != sa.SPI && k.New != sa.SPI {
			continue
		}
		if k.New == sa.SPI {
			add(&k.Added, "took over from %s", k.Old)
			add(k.NewFirst, "its first packet%s", silence(k))
		} else {
			renewed = true
			add(&k.Added, "%s came to take over", k.New)
			add(k.OldLast, "its last packet (to 0.25 s)")
			add(k.Ended, "%s%s%s", k.Why, overlap(k), refused(k.OldRefused))
		}
		if k.GapS > 0 {
			add(&k.Added, "packets were refused for at most %.3f s", k.GapS)
		}
	}
	for _, e := range sa.Endings {
		if !renewed {
			add(&e.At, "%s", e.Why)
		}
	}
	slices.SortStableFunc(all, func(a, b stamp) int { return a.at.Compare(b.at) })
	for _, s := range all {
		lines = append(lines, wrapped("  "+s.at.Local().Format("15:04:05.000")+"  ", strings.Repeat(" ", 16), s.text, width)...)
	}
	return lines
}

func silence(k *ledger.Rekey) string {
	if k.SilenceS == nil || *k.SilenceS <= 0 {
		return ""
	}
	return fmt.Sprintf(", %.2f s after the old one's last (to 0.25 s)", *k.SilenceS)
}

func overlap(k *ledger.Rekey) string {
	switch {
	case k.OverlapS > 0:
		return fmt.Sprintf(", %.3f s after its successor came", k.OverlapS)
	case k.OverlapS < 0:
		return fmt.Sprintf(", %.3f s before its successor came", -k.OverlapS)
	}
	return ""
}

func refused(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %s packets came for it without an SA", report.Group(n))
}

// flowLines lists the connections that the SA carries, their windows and when these were zero.
func flowLines(r *ledger.Report, sa *ledger.SA, width int) (lines []string) {
	if r.Flows == nil {
		return nil
	}
	key := saKey(sa)
	for i := range r.Flows.List {
		f := &r.Flows.List[i]
		for k := range f.Ends {
			from, to := &f.Ends[k], &f.Ends[1-k]
			if from.SA == nil || from.SA.Key() != key {
				continue
			}
			head := fmt.Sprintf("%s > %s: %s segments, %s bytes", endText(from), endText(to), report.Group(from.Segments), report.Group(from.PayloadBytes))
			if from.Retransmissions > 0 {
				head += ", repeated " + report.Group(from.Retransmissions)
			}
			if from.RTT != nil {
				head += fmt.Sprintf(", round trip %s to %s", report.Micros(from.RTT.MinUS), report.Micros(from.RTT.MaxUS))
			}
			if f.Closed {
				head += ", closed"
			}
			lines = append(lines, wrapped("  ", "      ", head, width)...)
			lines = append(lines, zeroLines(to, width)...)
		}
	}
	return lines
}

func endText(e *ledger.FlowEnd) string { return netip.AddrPortFrom(e.Addr, e.Port).String() }

// zeroLines tells of the window that the receiving end advertised.
func zeroLines(reader *ledger.FlowEnd, width int) (lines []string) {
	if w := reader.Window; w != nil {
		note := ""
		if w.Scale == nil {
			note = ", times a scale that is not known"
		}
		lines = append(lines, fmt.Sprintf("      receiver's window %s bytes, at most %s%s", report.Group(w.Last), report.Group(w.Max), note))
	}
	z := &reader.Zero
	if z.Episodes == 0 && z.TotalUS == 0 {
		return lines
	}
	text := fmt.Sprintf("ZERO WINDOW %s times, %s in all, %s at the longest", report.Group(z.Episodes), report.Micros(z.TotalUS), report.Micros(z.LongestUS))
	if z.OpenUS > 0 {
		text += fmt.Sprintf("; closed now, for %s", report.Micros(z.OpenUS))
	}
	for i, l := range wrapped("      ", "      ", text, width) {
		if i == 0 {
			l = styleBad.Render(l)
		}
		lines = append(lines, l)
	}
	for _, e := range z.Newest {
		lines = append(lines, fmt.Sprintf("        %s  %s", e.Start.Local().Format("15:04:05.000"), report.Micros(e.LastedUS)))
	}
	return lines
}

func (m *Model) eventsTitle(sa *ledger.SA) string {
	r := m.events.by[eventKey(sa)]
	if r == nil {
		return "Events"
	}
	if r.total > len(r.events) {
		return fmt.Sprintf("Events, the newest %d of %s", len(r.events), report.Group(int64(r.total)))
	}
	return "Events"
}

// eventLines lists what was sampled, the newest first.
func (m *Model) eventLines(sa *ledger.SA) []string {
	r := m.events.by[eventKey(sa)]
	if r == nil {
		return []string{styleDim.Render("  none")}
	}
	var lines []string
	for _, e := range slices.Backward(r.events) {
		if e.At.After(m.shown.At) && m.paused {
			continue
		}
		lines = append(lines, wrapped("  "+e.At.Local().Format("15:04:05.000")+"  ", strings.Repeat(" ", 16),
			fmt.Sprintf("%-9s %s", e.Kind, report.Clean(e.Text)), m.width)...)
	}
	return lines
}
