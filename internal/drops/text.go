// SPDX-License-Identifier: Apache-2.0

package drops

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"xfrmscope/internal/printable"
)

// Line writes one drop as a line of `drops --follow`, with `when` in front; its stack, if there is one,
// stands below it.
func (d Drop) Line(when string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s drop %s", when, d.Packet.text(d.Protocol))
	if d.Packets > 1 {
		fmt.Fprintf(&b, " merged=%d", d.Packets)
	}
	for _, f := range []struct{ key, value string }{
		{"reason", d.Reason}, {"at", d.Location}, {"dev", d.device()}, {"netns", d.space()}, {"sa", d.SA.text()},
		{"counter", d.Counter}, {"cause", d.Cause},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, " %s=%s", f.key, f.value)
		}
	}
	fmt.Fprintf(&b, " cpu=%d", d.CPU)
	for _, f := range d.Stack {
		fmt.Fprintf(&b, "\n    %s", f)
	}
	return b.String()
}

func (w *What) device() string {
	if w.Interface == "" {
		return "none"
	}
	return printable.Name(w.Interface)
}

func (w *What) space() string {
	if w.NoNetns {
		return "unknown"
	}
	return printable.Name(w.Netns)
}

func (sa *SA) text() string {
	if sa == nil {
		return ""
	}
	s := fmt.Sprintf("%s,%s,%s", sa.SPI, sa.Dst, sa.Direction)
	if sa.Known != "header" {
		s += "," + sa.Known
	}
	return s
}

// text writes a packet as "UDP 192.0.2.1:53 > 192.0.2.2:4242 len=120".
func (p Packet) text(protocol string) string {
	if !p.Src.IsValid() {
		return fmt.Sprintf("%s len=%d", protocol, p.Length)
	}
	s := fmt.Sprintf("%s %s > %s", protocol, endpoint(p.Src, p.SrcPort), endpoint(p.Dst, p.DstPort))
	if p.Type != nil {
		s += fmt.Sprintf(" type=%d code=%d", *p.Type, *p.Code)
	}
	return s + fmt.Sprintf(" len=%d", p.Length)
}

func endpoint(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// Write prints the summary for people.
func Write(w io.Writer, rows []Row, t Total) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s dropped in %.1f s", count(t.Packets, "packet"), t.Seconds)
	switch {
	case t.Packets == 0:
		b.WriteString(".\n")
	case t.Shown < t.Rows:
		fmt.Fprintf(&b, ", in %s; the %d with the most packets:\n", count(uint64(t.Rows), "row"), t.Shown)
	default:
		b.WriteString(":\n")
	}
	header := []string{"packets", "share", "reason", "where", "device", "SA"}
	lines := make([][]string, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		device := r.device()
		if s := r.space(); s != "" {
			device += " in " + s
		}
		lines = append(lines, []string{
			fmt.Sprint(r.Packets), fmt.Sprintf("%.1f%%", r.Share), dash(r.Reason), dash(r.Location), device, dash(r.SA.text()),
		})
	}
	width := make([]int, len(header))
	for _, l := range append(lines, header) {
		for i, cell := range l {
			width[i] = max(width[i], len(cell))
		}
	}
	if len(rows) > 0 {
		b.WriteByte('\n')
		line(&b, header, width)
	}
	indent := strings.Repeat(" ", width[0]+width[1]+4)
	for i := range rows {
		r := &rows[i]
		line(&b, lines[i], width)
		fmt.Fprintf(&b, "%se.g. %s\n", indent, r.Example.text(r.Protocol))
		if r.Counter != "" || r.Cause != "" {
			fmt.Fprintf(&b, "%sxfrm: %s\n", indent, strings.TrimSpace(r.Counter+" "+parens(r.Cause)))
		}
		if r.Folded {
			fmt.Fprintf(&b, "%sSA and stack not told apart: too many different ones\n", indent)
		}
		for _, f := range r.Stack {
			fmt.Fprintf(&b, "%s  %s\n", indent, f)
		}
	}
	if t.NotShown > 0 {
		fmt.Fprintf(&b, "\n%s in the other %s: --top 0 shows all.\n", count(t.NotShown, "packet"), count(uint64(t.Rows-t.Shown), "row"))
	}
	for _, cause := range slices.Sorted(maps.Keys(t.Lost)) {
		fmt.Fprintf(&b, "%s: %s\n", count(t.Lost[cause], lostUnit[cause]), lostText[cause])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var lostUnit = map[string]string{
	"table_full": "packet", "folded": "packet", "stack": "packet", "ring_full": "line", "withheld": "line",
}

var lostText = map[string]string{
	"table_full": "counted in no row, the table was full; narrow it down with a filter",
	"folded":     "counted without SA and stack, the table was full",
	"stack":      "counted without kernel stack, the table of stacks was full",
	"ring_full":  "of --follow lost, the ring was full; the rows have their packets",
	"withheld":   "of --follow withheld by --rate; the rows have their packets",
}

func line(b *strings.Builder, cells []string, width []int) {
	for i, cell := range cells {
		switch {
		case i < 2:
			fmt.Fprintf(b, "%*s  ", width[i], cell)
		case i == len(cells)-1:
			b.WriteString(cell)
		default:
			fmt.Fprintf(b, "%-*s  ", width[i], cell)
		}
	}
	b.WriteByte('\n')
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func parens(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

func count(n uint64, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
