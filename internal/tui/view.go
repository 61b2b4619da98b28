// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
	"xfrmscope/internal/verdict"
)

// headHeight is how many lines every screen begins with: what is watched, what passes, what it costs.
const headHeight = 3

// View draws the screen, never more than the terminal holds.
func (m *Model) View() tea.View {
	lines := m.head()
	switch m.screen() {
	case screenTable:
		lines = append(lines, m.tableLines(m.tableHeight())...)
		lines = append(lines, m.pane(m.paneHeight())...)
	case screenFindings:
		lines = append(lines, m.findingList(m.bodyHeight())...)
	case screenSA, screenFinding, screenCost, screenHelp:
		lines = append(lines, m.title())
		lines = append(lines, strings.Split(m.body.View(), "\n")...)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(0, min(len(lines), m.height-1))], m.foot())
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width, "")
		if m.opts.ASCII {
			lines[i] = asciiOnly(lines[i])
		}
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	v.WindowTitle = "xfrmscope watch"
	return v
}

// bodyHeight is what is left between head and foot.
func (m *Model) bodyHeight() int { return max(0, m.height-headHeight-1) }

// paneHeight is the share of the findings on the first screen: a headline and at most a quarter.
func (m *Model) paneHeight() int {
	if m.bodyHeight() < 8 {
		return 0
	}
	n := 0
	if m.shown != nil {
		n = len(m.shown.Findings)
	}
	return 1 + min(max(n, 1), max(1, m.bodyHeight()/4))
}

func (m *Model) tableHeight() int { return m.bodyHeight() - m.paneHeight() }

// fill writes what a screen scrolls through, as of now.
func (m *Model) fill() {
	m.body.SetWidth(m.width)
	m.body.SetHeight(max(0, m.bodyHeight()-1))
	switch m.screen() {
	case screenSA:
		m.body.SetContentLines(m.saLines())
	case screenFinding:
		m.body.SetContentLines(m.findingLines())
	case screenCost:
		m.body.SetContentLines(m.costLines())
	case screenHelp:
		m.body.SetContentLines(m.helpLines())
	case screenTable, screenFindings:
	}
}

// head tells on every screen what is watched, what passes and what it costs.
func (m *Model) head() []string {
	if m.shown == nil {
		return []string{styleTitle.Render("xfrmscope watch") + "  attaching…", "", ""}
	}
	r := &m.shown.Report
	tunnels := map[tunnelKey]bool{}
	for i := range r.SAs {
		tunnels[tunnelOf(&r.SAs[i])] = true
	}
	where := report.Clean(r.Source.Name)
	if r.Source.Netns != "" {
		where += " netns " + report.Clean(r.Source.Netns)
	}
	left := styleTitle.Render("xfrmscope watch") + fmt.Sprintf("  %s, %s, %s since %s  %s",
		plural(len(r.SAs), "SA"), plural(len(tunnels), "tunnel"),
		lasting(m.shown.At.Sub(r.Source.Start)), r.Source.Start.Local().Format("15:04:05"), where)
	note := "every " + m.opts.Interval.String()
	switch {
	case m.paused:
		note = stylePaused.Render(" PAUSED ")
	case m.resets:
		note = stylePaused.Render(" RESET ")
	}
	return []string{ends(left, note, m.width), m.traffic(), m.costLine()}
}

// traffic sums all SAs.
func (m *Model) traffic() string {
	var pps, bps [3]float64
	var lost, hidden int64
	for i := range m.base {
		row := &m.base[i]
		d := 2
		switch row.sa.Direction {
		case ledger.In:
			d = 0
		case ledger.Out:
			d = 1
		case ledger.Unknown:
		}
		pps[d], bps[d] = pps[d]+row.pps, bps[d]+row.bps
		lost += row.lost.v
		if row.unattributed.is == known {
			hidden += max(row.unattributed.v, -row.unattributed.v)
		}
	}
	parts := []string{
		fmt.Sprintf("in %s pkt/s %sbit/s", short(pps[0], 5), spaced(bps[0])),
		fmt.Sprintf("out %s pkt/s %sbit/s", short(pps[1], 5), spaced(bps[1])),
	}
	if pps[2] > 0 {
		parts = append(parts, fmt.Sprintf("passing %s pkt/s", short(pps[2], 5)))
	}
	parts = append(parts, "lost "+short(float64(lost), 6), "unatt "+short(float64(hidden), 5))
	return strings.Join(parts, " "+m.glyphs.dot+" ")
}

