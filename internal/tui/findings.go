// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
	"xfrmscope/internal/verdict"
)

// subjectText says what a finding is about.
func subjectText(s *verdict.Subject) string {
	var parts []string
	if s.SPI != nil {
		parts = append(parts, s.SPI.String(), string(s.Direction))
	}
	switch {
	case s.Src != nil && s.Direction == ledger.In:
		parts = append(parts, "from "+s.Src.String())
	case s.Dst != nil:
		parts = append(parts, "to "+s.Dst.String())
	}
	if s.Connection != "" {
		parts = append(parts, report.Clean(s.Connection))
	}
	if len(parts) == 0 && s.ReqID != 0 {
		parts = append(parts, fmt.Sprintf("reqid %d", s.ReqID))
	}
	if len(parts) == 0 && s.Ifindex != 0 {
		parts = append(parts, fmt.Sprintf("interface %d", s.Ifindex))
	}
	return strings.Join(parts, " ")
}

// concerns says whether a finding is about an SA.
func concerns(f *verdict.Finding, sa *ledger.SA) bool {
	s := &f.Subject
	return s.SPI != nil && *s.SPI == sa.SPI && s.Dst != nil && *s.Dst == sa.Dst && (s.Direction == "" || s.Direction == sa.Direction)
}

// findingLine is a finding in one line.
func findingLine(f *verdict.Finding, width int, selected bool) string {
	head := fmt.Sprintf("%-8s %3.0f%% ", strings.ToUpper(string(f.Severity)), 100*f.Confidence)
	rest := fmt.Sprintf("%s  %s", f.ID, report.Clean(f.Summary))
	if selected {
		return styleSelected.Render(fit(head+rest, width))
	}
	return severityStyle(f.Severity).Render(head) + fit(rest, max(0, width-len(head)))
}

// findingsTitle says how many there are, and of which time.
func (m *Model) findingsTitle() string {
	n := len(m.shown.Findings)
	critical, warning, info := countFindings(m.shown.Findings)
	text := plural(n, "finding")
	var kinds []string
	for _, k := range []struct {
		n    int
		name string
	}{{critical, "critical"}, {warning, "warning"}, {info, "info"}} {
		if k.n > 0 && k.n < n {
			kinds = append(kinds, fmt.Sprintf("%d %s", k.n, k.name))
		}
	}
	if len(kinds) > 0 {
		text += " (" + strings.Join(kinds, ", ") + ")"
	}
	return text + " over " + m.shown.Scope
}

// pane shows the gravest findings below the table.
func (m *Model) pane(height int) []string {
	if height == 0 {
		return nil
	}
	if m.shown == nil {
		return make([]string, height)
	}
	lines := []string{m.ruled(m.findingsTitle(), "f")}
	all := m.shown.Findings
	if len(all) == 0 {
		lines = append(lines, styleGood.Render("nothing found"))
	}
	for i := range all {
		if len(lines) == height-1 && i < len(all)-1 {
			lines = append(lines, styleDim.Render(fmt.Sprintf("%s%d more", strings.Repeat(" ", 14), len(all)-i)))
			break
		}
		lines = append(lines, findingLine(&all[i], m.width, false))
	}
	return lines[:min(len(lines), height)]
}

// findingList is the screen of all findings.
func (m *Model) findingList(height int) []string {
	if m.shown == nil {
		return nil
	}
	lines := []string{m.ruled(m.findingsTitle(), "")}
	all := m.shown.Findings
	if len(all) == 0 {
		lines = append(lines, "", styleGood.Render("  nothing found"))
	}
	visible := max(1, height-1)
	for i := max(0, m.pick-visible+1); i < len(all) && len(lines) < height; i++ {
		lines = append(lines, findingLine(&all[i], m.width, i == m.pick))
	}
	return lines
}

// repick finds the finding under the cursor again, whose place may have changed.
func (m *Model) repick() {
	all := m.shown.Findings
	if i := slices.IndexFunc(all, func(f verdict.Finding) bool { return keyOf(&f) == m.picked }); i >= 0 {
		m.pick = i
	}
	m.pickAt(m.pick)
}

func (m *Model) pickAt(i int) {
	m.pick, m.picked = 0, findingKey{}
	if all := m.shown.Findings; len(all) > 0 {
		m.pick = max(0, min(i, len(all)-1))
		m.picked = keyOf(&all[m.pick])
	}
}

// pressFindings acts on a key in the list; false: it means nothing special here.
func (m *Model) pressFindings(k tea.KeyPressMsg) bool {
	if m.shown == nil || len(m.shown.Findings) == 0 {
		return false
	}
	page := max(1, m.bodyHeight()-2)
	switch {
	case key.Matches(k, keys.Up):
		m.pickAt(m.pick - 1)
	case key.Matches(k, keys.Down):
		m.pickAt(m.pick + 1)
	case key.Matches(k, keys.PageUp):
		m.pickAt(m.pick - page)
	case key.Matches(k, keys.PageDown):
		m.pickAt(m.pick + page)
	case key.Matches(k, keys.Home):
		m.pickAt(0)
	case key.Matches(k, keys.End):
		m.pickAt(len(m.shown.Findings) - 1)
	case key.Matches(k, keys.Enter):
		m.finding = m.picked
		m.push(screenFinding)
	default:
		return false
	}
	return true
}

// findingLines is one finding in full.
func (m *Model) findingLines() []string {
	if m.shown == nil {
		return nil
	}
	for i := range m.shown.Findings {
		f := &m.shown.Findings[i]
		if keyOf(f) != m.finding {
			continue
		}
		head := fmt.Sprintf("  %s, %.0f %% sure, over %s", strings.ToUpper(string(f.Severity)), 100*f.Confidence, m.shown.Scope)
		return append([]string{severityStyle(f.Severity).Render(head), ""}, report.FindingLines(f, m.width)...)
	}
	return []string{"", "  This finding does not hold any more: it is not among those over " + m.shown.Scope + "."}
}
