// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"slices"

	"github.com/cilium/ebpf"
)

// Stack reads a kernel stack from a table of stacks, innermost function first. It begins with the function
// that location lies in, if it is there: what is before that is the tracepoint's own. nil: the table no
// longer has it.
func Stack(table *ebpf.Map, id uint32, location uint64, name func(uint64) string) []string {
	addresses := make([]uint64, table.ValueSize()/8)
	if err := table.Lookup(id, addresses); err != nil {
		return nil
	}
	if end := slices.Index(addresses, 0); end >= 0 {
		addresses = addresses[:end]
	}
	if first := slices.Index(addresses, location); first > 0 {
		addresses = addresses[first:]
	}
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = name(a)
	}
	return out
}
