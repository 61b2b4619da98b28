// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"

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
	part: func(coll *ebpf.Collection, f facts) (reader.Part, error) {
		src := reader.DropSource{Host: coll.Maps["host_drops"], Stray: coll.Maps["stray_drops"], Reason: f.tables.ReasonName}
		if f.symbols != nil {
			src.Location = (&lateSymbols{known: f.symbols, asked: map[uint64]bool{}}).name
		}
		return src.Part()
	},
}

// lateSymbols knows the functions of modules too that were loaded after the symbols were first read,
// as the firewall's are with its first rule. The reader calls it under its lock.
type lateSymbols struct {
	known *kernel.Symbols
	asked map[uint64]bool // addresses for which the table was read anew
}

func (l *lateSymbols) name(address uint64) string {
	name := l.known.Name(address)
	if !strings.HasPrefix(name, "0x") || l.asked[address] {
		return name
	}
	l.asked[address] = true
	// A table that could be read before and cannot now leaves the address without a name.
	if fresh, err := kernel.LoadSymbols(); err == nil {
		l.known = fresh
	}
	return l.known.Name(address)
}