// spaced writes a number with its prefix apart, ready for a unit.
func spaced(n float64) string {
	s := short(n, 5)
	if i := len(s) - 1; i > 0 && (s[i] < '0' || s[i] > '9') {
		return s[:i] + " " + s[i:]
	}
	return s + " "
}

// title heads the screens that scroll.
func (m *Model) title() string {
	text := ""
	switch m.screen() {
	case screenSA:
		text = "SA " + m.saTitle()
	case screenFinding:
		text = "Finding " + string(m.finding.id)
	case screenCost:
		text = "What xfrmscope costs, and what it lost"
	case screenHelp:
		text = "Help"
	case screenTable, screenFindings:
	}
	where := ""
	if !m.body.AtTop() || !m.body.AtBottom() {
		where = fmt.Sprintf("%3.0f %%", 100*m.body.ScrollPercent())
	}
	return m.ruled(text, where)
}

// ruled is a headline with a rule behind it.
func (m *Model) ruled(text, rightText string) string {
	room := m.width - ansi.StringWidth(text) - ansi.StringWidth(rightText) - 2
	if rightText != "" {
		rightText = " " + rightText
		room--
	}
	if room < 1 {
		return styleHead.Render(ansi.Truncate(text, m.width, "…"))
	}
	return styleHead.Render(text) + " " + styleDim.Render(strings.Repeat(m.glyphs.rule, room)) + rightText
}

// foot names the keys that matter here, or holds the filter while it is being written.
func (m *Model) foot() string {
	if m.filtering {
		text := m.input
		if over := ansi.StringWidth(text) - max(1, m.width-12); over > 0 {
			text = ansi.TruncateLeft(text, over, "")
		}
		return styleHead.Render("Filter: ") + text + styleSelected.Render(" ")
	}
	hints := []string{"enter SA", "/ filter", "←→ sort", "t tunnels", "f findings", "p pause", "r reset", "c cost", "? help", "q quit"}
	switch m.screen() {
	case screenTable:
		switch {
		case m.tunnels:
			hints[0], hints[3] = "enter its SAs", "t SAs"
		case m.within != nil:
			hints[3] = "esc tunnels"
		}
		if len(m.words) > 0 {
			hints = append([]string{fmt.Sprintf("filter %q: %d of %d, esc clears", strings.Join(m.words, " "), len(m.rows), len(m.base))}, hints...)
		}
	case screenSA:
		hints = []string{"esc back", "↑↓ scroll", "n/N next, previous SA", "p pause", "f findings", "? help", "q quit"}
	case screenFindings:
		hints = []string{"enter evidence and remedy", "esc back", "p pause", "? help", "q quit"}
	case screenFinding, screenCost, screenHelp:
		hints = []string{"esc back", "↑↓ scroll", "q quit"}
	}
	if m.opts.ASCII {
		for i := range hints {
			hints[i] = strings.NewReplacer("←→", "< >", "↑↓", "j k").Replace(hints[i])
		}
	}
	line := ""
	for _, h := range hints {
		if ansi.StringWidth(line)+len(h)+2 > m.width && line != "" {
			break
		}
		line += h + "  "
	}
	return styleDim.Render(strings.TrimRight(line, " "))
}

// countFindings sorts them by severity.
func countFindings(all []verdict.Finding) (critical, warning, info int) {
	for i := range all {
		switch all[i].Severity {
		case verdict.Critical:
			critical++
		case verdict.Warning:
			warning++
		case verdict.Info:
			info++
		}
	}
	return critical, warning, info
}
