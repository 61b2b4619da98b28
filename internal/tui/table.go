// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// sorted filters and orders rows. Equals keep the report's order, so that rows do not jump about.
func sorted(rows []row, words []string, by *column, reverse bool) []*row {
	out := make([]*row, 0, len(rows))
	for i := range rows {
		if rows[i].matches(words) {
			out = append(out, &rows[i])
		}
	}
	slices.SortFunc(out, func(a, b *row) int {
		c := by.order(a, b)
		if by.falling != reverse {
			c = -c
		}
		if c != 0 {
			return c
		}
		return a.place - b.place
	})
	return out
}

// tableLines draws the head of the table and the rows that fit into height lines.
func (m *Model) tableLines(height int) []string {
	cols := layout(m.rows, m.sortBy, m.tunnels, m.width)
	lines := []string{m.headLine(cols)}
	visible := max(0, height-1)
	m.scroll(visible)
	d := &drawing{&m.glyphs, m.frozen.n}
	for i := m.top; i < min(len(m.rows), m.top+visible); i++ {
		lines = append(lines, m.rowLine(d, cols, m.rows[i], i == m.cursor))
	}
	if len(m.rows) == 0 {
		lines = append(lines, "", fit(m.nothing(), m.width))
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines[:max(height, 0)]
}

// nothing says why there is no row.
func (m *Model) nothing() string {
	switch {
	case m.shown == nil:
		return "  attaching…"
	case len(m.shown.Report.SAs) > 0:
		return "  no row matches the filter; / changes it, esc takes it away"
	}
	return "  no SAs: none is in the SA database, and no ESP came since " + m.shown.Report.Source.Start.Local().Format("15:04:05")
}

func (m *Model) headLine(cols []placed) string {
	parts := make([]string, len(cols))
	for i, c := range cols {
		title := c.title
		if c.id == colSPI {
			title = " " + title
		}
		if c.id == m.sortBy {
			arrow := m.glyphs.up
			if c.falling != m.reverse {
				arrow = m.glyphs.down
			}
			title = ansi.Truncate(title, max(0, c.width-1), "") + arrow
		}
		if c.right {
			title = right(title, c.width)
		}
		parts[i] = fit(title, c.width)
	}
	return styleHead.Underline(true).Render(fit(strings.Join(parts, " "), m.width))
}

func (m *Model) rowLine(d *drawing, cols []placed, r *row, selected bool) string {
	parts := make([]string, len(cols))
	for i, c := range cols {
		text := c.text(d, r, c.width)
		if c.right {
			text = right(text, c.width)
		}
		text = fit(text, c.width)
		if c.style != nil && !selected {
			text = c.style(r).Render(text)
		}
		parts[i] = text
	}
	line := strings.Join(parts, " ")
	if selected {
		return styleSelected.Render(fit(line, m.width))
	}
	return ansi.Truncate(line, m.width, "")
}

// scroll moves the part of the table that is shown so that the cursor is in it.
func (m *Model) scroll(visible int) {
	m.cursor = max(0, min(m.cursor, len(m.rows)-1))
	m.top = min(m.top, m.cursor, max(0, len(m.rows)-visible))
	m.top = max(0, m.top, m.cursor-max(visible, 1)+1)
}
