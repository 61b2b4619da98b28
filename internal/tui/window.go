// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
)

// windowLines draws the replay window against how far below the highest number late packets came.
func (m *Model) windowLines(sa *ledger.SA) []string {
	w := sa.Sequence()
	if w == nil || sa.Direction == ledger.Out {
		return nil
	}
	var lines []string
	size := -1
	switch {
	case sa.ReplayWindow == nil:
		lines = append(lines, "  its size is not known: the SA database does not have this SA")
	case *sa.ReplayWindow == 0:
		lines = append(lines, "  size 0: the kernel takes whatever comes, however late or often")
	default:
		size = int(*sa.ReplayWindow)
		lines = append(lines, fmt.Sprintf("  size %d: a packet %d or more numbers below the highest is refused", size, size))
	}
	if w.Late == 0 {
		return append(lines, "  no packet came late")
	}
	lines = append(lines, wrapped("  ", "    ", fmt.Sprintf("%s of %s packets came late, by up to %s numbers; refused as late %s, as mis-epoch %s",
		report.Group(w.Late), report.Group(w.Packets), report.Group(w.DisplacementMax),
		refusals(sa, ledger.ReplayLate), refusals(sa, ledger.ESNMisEpoch)), m.width)...)
	lines = append(lines, m.histogram(w.DisplacementHistogram, size, "window ends: what comes later is refused")...)
	return append(lines, needed(w.DisplacementMax, size))
}

// refusals are an SA's drops for one cause.
func refusals(sa *ledger.SA, c ledger.Cause) string {
	if sa.Xfrm == nil {
		return "?"
	}
	return report.Group(sa.Xfrm[c])
}

// needed says which window would have lost nothing. A packet so many numbers below the highest fits a
// window that is larger by one.
func needed(most int64, size int) string {
	need := most + 1
	switch {
	case int64(size) >= need:
		return fmt.Sprintf("  a window of %d would have been enough: this one is", need)
	case size < 0:
		return fmt.Sprintf("  a window of %d would lose nothing of this", need)
	}
	set := int64(32)
	for set < need {
		set *= 2
	}
	return styleWarn.Render(fmt.Sprintf("  a window of %d would have lost nothing: set %d", need, set))
}

// reorderLines draws how many packets each late one let pass.
func (m *Model) reorderLines(sa *ledger.SA) []string {
	w := sa.Sequence()
	if w == nil || w.Late == 0 {
		return nil
	}
	lines := m.histogram(w.ReorderHistogram, -1, "")
	text := "  at most " + report.Group(w.ReorderExtentMax)
	if w.ReorderExtentFloor > 0 {
		text += fmt.Sprintf("; of %s packets the extent is a lower bound", report.Group(w.ReorderExtentFloor))
	}
	if w.LateAcrossCPUs > 0 {
		text += fmt.Sprintf("; %s were in order on their own CPU", report.Group(w.LateAcrossCPUs))
	}
	return append(lines, text)
}

// histogram draws log2 buckets, and a line where limit lies.
func (m *Model) histogram(hist []int64, limit int, about string) []string {
	first, last, most := -1, -1, int64(1)
	for b, n := range hist {
		if n > 0 {
			if first < 0 {
				first = b
			}
			last, most = b, max(most, n)
		}
	}
	if first < 0 {
		return nil
	}
	room := min(40, m.width-32)
	var lines []string
	drawn := limit <= 0
	cut := func() {
		drawn = true
		text := fmt.Sprintf("%14d ", limit)
		lines = append(lines, styleNote.Render("  "+text+strings.Repeat(m.glyphs.rule, 3)+" "+about))
	}
	for b := first; b <= last; b++ {
		from, to := int64(1)<<b, int64(1)<<(b+1)-1
		if !drawn && int64(limit) <= from {
			cut()
		}
		n := hist[b]
		bar := ""
		if n > 0 && room > 0 {
			bar = strings.Repeat(m.glyphs.bar, max(1, int(float64(n)/float64(most)*float64(room))))
		}
		if !drawn || limit <= 0 {
			bar = styleGood.Render(bar)
		} else {
			bar = styleBad.Render(bar)
		}
		lines = append(lines, fmt.Sprintf("  %14s %10s  %s", span(b, len(hist), from, to), report.Group(n), bar))
		if !drawn && int64(limit) <= to {
			cut()
		}
	}
	if !drawn {
		cut()
	}
	return lines
}

func span(b, buckets int, from, to int64) string {
	switch {
	case b == buckets-1:
		return report.Group(from) + " and more"
	case from == to:
		return report.Group(from)
	}
	return report.Group(from) + " to " + report.Group(to)
}
