// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// CPUSaturatedBySA is one CPU that is busy with one SA and can take no more.
const CPUSaturatedBySA ID = "cpu-saturated-by-sa"

// SoftirqBacklog is a CPU without time left for the network, whoever keeps it busy.
const SoftirqBacklog ID = "softirq-backlog"

const (
	// saturated is from what share of its time in softirq a CPU has nothing left to give. The
	// kernel counts it by clock ticks, so runs shorter than minCPUSeconds say nothing.
	saturated     = 90
	minCPUSeconds = 2
	// An SA is the cause where it has at least half of the packets of all SAs on the CPU, and at least
	// so much of its own is there, and the SAs together are a quarter of all the CPU handled: a packet
	// is handled up to three times (encrypted, decrypted, on an xfrm interface).
	ownShare   = 80
	minSAShare = 25
)

// load is one busy CPU and what the SAs have to do with it.
type load struct {
	cpu  ledger.CPUReport
	all  int64      // packets of all SAs on it
	top  *ledger.SA // the one with the most
	idle int        // CPUs that are less than half as busy
}

// saturatedCPUs finds the CPUs that have no time left and that SAs' packets went through.
func saturatedCPUs(r *ledger.Report) []load {
	var out []load
	if r.Host == nil || r.Source.DurationS < minCPUSeconds {
		return nil
	}
	for _, c := range r.Host.CPUs {
		if c.SoftirqPercent < saturated {
			continue
		}
		l := load{cpu: c}
		for i := range r.SAs {
			sa := &r.SAs[i]
			n := sa.CPUs[c.ID]
			l.all += n
			if n > 0 && (l.top == nil || n > l.top.CPUs[c.ID]) {
				l.top = sa
			}
		}
		for _, other := range r.Host.CPUs {
			if other.BusyPercent < saturated/2 {
				l.idle++
			}
		}
		if l.top != nil {
			out = append(out, l)
		}
	}
	return out
}

// dominated says whether one SA is what the CPU is busy with.
func (l load) dominated() bool {
	here, everywhere := l.top.CPUs[l.cpu.ID], int64(0)
	for _, n := range l.top.CPUs {
		everywhere += n
	}
	return 2*here >= l.all && 100*here >= ownShare*everywhere && 100*l.all >= minSAShare*l.cpu.Processed
}

func (l load) evidence() []Evidence {
	at := fmt.Sprintf("host.cpus.%d.", l.cpu.ID)
	return []Evidence{
		{at + "softirq_percent", int64(l.cpu.SoftirqPercent), "percent", "/proc/stat", "of its time, by clock ticks"},
		{at + "processed", l.cpu.Processed, "packets", "softnet_stat", "a decapsulated packet is handled once more"},
		{at + "squeezed", l.cpu.Squeezed, "times", "softnet_stat", "the receive loop ended with work left"},
		{at + "dropped", l.cpu.Dropped, "packets", "softnet_stat", ""},
		{"host.cpus.idle", int64(l.idle), "CPUs", "/proc/stat", "less than half as busy"},
	}
}

func cpuSaturatedBySA(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range saturatedCPUs(r) {
		if !l.dominated() {
			continue
		}
		sa, here := l.top, l.top.CPUs[l.cpu.ID]
		f := Finding{
			ID: CPUSaturatedBySA, Severity: Warning, Confidence: sure(counted), Subject: about(sa),
			Summary: fmt.Sprintf("CPU %d spends %.0f %% of its time in softirq, and %s is %s of the ESP it handles: this SA can get no faster. %s",
				l.cpu.ID, l.cpu.SoftirqPercent, who(sa), share(here, l.all), l.others()),
			Evidence: append([]Evidence{
				{fmt.Sprintf("cpus.%d", l.cpu.ID), here, "packets", "wire", "of this SA"},
				{fmt.Sprintf("cpus.%d of all SAs", l.cpu.ID), l.all, "packets", "wire", ""},
			}, l.evidence()...),
			Remedy: saturationRemedies(r, sa),
		}
		// Where no CPU has time left there is nothing to spread.
		if l.idle == 0 && l.cpu.Dropped == 0 {
			f.Severity = Info
		}
		out = append(out, f)
	}
	return out
}

