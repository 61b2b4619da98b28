// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"net/netip"
	"strings"

	"xfrmscope/internal/ledger"
)

// flowsShown is how many connections the text shows; JSON holds more of them.
const flowsShown = 10

// flows writes what happened to TCP inside the tunnels: a line for each direction of a connection that
// had trouble, and one for all the rest.
func (p *printer) flows(f *ledger.Flows) {
	if f == nil || f.Seen == 0 && f.Packets["paged"] == 0 {
		return
	}
	p.line("TCP inside the tunnels")
	shown, troubled := 0, 0
	for i := range f.List {
		for k := range f.List[i].Ends {
			sender, reader := &f.List[i].Ends[k], &f.List[i].Ends[1-k]
			trouble := flowTrouble(sender, reader)
			if trouble == "" || sender.SA == nil {
				continue
			}
			if troubled++; shown < flowsShown {
				shown++
				p.wrap("  ", "      ", fmt.Sprintf("%s to %s in SA %s %s: %s segments, %s bytes; %s", endName(sender), endName(reader),
					sender.SA.SPI, sender.SA.Direction, group(sender.Segments), group(sender.PayloadBytes), trouble))
			}
		}
	}
	if troubled > shown {
		p.line("  … and %d more (--json lists them)", troubled-shown)
	}
	if shown == 0 {
		p.line("  connections %s, segments %s: no closed window, nothing repeated", group(f.Seen), group(f.Packets["tcp"]))
	} else {
		p.line("  connections %s, segments %s in all", group(f.Seen), group(f.Packets["tcp"]))
	}
	if f.Forgotten > 0 {
		p.line("  %s connections were thrown out of the kernel's table before they were read", group(f.Forgotten))
	}
	if n := f.Packets["paged"]; n > 0 {
		p.wrap("  ", "    ", fmt.Sprintf("%s packets could not be followed: the driver left their headers in pages, where no probe reads", group(n)))
	}
	p.line("")
}

func endName(e *ledger.FlowEnd) string { return netip.AddrPortFrom(e.Addr, e.Port).String() }

// flowTrouble says what ailed one direction of a connection; nothing if nothing did.
func flowTrouble(sender, reader *ledger.FlowEnd) string {
	var parts []string
	if z := &reader.Zero; z.Episodes > 0 || z.TotalUS > 0 {
		open := ""
		if z.OpenUS > 0 {
			open = ", closed at the end of the run"
		}
		parts = append(parts, fmt.Sprintf("window zero %d times for %s in all, %s at the longest%s", z.Episodes, micros(z.TotalUS), micros(z.LongestUS), open))
	}
	if sender.Retransmissions > 0 {
		parts = append(parts, fmt.Sprintf("repeated %s", group(sender.Retransmissions)))
	}
	if sender.Congested > 0 {
		parts = append(parts, fmt.Sprintf("marked CE %s", group(sender.Congested)))
	}
	if len(parts) > 0 && sender.RTT != nil {
		parts = append(parts, fmt.Sprintf("round trip from here %s to %s", micros(sender.RTT.MinUS), micros(sender.RTT.MaxUS)))
	}
	return strings.Join(parts, "; ")
}

// micros writes a time in the unit that suits it.
func micros(us int64) string {
	switch {
	case us >= 1_000_000:
		return fmt.Sprintf("%.1f s", float64(us)/1e6)
	case us >= 1000:
		return fmt.Sprintf("%.1f ms", float64(us)/1e3)
	}
	return fmt.Sprintf("%d µs", us)
}
