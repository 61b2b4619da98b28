// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/cilium/ebpf"
)

// MapBytes is the memory of each of the set's maps, as the kernel accounts it. Maps that the kernel does not
// tell of are left out.
func (s *Set) MapBytes() map[string]uint64 {
	out := map[string]uint64{}
	seen := map[ebpf.MapID]bool{}
	add := func(maps map[string]*ebpf.Map) {
		for name, m := range maps {
			info, err := m.Info()
			if err != nil {
				continue
			}
			id, ok := info.ID()
			if !ok || seen[id] {
				continue
			}
			seen[id] = true
			if n, ok := info.Memlock(); ok {
				out[name] += n
			}
		}
	}
	if s.wire != nil {
		add(s.wire.maps.Maps)
	}
	if s.stack != nil {
		add(s.stack.coll.Maps)
	}
	for _, o := range s.objects {
		add(o.coll.Maps)
	}
	return out
}
