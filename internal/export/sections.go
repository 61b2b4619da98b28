// SPDX-License-Identifier: Apache-2.0

package export

import (
	"slices"
	"strings"
	"unicode"

	"xfrmscope/internal/ledger"
)

// The metrics that are not bins of the ledger.
var (
	mXfrmByCause = counter("xfrm_drop_packets", unitPackets,
		"Packets that xfrm dropped, by cause. A series begins with the first drop of its cause.", withTunnel("cause")...)
	mHostDrops = counter("host_drop_packets", unitPackets,
		"Packets that this host dropped outside xfrm, by where and why. stage: before xfrm, on the inner path, or at egress; "+
			"reason: the kernel's drop reason, from 5.17 on. A series begins with the first drop.",
		"stage", "place", "function", "reason")
	mSAs    = gauge("sas", "{sa}", "SAs in the kernel's database; without one, SAs seen on the wire.", tunnelLabels...)
	mSAInfo = gauge("sa_info", unitOne, "1 for each SA that is alive; what the tunnel's series do not say.",
		withTunnel("spi", "proto", "mode", "encap", "algorithms", "replay_window", "esn", "if_id", "connection", "child")...)
	mRekeys    = counter("rekeys", "{rekey}", "SAs that took over from others.", tunnelLabels...)
	mPathMTU   = gauge("path_mtu_bytes", unitBytes, "Largest outer packet that is known to fit to the peer.", "local", "peer", "reqid")
	mInnerMTU  = gauge("inner_mtu_bytes", unitBytes, "Largest inner packet that goes through the path MTU.", "local", "peer", "reqid")
	mZero      = counter("inner_tcp_zero_window_seconds", unitSeconds, "Time in which ends of TCP connections inside the tunnel advertised a receive window of zero, summed over the connections. direction: of the SA that carries what this end sends.", tunnelLabels...)
	mRetrans   = counter("inner_tcp_retransmissions", "{segment}", "TCP segments inside the tunnel that were sent again.", tunnelLabels...)
	mSegments  = counter("inner_tcp_segments", "{segment}", "TCP segments with data inside the tunnel.", tunnelLabels...)
	mUnknown   = counter("unknown_spi_packets", unitPackets, "Packets that xfrm dropped because no SA had their SPI.")
	mStrangers = counter("stranger_packets", unitPackets, "ESP packets on the wire that belong to no SA of this host's database: passing through, left over from ended SAs, or forged.", "direction")
	mWithout   = counter("xfrm_drop_without_sa_packets", unitPackets, "Packets that xfrm dropped and whose SA could not be read, by cause.", "cause")
	mIKE       = counter("ike_messages", unitMessages, "IKE messages seen. sender: local or remote.", "local", "peer", "sender")
	mIKERepeat = counter("ike_retransmissions", unitMessages, "IKE requests sent again. requester: local or remote.", "local", "peer", "requester")
	mIKEFailed = counter("ike_unanswered_exchanges", "{exchange}", "IKE exchanges that were given up without an answer.", "local", "peer", "requester")

	mFinding = gauge("finding_active", "{subject}", "How many subjects a finding applies to at this time, as 'xfrmscope diagnose' would list them. 0: it does not.", "id", "severity")

	mBuild     = gauge("build_info", unitOne, "1, with the version.", "version", "goversion")
	mUp        = gauge("up", unitOne, "1 if the last snapshot was taken without an error. 0: the ledger's series are left out.")
	mHook      = gauge("hook_attached", unitOne, "1 if xfrmscope looks at this place in the kernel, 0 if it cannot; 'xfrmscope doctor' says why.", "hook")
	mLost      = counter("lost", "{event}", "Events and packets that xfrmscope could not account for, by cause. The cause 'suppressed' counts events withheld by the rate limit: they are counted elsewhere all the same.", "cause")
	mEvicted   = counter("evicted_sas", "{sa}", "Idle SAs folded away to free their slots in the kernel's table; their counts are kept.")
	mMisses    = counter("recursion_misses", "{run}", "Program runs that the kernel skipped.")
	mOverflow  = gauge("overflow_tunnels", "{tunnel}", "Tunnels beyond --max-tunnels, which are summed up under local, peer and reqid 'other'.")
	mRuns      = counter("bpf_runs", "{run}", "Runs of a program in the kernel. Counted only with --stats or sysctl kernel.bpf_stats_enabled.", "program")
	mRunTime   = counter("bpf_run_seconds", unitSeconds, "Time spent in a program in the kernel. Counted only with --stats or sysctl kernel.bpf_stats_enabled.", "program")
	mMapBytes  = gauge("bpf_map_bytes", unitBytes, "Memory of the kernel's tables.", "map")
	mSnapshots = counter("snapshots", "{snapshot}", "Snapshots taken.")
	mFailed    = counter("snapshot_errors", "{snapshot}", "Snapshots that failed.")
	mTook      = gauge("snapshot_duration_seconds", unitSeconds, "How long the last snapshot took.")
	mAge       = gauge("snapshot_timestamp_seconds", unitSeconds, "When the last snapshot was taken, in Unix time.")
	mTriggers  = counter("triggers", "{trigger}", "Captures and recordings that findings set off. result: taken, failed, or withheld by a limit.", "action", "result")
)

// kernelStat is the metric of a counter of /proc/net/xfrm_stat, spelled as node_exporter does.
func kernelStat(name string) *Metric {
	return &Metric{
		Name: "xfrmscope_" + snake(name) + "_packets_total", Kind: Counter, Unit: unitPackets,
		Help: "The kernel's own count " + name + " in /proc/net/xfrm_stat, since the network namespace began.",
	}
}

// snake writes XfrmInNoStates as xfrm_in_no_states.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// kernelStats are the counters that this build knows; those of a newer kernel are exported as well.
func kernelStats() []*Metric {
	var names []string
	for _, c := range ledger.Causes() {
		names = append(names, c.Counter())
	}
	slices.Sort(names)
	var out []*Metric
	for _, n := range slices.Compact(names) {
		out = append(out, kernelStat(n))
	}
	return out
}

func sections() []section {
	return []section{
		{"Inbound: what the peer sent and what became of it", "", metricsOf(inboundBins)},
		{"Outbound: what was to be sent and what became of it", "", metricsOf(outboundBins)},
		{"Both directions", "", metricsOf(bothBins)},
		{"Why packets were dropped", "", []*Metric{mXfrmByCause, mWithout, mHostDrops, mUnknown, mStrangers}},
		{"The tunnels", "", []*Metric{mSAs, mSAInfo, mRekeys, mPathMTU, mInnerMTU, mZero, mRetrans, mSegments}},
		{"IKE", "What the headers of IKE messages tell, seen at the wire hook.", []*Metric{mIKE, mIKERepeat, mIKEFailed}},
		{"Findings", "", []*Metric{mFinding}},
		{"The kernel's own counters", "Of a counter that this list does not have, because the kernel is newer, " +
			"the series is exported under the same spelling.", kernelStats()},
		{"xfrmscope itself", "Beside these stand process_* and go_* of the Prometheus client library: CPU time is " +
			"`process_cpu_seconds_total`, and promhttp_* tells of failed scrapes.",
			[]*Metric{mBuild, mUp, mHook, mLost, mEvicted, mMisses, mOverflow, mRuns, mRunTime, mMapBytes, mSnapshots, mFailed, mTook, mAge, mTriggers}},
	}
}
