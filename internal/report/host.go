// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// busy is from what share of softirq on a CPU is worth a line.
const busy = 50

// host writes what the machine lost by its own account, a line where it lost nothing.
func (p *printer) host(h *ledger.HostReport) {
	if h == nil {
		return
	}
	var lines []string
	for i := range h.Links {
		if l := &h.Links[i]; troubled(l) {
			lines = append(lines, linkLine(l))
		}
	}
	for _, c := range h.CPUs {
		if c.SoftirqPercent >= busy || c.Dropped > 0 || c.Squeezed > 0 {
			lines = append(lines, fmt.Sprintf("CPU %d: %.0f %% in softirq, %.0f %% busy; %s packets handled, %s dropped for a full backlog, squeezed %s times",
				c.ID, c.SoftirqPercent, c.BusyPercent, group(c.Processed), group(c.Dropped), group(c.Squeezed)))
		}
	}
	if len(lines) == 0 && len(h.Notes) == 0 {
		p.line("Host: devices that carry SAs, queues and CPUs lost nothing by their own account.")
		p.line("")
		return
	}
	p.line("Host")
	for _, s := range lines {
		p.wrap("  - ", "    ", s)
	}
	for _, n := range h.Notes {
		p.wrap("  note: ", "        ", n)
	}
	p.line("")
}

// latency writes how long packets spent in xfrm, where that was measured.
func (p *printer) latency(sas []ledger.SA) {
	said := false
	for i := range sas {
		sa := &sas[i]
		l := sa.Latency
		if l == nil {
			continue
		}
		if !said {
			p.line("Time in xfrm (bounds: the histogram's buckets double)")
			said = true
		}
		text := fmt.Sprintf("%s: %s packets, mean %s, half within %s, 99 %% within %s, longest %s", saName(sa), group(l.Packets),
			nsAsMicros(l.MeanNs), nsAsMicros(l.MedianNs), nsAsMicros(l.P99Ns), nsAsMicros(l.MaxNs))
		if l.Async > 0 {
			text += fmt.Sprintf("; %s of them finished later by an asynchronous cipher", group(l.Async))
		}
		p.wrap("  - ", "    ", text)
	}
	if said {
		p.line("")
	}
}

// nsAsMicros writes nanoseconds as microseconds.
func nsAsMicros(ns int64) string { return fmt.Sprintf("%.1f us", float64(ns)/1000) }

// losses are the counters of a device that do not move when all is well.
func losses(m map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for name, n := range m {
		switch name {
		case "rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "multicast":
		default:
			out[name] = n
		}
	}
	return out
}

func troubled(l *ledger.LinkReport) bool {
	return len(losses(l.Counters)) > 0 || len(l.DriverCounters) > 0 ||
		slices.ContainsFunc(l.Qdiscs, func(q ledger.QdiscReport) bool { return q.Drops > 0 })
}

func linkLine(l *ledger.LinkReport) string {
	parts := pairsOf(losses(l.Counters))
	parts = append(parts, pairsOf(l.DriverCounters)...)
	for _, q := range l.Qdiscs {
		if q.Drops > 0 {
			parts = append(parts, fmt.Sprintf("%s %s dropped %s", q.Kind, q.Handle, group(q.Drops)))
		}
	}
	what := "carries no SA"
	if l.CarriesSAs {
		what = "carries SAs"
	}
	if l.Driver != "" && l.Driver != l.Kind {
		what = l.Driver + ", " + what
	}
	return fmt.Sprintf("%s (%s, %s): %s", l.Name, l.Kind, what, strings.Join(parts, ", "))
}
