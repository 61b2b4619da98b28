// SPDX-License-Identifier: Apache-2.0

package tui

import "strings"

// glyphs draw sparklines and bars: the block elements of Unicode, or ASCII where the terminal has no
// more.
type glyphs struct {
	levels   []string // from "passed, none lost" upwards; eight of them
	nothing  string   // no packet
	bar      string
	rule     string
	mark     string
	down, up string
	dot      string
}

var (
	unicodeGlyphs = glyphs{
		levels:  []string{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
		nothing: " ", bar: "█", rule: "─", mark: "▶", down: "▼", up: "▲", dot: "·",
	}
	asciiGlyphs = glyphs{
		levels:  []string{".", ":", "-", "=", "+", "*", "#", "@"},
		nothing: " ", bar: "#", rule: "-", mark: ">", down: "v", up: "^", dot: "|",
	}
)

// lossSteps are the shares in percent from which on a loss is drawn one level higher. The scale is the
// same for all rows: a bar tells how much, not only when.
var lossSteps = []float64{0, 0.1, 0.3, 1, 3, 10, 30}

func lossLevel(c cell) int {
	if c.lost == 0 {
		return 0
	}
	p, level := 100*float64(c.lost)/float64(max(c.offered, c.lost)), 0
	for i, from := range lossSteps {
		if p >= from {
			level = i + 1
		}
	}
	return level
}

// columnsOf sums the newest frames into so many columns, the newest last, and counts the frames in each.
// Which frames share a column does not change while they grow older, so that a line only moves on.
func (r *row) columnsOf(n, width int) (cells []cell, frames []int) {
	width = min(width, depth)
	each := (depth + width - 1) / width
	cells, frames = make([]cell, width), make([]int, width)
	for f := max(0, n-depth); f < n; f++ {
		at := width - 1 - ((n-1)/each - f/each)
		if at < 0 {
			continue
		}
		if c, ok := r.at(f); ok {
			cells[at], frames[at] = cells[at].plus(c), frames[at]+1
		}
	}
	return cells, frames
}

// lossLine draws the share that got lost over the recent past.
func (g *glyphs) lossLine(r *row, n, width int) string {
	cells, _ := r.columnsOf(n, width)
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(cells)))
	for _, c := range cells {
		if c.packets == 0 && c.lost == 0 {
			b.WriteString(g.nothing)
			continue
		}
		b.WriteString(g.levels[lossLevel(c)])
	}
	return b.String()
}

// rateLine draws the packets of the recent past, against the most of them in one column.
func (g *glyphs) rateLine(r *row, n, width int) string {
	cells, frames := r.columnsOf(n, width)
	most := 0.0
	mean := make([]float64, len(cells))
	for i, c := range cells {
		mean[i] = float64(c.packets) / float64(max(frames[i], 1))
		most = max(most, mean[i])
	}
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(cells)))
	for _, m := range mean {
		if m == 0 {
			b.WriteString(g.nothing)
			continue
		}
		b.WriteString(g.levels[min(len(g.levels)-1, int(m/most*float64(len(g.levels))))])
	}
	return b.String()
}
