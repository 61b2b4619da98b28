// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"strings"
)

const fromLink = "rtnetlink"

// holdLinks compares the packets that native XDP saw arrive with what the devices say they received.
// The two are read at different moments while packets arrive, so they are only held to within a
// hundredth or 64 packets, and what lies beyond is shown but is no disagreement: a device may count
// frames that it loses later. Behind GRO there is nothing to compare: merged packets count as one.
func (l *Ledger) holdLinks(k *Kernel) {
	if l.host.now == nil || !l.packetsSeen {
		return
	}
	var names []string
	received := int64(0)
	for _, h := range l.hooks {
		device, ingress := strings.CutPrefix(h.Name, "wire ingress ")
		if !ingress || !h.Attached {
			continue
		}
		if way, _, _ := strings.Cut(h.Why, " "); way != "xdp" {
			return
		}
		names = append(names, device)
		for _, t := range l.host.links {
			if t.name == device {
				received += t.counters.sum["rx_packets"]
			}
		}
	}
	t := l.classes[In]
	if len(names) == 0 || t == nil {
		return
	}
	seen := int64(0)
	for _, n := range t.total() {
		seen += n
	}
	c := Check{Source: fromLink, Counter: "rx_packets of " + strings.Join(names, ", "), Ledger: seen, Kernel: received,
		Tolerance: max(64, received/100)}
	c.Agrees = max(seen-received, received-seen) <= c.Tolerance
	k.Checks = append(k.Checks, c)
}
