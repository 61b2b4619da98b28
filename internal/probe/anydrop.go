// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
)

// AnyDropHook is the name of the hook without which there is nothing to attribute.
const AnyDropHook = "kfree_skb of every packet"

// anyDrop sees whatever the kernel drops: bpf/drops.bpf.c. Only `drops` asks for it.
var anyDrop = object{
	name:    "drops",
	load:    bpfobj.LoadDrops,
	raw:     []stackPlace{{"any_drop", AnyDropHook, "drops are not observed"}},
	unaided: true,
	configure: func(spec *ebpf.CollectionSpec, _ facts, o Options) error {
		return bpfobj.ConfigureDrops(spec, *o.Drops)
	},
}

// Drops are the maps of the object that attributes drops of every kind; nil: it is not attached.
func (s *Set) Drops() map[string]*ebpf.Map {
	for _, o := range s.objects {
		if o.name == anyDrop.name {
			return o.coll.Maps
		}
	}
	return nil
}
