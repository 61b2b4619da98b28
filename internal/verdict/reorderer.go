// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// reorderer is who put an SA's packets out of order, as far as the vantage points tell.
type reorderer struct {
	sentence string
	evidence []Evidence
	remedy   []Remedy
}

// whoReorders compares the order on the wire, on each CPU and in xfrm. What is late on the CPU that
// received the higher number came late from the path; what is in order on each CPU and late of all was
// overtaken here; what the wire saw in order and xfrm late was overtaken between the two.
func whoReorders(sa *ledger.SA, l lateness) reorderer {
	w := sa.Sequence()
	if w == nil {
		return reorderer{}
	}
	cpus := slices.Sorted(maps.Keys(sa.CPUs))
	e := []Evidence{{"wire.late_across_cpus", w.LateAcrossCPUs, "packets", "wire", "late ones that came in order on their own CPU"}}
	if len(cpus) > 0 {
		e = append(e, Evidence{"cpus", int64(len(cpus)), "CPUs", "wire", "saw this SA's packets: " + cpuShares(sa, cpus)})
	}
	switch {
	case l.within:
		return reorderer{
			"The order is lost inside this host: the wire saw no packet that late.", e,
			[]Remedy{{
				For: forHost,
				Text: "The wire saw no packet that late, so the order is lost inside this host: receive packet steering " +
					"that spreads one SA, or parallel crypto (pcrypt, hardware queues). Mending that costs no security; a larger " +
					"window only hides it.",
				Commands: []string{"grep . /sys/class/net/*/queues/rx-*/rps_cpus", "grep -B1 -A3 pcrypt /proc/crypto"},
			}},
		}
	case w.Late > 0 && 2*w.LateAcrossCPUs > w.Late:
		return reorderer{
			fmt.Sprintf("The CPUs of this host overtake each other: %d of %d late packets came in order on their own CPU.", w.LateAcrossCPUs, w.Late), e,
			[]Remedy{{
				For: forHost,
				Text: "Keep each SA on one receive queue: let the card hash by SPI or by addresses alone, undo per-packet steering, and bond " +
					"by a hash, never round-robin. That costs no security; a larger window only hides it.",
				Commands: []string{
					"ethtool -N <interface> rx-flow-hash esp4 sdfn  # addresses and SPI; where the card cannot: sd",
					"ethtool -N <interface> rx-flow-hash udp4 sd    # ESP in UDP: one pair of ports anyway",
					"grep . /sys/class/net/*/queues/rx-*/rps_cpus",
					"grep -H . /sys/class/net/*/bonding/mode        # not balance-rr",
				},
			}},
		}
	case w.Late == 0:
		return reorderer{evidence: e}
	}
	r := reorderer{"The path reorders: the packets reached this host in that order.", e, nil}
	if len(w.DSCPs) > 1 {
		r.sentence = fmt.Sprintf("The path reorders, and the SA mixes %d DSCPs (%s), which queues on the way treat differently.", len(w.DSCPs), joinInts(w.DSCPs))
		r.evidence = append(r.evidence, Evidence{"wire.dscps", int64(len(w.DSCPs)), "DSCPs", "wire", joinInts(w.DSCPs)})
		r.remedy = []Remedy{{
			For: forStrongSwan,
			Text: "On the sender: one DSCP for the whole SA, or an SA for each class (RFC 4301 section 4.1). The first hides the class from the path, " +
				"the second costs SAs; neither costs security, and neither needs a larger window.",
			Commands: []string{"connections.<conn>.children.<child>.copy_dscp = no"},
		}}
	}
	r.remedy = append(r.remedy, Remedy{
		For: forPath,
		Text: "Look for links of unequal delay that are shared packet by packet (per-packet ECMP, round-robin bonds, multilink) and let them share by flow. " +
			"Mending the path costs no security.",
		Commands: []string{"sysctl net.ipv4.fib_multipath_hash_policy   # on Linux routers: any value shares by flow"},
	})
	return r
}

func cpuShares(sa *ledger.SA, cpus []int) string {
	var all int64
	for _, n := range sa.CPUs {
		all += n
	}
	slices.SortStableFunc(cpus, func(a, b int) int { return int(min(1, max(-1, sa.CPUs[b]-sa.CPUs[a]))) })
	var out []string
	for i, cpu := range cpus {
		if i == 4 {
			out = append(out, fmt.Sprintf("%d more", len(cpus)-i))
			break
		}
		out = append(out, fmt.Sprintf("CPU %d %s", cpu, share(sa.CPUs[cpu], all)))
	}
	return strings.Join(out, ", ")
}

func joinInts(v []int) string {
	var out []string
	for _, n := range v {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ", ")
}
