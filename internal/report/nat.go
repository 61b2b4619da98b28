// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// nat writes a line for each gateway that speaks ESP in UDP.
func (p *printer) nat(n *ledger.NAT) {
	if n == nil || len(n.Peers) == 0 {
		return
	}
	p.line("ESP in UDP")
	for i := range n.Peers {
		p.wrap("  - ", "    ", natLine(&n.Peers[i]))
	}
	for _, m := range n.Mappings {
		p.wrap("  - ", "    ", fmt.Sprintf("the kernel announced for SA %s: %s -> %s, %s times since %s",
			m.SPI, m.Old, m.New, group(m.Announcements), m.First.Format("15:04:05.000 MST")))
	}
	p.line("")
}

func natLine(n *ledger.NATPeer) string {
	parts := []string{fmt.Sprintf("%s, its port %d", n.Remote, max(n.InPort, n.OutPort))}
	if n.InPort != 0 && n.OutPort != 0 && n.InPort != n.OutPort {
		parts[0] = fmt.Sprintf("%s, from its port %d, to its port %d", n.Remote, n.InPort, n.OutPort)
	}
	if n.Translated {
		parts[0] += " (behind NAT)"
	}
	parts = append(parts, fmt.Sprintf("in %s, out %s packets", group(n.InPackets), group(n.OutPackets)))
	if n.QuietS >= 10 {
		parts = append(parts, fmt.Sprintf("quiet for %.0f s at most", n.QuietS))
	}
	if n.OutSinceIn > 0 && n.QuietBeforeS > 0 {
		parts = append(parts, fmt.Sprintf("%s sent since it was last heard", group(n.OutSinceIn)))
	}
	parts = append(parts, "keepalives in "+beatText(n.KeepalivesIn)+", out "+beatText(n.KeepalivesOut))
	if n.Moves > 0 {
		parts = append(parts, fmt.Sprintf("moved %s times", group(n.Moves)))
	}
	return strings.Join(parts, "; ")
}

func beatText(b *ledger.Beat) string {
	switch {
	case b == nil:
		return "none"
	case b.IntervalAvgS == 0:
		return group(b.Count)
	}
	return fmt.Sprintf("%s, every %.1f s (%.1f to %.1f)", group(b.Count), b.IntervalAvgS, b.IntervalMinS, b.IntervalMaxS)
}
