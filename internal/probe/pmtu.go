// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"slices"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/reader"
)

// pmtuObject watches where packets do not fit: bpf/pmtu.bpf.c.
var pmtuObject = object{
	name: "pmtu",
	load: bpfobj.LoadPMTU,
	funcs: []stackPlace{
		{"icmp_send", "__icmp_send",
			"IPv4 packets that are too big for the tunnel are not seen, nor what reassembly gave up"},
		{"icmp_out", "icmp_out_count",
			"fragmentation-needed messages that a policy swallows are not told from those that left"},
		{"icmp6_send", "icmp6_send",
			"IPv6 packets that are too big for the tunnel are not seen, nor what reassembly gave up"},
		{"local_error4", "xfrm4_local_error",
			"IPv4 packets of this host's own sockets that are too big for the tunnel are not seen"},
		{"local_error6", "xfrm6_local_error",
			"IPv6 packets of this host's own sockets that are too big for the tunnel are not seen"},
		{"esp4_told", "xfrm4_esp_err", "fragmentation-needed messages about ESP over IPv4 are not seen"},
		{"esp6_told", "xfrm6_esp_err", "packet-too-big messages about ESP over IPv6 are not seen"},
		{"udp4_told", "udp_err", "fragmentation-needed messages about ESP in UDP over IPv4 are not seen"},
		{"route4_takes", "__ip_rt_update_pmtu", "what IPv4 routes learn of the path MTU is known from the routes only"},
		{"route6_takes", "rt6_do_update_pmtu", "what IPv6 routes learn of the path MTU is known from the routes only"},
		{"ip4_cuts", "ip_do_fragment", "IPv4 packets that are fragmented are counted by the kernel only, not per SA"},
		{"ip6_cuts", "ip6_fragment", "IPv6 packets that are fragmented are counted by the kernel only, not per SA"},
	},
	extra: func(caps Capabilities) []Hook {
		// Until UDP-Lite went (7.x) udpv6_err is inline, which the kernel never lets anybody trace, and the
		// function that it calls has more arguments than fentry takes before 6.6. Afterwards it is whole.
		h := functionHook(caps, stackPlace{"udp6_whole", "udpv6_err", "packet-too-big messages about ESP in UDP over IPv6 are not seen"})
		if len(h.Try) > 0 && !refused(caps.Kprobe) {
			h.Try = slices.Insert(h.Try, 0, Candidate{Program: "udp6_told" + bpfobj.KprobeSuffix, Way: WayKprobe})
		}
		return []Hook{h}
	},
	configure: func(spec *ebpf.CollectionSpec, _ facts, o Options) error {
		return bpfobj.ConfigurePMTU(spec, o.NATTPorts)
	},
	part:  func(coll *ebpf.Collection, _ facts) (reader.Part, error) { return pmtuMaps(coll).Part, nil },
	aging: func(coll *ebpf.Collection, _ facts) ([]reader.Aging, error) { return pmtuMaps(coll).Aging(), nil },
}

func pmtuMaps(coll *ebpf.Collection) reader.PMTUMaps {
	return reader.PMTUMaps{Own: coll.Maps["pmtu_own"], Told: coll.Maps["pmtu_told"], Totals: coll.Maps["pmtu_totals"]}
}