func (l load) others() string {
	switch l.idle {
	case 0:
		return "No other CPU has much time left."
	case 1:
		return "Another CPU is less than half as busy."
	}
	return fmt.Sprintf("%d other CPUs are less than half as busy.", l.idle)
}

func softirqBacklog(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range saturatedCPUs(r) {
		if l.dominated() {
			continue
		}
		f := Finding{
			ID: SoftirqBacklog, Severity: Info, Confidence: sure(counted),
			Summary: fmt.Sprintf("CPU %d spends %.0f %% of its time in softirq; ESP of the SAs is %s of what it handles, and no single SA is the cause. %s",
				l.cpu.ID, l.cpu.SoftirqPercent, share(min(l.all, l.cpu.Processed), l.cpu.Processed), l.others()),
			Evidence: append([]Evidence{{fmt.Sprintf("cpus.%d of all SAs", l.cpu.ID), l.all, "packets", "wire", ""}}, l.evidence()...),
			Remedy: []Remedy{
				{For: forHost, Text: "Spread the receive queues over more CPUs, and keep their interrupts there.",
					Commands: []string{"ethtool -l <device>", "cat /proc/interrupts", "mpstat -P ALL 1"}},
				{For: forHost, Text: "Where the device has one queue only, RPS hands packets on to other CPUs by flow.",
					Commands: []string{"echo <mask> > /sys/class/net/<device>/queues/rx-0/rps_cpus"}},
			},
		}
		if l.cpu.Dropped > 0 {
			f.Severity = Warning
		}
		out = append(out, f)
	}
	return out
}

func saturationRemedies(r *ledger.Report, sa *ledger.SA) []Remedy {
	var out []Remedy
	if slices.ContainsFunc(sa.Algorithms, func(a string) bool { return strings.Contains(a, "cbc(") }) {
		out = append(out, Remedy{For: forStrongSwan,
			Text:     "CBC with a separate hash reads each packet twice and cannot be encrypted in parallel. AES-GCM does both in one pass, several times as fast on current CPUs.",
			Commands: []string{"connections.<conn>.children.<child>.esp_proposals = aes128gcm16-x25519"}})
	}
	out = append(out,
		Remedy{For: forStrongSwan,
			Text: "All packets of an SA share one sequence, and cards put them in one queue. Several SAs, one for each CPU, are what spreads " +
				"the load (RFC 9611): strongSwan from 6.0.2 on Linux from 6.13, both ends.",
			Commands: []string{"connections.<conn>.children.<child>.per_cpu_sas = yes"}},
		Remedy{For: forStrongSwan, Text: "On older versions, several child SAs with narrower traffic selectors do the same by subnet.",
			Commands: []string{"connections.<conn>.children.<child2>.local_ts = <part of the network>"}})
	if l := r.Host.Link(sa.Ifindex); l != nil {
		queue := fmt.Sprintf("%s has %d receive queues", l.Name, max(l.RxQueues, 1))
		on := slices.ContainsFunc(l.RPS, func(mask string) bool { return strings.Trim(mask, "0,") != "" })
		if on {
			queue += "; RPS is on"
		} else if l.RPS != nil {
			queue += "; RPS is off"
		}
		out = append(out, Remedy{For: forHost,
			Text: queue + ". RPS moves decryption away from the CPU that takes the interrupts, but keeps one SA on one CPU. " +
				"With several SAs let the card hash by SPI.",
			Commands: []string{
				fmt.Sprintf("echo <mask> > /sys/class/net/%s/queues/rx-0/rps_cpus", l.Name),
				fmt.Sprintf("ethtool -N %s rx-flow-hash esp4 sdfn", l.Name),
			}})
		if supported, known := l.Features["esp-hw-offload"]; known && !supported {
			out = append(out, Remedy{For: forHost, Text: "A card with ESP offload takes the cipher off the CPU; this one has it off or has none.",
				Commands: []string{"ethtool -k " + l.Name + " | grep esp"}})
		}
	}
	return append(out, Remedy{For: forPeer, Text: "Several tunnels with narrower selectors or different peers' addresses spread the load where the peer knows no RFC 9611."})
}
