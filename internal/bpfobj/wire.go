// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// The kernel's types of bpf/lib/abi.h. Both builds of the wire program share them.
type (
	SAKey        = LockfreeSaKey
	SAState      = LockfreeSaState
	SACount      = LockfreeSaCount
	ByDirection  = LockfreeByDirection
	Event        = LockfreeEvent
	OfflineMeta  = LockfreeOfflineMeta
	KeepaliveKey = LockfreeKeepaliveKey
	Keepalive    = LockfreeKeepalive
	Why          = LockfreeWhy
	Aside        = LockfreeAside
	Lost         = LockfreeLost
	EventKind    = LockfreeEventKind
)

// SeqBias is SEQ_BIAS: what the kernel adds to sequence numbers, so that those before the first one
// seen stay positive.
const SeqBias = 1 << 32

// LoadWire returns the wire program: the lock-free build, which needs atomic compare-and-exchange
// (kernel 5.12), or the one with a spin lock for each SA.
func LoadWire(lockfree bool) (*ebpf.CollectionSpec, error) {
	if lockfree {
		return LoadLockfree()
	}
	return LoadLocked()
}

// SetSAMax sets how many SAs the wire program's tables hold.
func SetSAMax(spec *ebpf.CollectionSpec, n uint32) error {
	for _, name := range []string{"sa_slots", "sa_states", "sa_counts", "free_slots"} {
		m, ok := spec.Maps[name]
		if !ok {
			return fmt.Errorf("size map %s: not in the object", name)
		}
		m.MaxEntries = n
	}
	for name, share := range map[string]uint32{"known_sas": 1, "kept_slots": keptShare} {
		m, ok := spec.Maps[name]
		if !ok {
			return fmt.Errorf("size map %s: not in the object", name)
		}
		m.MaxEntries = max(n/share, 1)
	}
	if locks, ok := spec.Maps["sa_locks"]; ok {
		locks.MaxEntries = n
	}
	return nil
}

// keptShare is KEPT_SHARE: one slot of so many can be set aside.
const keptShare = 8

// FillSlots gives the wire program its free slots. It must be called once, after loading and before
// the first packet.
func FillSlots(coll *ebpf.Collection) error {
	free, ok := coll.Maps["free_slots"]
	if !ok {
		return fmt.Errorf("fill free_slots: not in the collection")
	}
	for slot := range free.MaxEntries() {
		if err := free.Put(nil, slot); err != nil {
			return fmt.Errorf("put slot %d into free_slots: %w", slot, err)
		}
	}
	return nil
}

// KeepSlots sets slots aside for SAs that the kernel's database has; it comes right after FillSlots, for a reader
// that fills known_sas.
func KeepSlots(coll *ebpf.Collection) error {
	free, kept := coll.Maps["free_slots"], coll.Maps["kept_slots"]
	if free == nil || kept == nil {
		return fmt.Errorf("set slots aside: free_slots or kept_slots is not in the collection")
	}
	for range min(kept.MaxEntries(), free.MaxEntries()/2) {
		var slot uint32
		if err := free.LookupAndDelete(nil, &slot); err != nil {
			return fmt.Errorf("take a slot from free_slots: %w", err)
		}
		if err := kept.Put(nil, slot); err != nil {
			return fmt.Errorf("put slot %d into kept_slots: %w", slot, err)
		}
	}
	return nil
}
