// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// short writes a number in at most so many columns: in full where it fits, else with an SI prefix.
func short(n float64, width int) string {
	if n < 0 {
		return "-" + short(-n, width-1)
	}
	if n > 0 && n < 0.95 {
		return fmt.Sprintf("%.1f", n)
	}
	if s := strconv.FormatFloat(math.Round(n), 'f', 0, 64); len(s) <= width {
		return s
	}
	for _, prefix := range "kMGTPE" {
		n /= 1000
		for _, digits := range []int{2, 1, 0} {
			if s := strconv.FormatFloat(n, 'f', digits, 64) + string(prefix); len(s) <= width && n < 999.5 {
				return s
			}
		}
	}
	return strings.Repeat("#", max(width, 1))
}

// text writes a count; what nobody observes is a question mark, never a zero.
func (n num) text(width int) string {
	switch n.is {
	case unknown:
		return "?"
	case without:
		return "-"
	case known:
	}
	return short(float64(n.v), width)
}

// percent writes a share in at most five columns.
func percent(p float64, ok bool) string {
	switch {
	case !ok:
		return "-"
	case p == 0:
		return "0%"
	case p > 0 && p < 0.05:
		return "<.1%"
	case p < 9.95:
		return fmt.Sprintf("%.1f%%", p)
	}
	return fmt.Sprintf("%.0f%%", p)
}

// bytesText writes an amount of memory.
func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// addrText writes an address in at most so many columns. Of a long one both ends are kept: they are what
// tells neighbours apart.
func addrText(a netip.Addr, width int) string {
	if !a.IsValid() {
		return "?"
	}
	s := a.String()
	if len(s) <= width || width < 5 {
		return ansi.Truncate(s, width, "…")
	}
	head := (width - 1) / 3
	return s[:head] + "…" + s[len(s)-(width-1-head):]
}

// lasting writes a duration without what nobody reads.
func lasting(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Lasting writes a duration as the screens do.
func Lasting(d time.Duration) string { return lasting(d) }

// plural writes a number with its noun.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// fit cuts a line to a width and fills it up to it.
func fit(s string, width int) string {
	s = ansi.Truncate(s, width, "…")
	return s + strings.Repeat(" ", max(0, width-ansi.StringWidth(s)))
}

// right puts text at the right end of a column.
func right(s string, width int) string {
	return strings.Repeat(" ", max(0, width-ansi.StringWidth(s))) + s
}

// ends puts one text at the left and one at the right end of a line; the right one is never cut.
func ends(left, rightText string, width int) string {
	room := max(0, width-ansi.StringWidth(rightText)-1)
	return fit(left, room) + " " + rightText
}

// share writes a part of a CPU in percent.
func share(p float64) string {
	if p < 9.95 {
		return fmt.Sprintf("%.1f %%", p)
	}
	return fmt.Sprintf("%.0f %%", p)
}
