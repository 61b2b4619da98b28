// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"strings"
)

const fromLink = "rtnetlink"

// holdLinks compares the packets that native XDP saw arrive with what the devices say they received.
// The two are read at different moments while packets arrive, so they are only held to within a
// hundredth or 64 packets, and what lies beyond is shown but is no disagreement: a device may count
// frames that it loses later. Behind GRO there is nothing to compare: merged packets count as one. Nor is
// there where a device came or went during the run: nobody has read what it received before its first
// reading and after its last.
func (l *Ledger) holdLinks(k *Kernel) {
	if l.host.now == nil || !l.packetsSeen || l.rehooked {
		return
	}
	var names []string
	received := int64(0)
	for _, h := range l.hooks {
		device, ingress := ingressHook(h)
		if !ingress {
			continue
		}
		if way, _, _ := strings.Cut(h.Why, " "); way != "xdp" {
			return
		}
		names = append(names, device)
		had := false
		for _, t := range l.host.links {
			if t.name != device {
				continue
			}
			if had {
				return // made anew
			}
			had = true
			received += t.counters.sum["rx_packets"]
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

// ingressHook names the device that a hook which is attached sees packets arrive on.
func ingressHook(h Hook) (device string, ok bool) {
	device, ok = strings.CutPrefix(h.Name, "wire ingress ")
	return device, ok && h.Attached
}

// ingressHooks names the devices of all such hooks.
func ingressHooks(hooks []Hook) (devices []string) {
	for _, h := range hooks {
		if d, ok := ingressHook(h); ok {
			devices = append(devices, d)
		}
	}
	return devices
}
