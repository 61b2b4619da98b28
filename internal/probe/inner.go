// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/reader"
)

// inner follows TCP inside the tunnels. Its hooks run for every packet of an SA, so it can be left out.
var inner = object{
	name: "inner",
	load: bpfobj.LoadInner,
	funcs: []stackPlace{
		{"inner_in", "gro_cells_receive",
			"TCP inside inbound tunnels is not followed: receive windows, retransmissions and round trips of one direction are not seen"},
		{"inner_in4", "xfrm4_transport_finish", "the same for inbound transport mode over IPv4"},
		{"inner_in6", "xfrm6_transport_finish", "the same for inbound transport mode over IPv6"},
		{"inner_out", "xfrm_output",
			"TCP inside outbound SAs is not followed: receive windows, retransmissions and round trips of one direction are not seen"},
	},
	part: func(coll *ebpf.Collection, _ facts) (reader.Part, error) {
		spec, err := bpfobj.LoadInner()
		if err != nil {
			return nil, err
		}
		names, err := bpfobj.EnumNames(spec, "inner_fate")
		if err != nil {
			return nil, err
		}
		maps := reader.InnerMaps{Flows: coll.Maps["inner_flows"], Fates: coll.Maps["inner_fates"], Names: names}
		return maps.Part, nil
	},
	unwanted: func(o Options) bool { return o.NoInner },
}
