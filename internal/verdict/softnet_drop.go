// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// SoftnetDrop is packets that found the backlog of a CPU full (enqueue_to_backlog).
const SoftnetDrop ID = "softnet-drop"

func softnetDrop(r *ledger.Report) []Finding {
	if r.Host == nil {
		return nil
	}
	total, limited, worst := int64(0), int64(0), ledger.CPUReport{}
	for _, c := range r.Host.CPUs {
		total, limited = total+c.Dropped, limited+c.FlowLimit
		if c.Dropped > worst.Dropped {
			worst = c
		}
	}
	if total <= 0 {
		return nil
	}
	var out []Finding
	for _, l := range carriers(r) {
		// The kernel counts each of them at its device too, among other things.
		dropped, sas := l.Counters["rx_dropped"], onLink(r, l, ledger.In)
		if dropped <= 0 || len(sas) == 0 {
			continue
		}
		n, base := min(total, dropped), counted
		if dropped == total {
			base = witnessed
		}
		of := l.Counters["rx_packets"] + n
		backlog := sysctl(r, "net/core/netdev_max_backlog")
		f := Finding{
			ID: SoftnetDrop, Severity: pathSeverity(n, of), Confidence: sure(base), Subject: at(l, sas),
			Summary: fmt.Sprintf("The backlog of CPU %d overflowed: %s that arrived on %s were dropped before the stack took them up.",
				worst.ID, packets(n), l.Name),
			Evidence: []Evidence{
				{"host.cpus.dropped", total, "packets", "softnet_stat", "on all CPUs, of all devices and namespaces"},
				{fmt.Sprintf("host.cpus.%d.dropped", worst.ID), worst.Dropped, "packets", "softnet_stat", ""},
				{"host.links." + l.Name + ".rx_dropped", dropped, "packets", "rtnetlink", "also counts frames of protocols that nobody listens to"},
			},
		}
		if backlog > 0 {
			f.Evidence = append(f.Evidence, Evidence{"net.core.netdev_max_backlog", backlog, "packets", "sysctl", "for each CPU"})
		}
		if limited > 0 {
			f.Evidence = append(f.Evidence, Evidence{"host.cpus.flow_limit", limited, "packets", "softnet_stat",
				"dropped because one flow had half of the backlog (net.core.flow_limit_cpu_bitmap): ESP between two gateways is one flow"})
		}
		if lost := lostOnPath(sas); lost > 0 {
			f.Evidence = append(f.Evidence, Evidence{"ledger.lost_on_path", lost, "packets", "wire",
				"the backlog stands before the hook where that is TC or generic XDP, so that its drops look like the path's"})
			// Native XDP stands before the backlog: what it misses was lost before.
			if 2*n < lost || ingressWay(r, l.Name) == "xdp" {
				f.spares = []ID{PathLoss}
			}
		}
		attribute(r, &f, l, ledger.PlaceBacklog, n)
		f.Remedy = []Remedy{
			{For: forHost, Text: "Give the backlog more room, if these are bursts.",
				Commands: []string{fmt.Sprintf("sysctl -w net.core.netdev_max_backlog=%d", max(2*backlog, 2000))}},
			{For: forHost,
				Text:     fmt.Sprintf("If CPU %d is busy all the time, give its work to more CPUs: receive queues where the device has them, else RPS.", worst.ID),
				Commands: []string{"ethtool -l " + l.Name, fmt.Sprintf("echo <mask> > /sys/class/net/%s/queues/rx-0/rps_cpus", l.Name)}},
		}
		out = append(out, f)
	}
	return out
}
