// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

var bars = []rune("▁▂▃▄▅▆▇█")

// drawnGaps is how many gaps are worth a drawing.
const drawnGaps = 4

// lostRemark draws how many numbers were missing in a row, as gaps of each length, and says how far
// apart the gaps are.
func lostRemark(sa *ledger.SA) string {
	w := sa.Sequence()
	if w == nil || w.GapEvents < drawnGaps {
		return ""
	}
	most := slices.Max(w.GapHistogram)
	if most == 0 {
		return ""
	}
	var runs []string
	for b, n := range w.GapHistogram {
		if n > 0 {
			runs = append(runs, fmt.Sprintf("%s %c", runLength(b, len(w.GapHistogram)), bars[int(float64(len(bars)-1)*float64(n)/float64(most))]))
		}
	}
	s := "in a row: " + strings.Join(runs, "  ")
	if g := w.GapSpacing; g != nil {
		s += fmt.Sprintf("; every %.0f ± %.0f numbers", g.Mean, g.Deviation)
	}
	return s
}

// runLength names a bucket of a log2 histogram.
func runLength(bucket, buckets int) string {
	switch {
	case bucket == 0:
		return "1"
	case bucket == buckets-1:
		return fmt.Sprintf("%d…", 1<<bucket)
	}
	return fmt.Sprintf("%d-%d", 1<<bucket, 1<<(bucket+1)-1)
}

// wireLines say what else the wire tells of an SA: who received it, what routers marked, whether its
// sender began anew or moved.
func (p *printer) wireLines(sa *ledger.SA) {
	w := sa.Wire
	if w == nil {
		return
	}
	say := func(format string, args ...any) { p.wrap("     ", "     ", fmt.Sprintf(format, args...)) }
	if len(sa.CPUs) > 1 {
		var parts []string
		for _, cpu := range slices.Sorted(maps.Keys(sa.CPUs)) {
			parts = append(parts, fmt.Sprintf("%d: %s", cpu, group(sa.CPUs[cpu])))
		}
		say("packets by CPU: %s; late between CPUs %s of %s", strings.Join(parts, ", "), group(w.LateAcrossCPUs), group(w.Late))
	}
	if w.ECNCE > 0 {
		say("marked \"congestion experienced\": %s", group(w.ECNCE))
	}
	if w.RestartedAt != nil {
		say("numbers began anew at %s", w.RestartedAt.Format("15:04:05.000 MST"))
	}
	if w.ReboundAt != nil && w.ReboundFrom != nil {
		say("packets came from %s until %s", w.ReboundFrom, w.ReboundAt.Format("15:04:05.000 MST"))
	}
}
