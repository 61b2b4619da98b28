// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
)

// cost is what xfrmscope's own programs used lately.
type cost struct {
	measured bool
	nsPerRun float64 // over all programs, of the runs since the frame before
	percent  float64 // of one CPU
}

// add compares two frames. A program's time is its mean times its runs, both since it was loaded.
func (c *cost) add(before, now *Frame) {
	s := &now.Report.Self
	if len(s.NsPerRun) == 0 {
		*c = cost{}
		return
	}
	ns, runs := spent(s)
	c.measured, c.percent = true, 0
	if before != nil {
		was, ran := spent(&before.Report.Self)
		if took := now.At.Sub(before.At); took > 0 && ns >= was {
			c.percent = 100 * (ns - was) / float64(took.Nanoseconds())
		}
		if runs > ran {
			ns, runs = ns-was, runs-ran
		}
	}
	if runs > 0 {
		c.nsPerRun = ns / runs
	}
}

// spent sums time and runs of all programs.
func spent(s *ledger.SelfReport) (ns, runs float64) {
	for name, mean := range s.NsPerRun {
		n := float64(s.Runs[name])
		ns, runs = ns+mean*n, runs+n
	}
	return ns, runs
}

// costLine is always in view: time per run of the kernel programs, share of a CPU of these and of this
// process, memory of the maps, what got lost.
func (m *Model) costLine() string {
	s := &m.shown.Report.Self
	bpf := "ns/run ? (--stats)"
	if m.cost.measured {
		bpf = fmt.Sprintf("%s ns/run  BPF %s", short(m.cost.nsPerRun, 5), share(m.cost.percent))
	}
	maps := "maps ?"
	if s.MapBytes != nil {
		maps = "maps " + bytesText(*s.MapBytes)
	}
	line := fmt.Sprintf("cost  %s  CPU %s  %s  ", bpf, share(m.shown.CPU), maps)
	lost := fmt.Sprintf("lost %s withheld %s", short(float64(s.EventsLost), 5), short(float64(s.EventsSuppressed), 5))
	if len("events ")+ansi.StringWidth(line+lost) <= m.width {
		lost = "events " + lost
	}
	style := styleDim
	if trouble(s) {
		style = styleWarn
		if other := s.TableFull + s.RecursionMisses; other > 0 {
			lost = fmt.Sprintf("blurred %s ", short(float64(other), 5)) + lost
		}
	}
	return styleDim.Render(line) + style.Render(lost)
}

// trouble says whether xfrmscope lost what its figures are made of, or events.
func trouble(s *ledger.SelfReport) bool {
	return s.EventsLost > 0 || s.TableFull > 0 || s.RecursionMisses > 0
}

// costLines is the screen that tells all of it.
func (m *Model) costLines() []string {
	if m.shown == nil {
		return nil
	}
	s := &m.shown.Report.Self
	lines := []string{"", "  This process: " + fmt.Sprintf("%.1f %% of one CPU since the frame before, %.1f %% since it began.", m.shown.CPU, s.CPUPercent)}
	if s.MapBytes != nil {
		lines = append(lines, "  Memory of the kernel programs' maps: "+bytesText(*s.MapBytes)+".")
	}
	if m.cost.measured {
		lines = append(lines, fmt.Sprintf("  Kernel programs: %.1f %% of one CPU since the frame before.", m.cost.percent), "",
			styleHead.Render(fmt.Sprintf("  %-40s %12s %14s", "PROGRAM", "NS PER RUN", "RUNS")))
		for _, name := range slices.Sorted(maps.Keys(s.NsPerRun)) {
			lines = append(lines, fmt.Sprintf("  %-40s %12.0f %14s", fit(name, 40), s.NsPerRun[name], report.Group(int64(s.Runs[name]))))
		}
	} else {
		lines = append(lines, "",
			"  How long the kernel programs run is not measured. xfrmscope watch --stats asks the",
			"  kernel to: that adds two clock reads to each run of every BPF program on this machine,",
			"  for as long as xfrmscope runs. sysctl kernel.bpf_stats_enabled=1 does the same for good.")
	}
	lines = append(lines, "", styleHead.Render("  What it lost or withheld"),
		fmt.Sprintf("  events lost, ring full          %s", report.Group(s.EventsLost)),
		fmt.Sprintf("  events withheld, rate limit     %s", report.Group(s.EventsSuppressed)),
		fmt.Sprintf("  events not kept here            %s", report.Group(int64(m.events.skipped))),
		fmt.Sprintf("  program runs skipped            %s", report.Group(s.RecursionMisses)),
		fmt.Sprintf("  packets without room in a table %s", report.Group(s.TableFull)),
		fmt.Sprintf("  idle SAs folded away            %s", report.Group(s.Evicted)))
	for _, cause := range slices.Sorted(maps.Keys(s.Lost)) {
		lines = append(lines, fmt.Sprintf("    %-29s %s", cause, report.Group(s.Lost[cause])))
	}
	lines = append(lines, "  Totals never depend on events.", "")
	return append(lines, m.hookLines()...)
}

// hookLines lists where xfrmscope cannot look, and what that costs.
func (m *Model) hookLines() []string {
	var missing []string
	attached := 0
	for _, h := range m.shown.Report.Hooks {
		if h.Attached {
			attached++
			continue
		}
		missing = append(missing, wrapped("  - ", "    ", report.Clean(h.Name)+": "+report.Clean(h.Why)+"; costs: "+report.Clean(h.Costs), m.width)...)
	}
	head := fmt.Sprintf("  Hooks: %d attached, %d missing", attached, len(m.shown.Report.Hooks)-attached)
	return append([]string{styleHead.Render(head)}, missing...)
}

// wrapped breaks text between words into lines of at most width columns.
func wrapped(first, rest, text string, width int) []string {
	var lines []string
	line := first
	filled := false
	for word := range strings.FieldsSeq(text) {
		if filled && len([]rune(line))+1+len([]rune(word)) > width {
			lines = append(lines, line)
			line, filled = rest, false
		}
		if filled {
			line += " "
		}
		line += word
		filled = true
	}
	return append(lines, line)
}
