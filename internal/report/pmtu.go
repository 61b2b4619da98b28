// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// A terminal shows the most frequent; JSON holds more.
const (
	pmtuEventsMax = 8
	pmtuPathsMax  = 8
)

// pmtu prints what did not fit, and of the paths those that are narrower than their link.
func (p *printer) pmtu(m *ledger.PMTU) {
	if m == nil {
		return
	}
	narrow := []*ledger.PMTUPath{}
	for i := range m.Paths {
		if path := &m.Paths[i]; path.Known() < path.LinkMTU || path.Locked {
			narrow = append(narrow, path)
		}
	}
	if len(m.Events) == 0 && len(narrow) == 0 {
		if m.Totals != nil {
			p.line("Path MTU: every packet fitted")
			p.line("")
		}
		return
	}
	p.line("Path MTU")
	for _, path := range narrow[:min(len(narrow), pmtuPathsMax)] {
		p.path(path)
	}
	p.more(len(narrow)-pmtuPathsMax, "narrow paths")
	for i := range m.Events[:min(len(m.Events), pmtuEventsMax)] {
		p.wrap("  - ", "    ", pmtuEvent(&m.Events[i]))
	}
	p.more(len(m.Events)+m.EventsLeftOut-pmtuEventsMax, "flows")
	if n := m.Totals["unrecorded"]; n > 0 {
		p.line("  %s events found no room in the table: who and what is not known of them", group(n))
	}
	if len(m.Counters) > 0 {
		p.pairs("  the namespace's own counters: ", m.Counters)
	}
	p.line("")
}

func (p *printer) more(n int, what string) {
	if n > 0 {
		p.line("  and %d more %s: see --json", n, what)
	}
}

func (p *printer) path(path *ledger.PMTUPath) {
	text := fmt.Sprintf("to %s through SA %s: path MTU %d of a link's %d", path.Dst, path.SPI, path.Known(), path.LinkMTU)
	if path.Locked {
		text += ", locked"
	}
	if o := path.Overhead; o != nil {
		inner := o.Inner(path.Known())
		text += fmt.Sprintf("; the SA adds at most %d: inner MTU %d, MSS %d (IPv6 %d)",
			o.Most(), inner, ledger.MSS(inner, 4), ledger.MSS(inner, 6))
	}
	p.wrap("  ", "    ", text)
}

// pmtuEvent tells one event in a sentence.
func pmtuEvent(e *ledger.PMTUEvent) string {
	what := fmt.Sprintf("%s of %s to %s", e.Protocol, e.Src, e.Dst)
	if e.SPI != nil {
		what += fmt.Sprintf(", SPI %s", *e.SPI)
	}
	size := ""
	if e.SizeMax > 0 {
		size = fmt.Sprintf(", up to %d octets", e.SizeMax)
	}
	n := group(e.Packets)
	switch e.Kind {
	case ledger.PMTUTellSender:
		text := fmt.Sprintf("%s too big for %d%s: %s", n, e.MTU, size, what)
		if e.Sent != nil {
			text += fmt.Sprintf("; its sender was told %s times", group(*e.Sent))
		}
		if e.Late > 0 {
			text += fmt.Sprintf("; %s of one connection came more than two seconds after its first", group(e.Late))
		}
		return text
	case ledger.PMTUTellSocket:
		return fmt.Sprintf("%s too big for %d%s: %s, told to the socket here", n, e.MTU, size, what)
	case ledger.PMTUTold:
		return fmt.Sprintf("%s ICMP messages from %s: %s does not fit %d", n, e.Reporter, what, e.MTU)
	case ledger.PMTUApplied:
		return fmt.Sprintf("the route to %s was given MTU %d, %s times", e.Dst, e.MTU, n)
	case ledger.PMTUFragmented:
		return fmt.Sprintf("%s cut into fragments for %d%s: %s", n, e.MTU, size, what)
	case ledger.PMTUExpired:
		return fmt.Sprintf("%s never became whole, of which the first fragment came: %s", n, what)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s: %s", n, e.Kind, what))
}
