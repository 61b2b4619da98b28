// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/reader"
)

// dropHook is the drop program's name among the hooks; the stack's own program on the same tracepoint
// is called kfree_skb.
const dropHook = "kfree_skb outside xfrm"

// dropObject sees what the kernel drops of IPsec outside xfrm's own counters.
var dropObject = object{
	name: "drop",
	load: bpfobj.LoadDrop,
	raw: []stackPlace{{"host_drop", dropHook,
		"packets that this host drops before xfrm, after decryption and on their way out are not observed: " +
			"lost_in_host, inner_dropped and lost_in_host_egress are unknown"}},
	configure: func(spec *ebpf.CollectionSpec, f facts, o Options) error {
		return bpfobj.ConfigureDrop(spec, len(f.tables.Reasons) > 0, o.NATTPorts)
	},
	part: func(coll *ebpf.Collection, f facts) (reader.Part, error) { return dropSource(coll, f).Part() },
	aging: func(coll *ebpf.Collection, f facts) ([]reader.Aging, error) {
		a, err := dropSource(coll, f).Aging()
		return []reader.Aging{a}, err
	},
}

func dropSource(coll *ebpf.Collection, f facts) reader.DropSource {
	src := reader.DropSource{Host: coll.Maps["host_drops"], Stray: coll.Maps["stray_drops"], Reason: f.tables.ReasonName}
	if f.symbols != nil {
		src.Location = kernel.NewLateSymbols(f.symbols).Name
	}
	return src
}
