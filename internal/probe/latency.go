// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/reader"
)

// latency measures how long packets spend in xfrm, if asked to: its hooks run for every packet.
var latency = object{
	name: "latency",
	load: bpfobj.LoadLatency,
	funcs: []stackPlace{
		{"input", "xfrm_input", "the time that inbound packets spend in xfrm is not known"},
		{"input_done", "gro_cells_receive", "the time that inbound packets of tunnel mode spend in xfrm is not known"},
		{"input_done4", "xfrm4_transport_finish", "the same of transport mode over IPv4"},
		{"input_done6", "xfrm6_transport_finish", "the same of transport mode over IPv6"},
		{"output", "xfrm_output", "the time that outbound packets spend in xfrm is not known"},
		{"output_done", "__ip_local_out", "the same over IPv4"},
		{"output_done6", "__ip6_local_out", "the same over IPv6"},
	},
	aging: func(coll *ebpf.Collection, _ facts) ([]reader.Aging, error) {
		return reader.LatencyMaps{Counts: coll.Maps["latency_counts"]}.Aging(), nil
	},
	part: func(coll *ebpf.Collection, _ facts) (reader.Part, error) {
		spec, err := bpfobj.LoadLatency()
		if err != nil {
			return nil, err
		}
		names, err := bpfobj.EnumNames(spec, "latency_miss")
		if err != nil {
			return nil, err
		}
		m := reader.LatencyMaps{Counts: coll.Maps["latency_counts"], Misses: coll.Maps["latency_misses"], Names: names}
		return m.Part, nil
	},
	unwanted: func(o Options) bool { return !o.Latency },
}
