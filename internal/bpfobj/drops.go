// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem drops -type drops_key -type drops_count -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Drops ../../bpf/drops.bpf.c

// The kernel's types of bpf/lib/drops_abi.h.
type (
	DropsKey   = DropsDropsKey
	DropsCount = DropsDropsCount
)

// DropsRecord is struct drops_record, which no map holds.
type DropsRecord struct {
	Key    DropsKey
	Packet struct {
		Src, Dst     [16]uint8
		TimeNs       uint64
		Length       uint32
		Sport, Dport uint16
		Family       uint8
		Pad          [7]uint8
	}
	Packets uint32
	CPU     uint32
}

// Values of DropsKey.SaFrom: enum drops_sa_from.
const (
	DropsSANone = iota
	DropsSADecrypted
	DropsSAHeader
	DropsSARoute
)

// Bits of DropsKey.Flags: DROPS_FLAG_*.
const (
	DropsNoNetns = 1 << 0
	DropsFolded  = 1 << 1
)

// DropsFilters is how many values each filter has room for: DROPS_FILTERS.
const DropsFilters = 8

// DropsStacks is how many different kernel stacks are kept where stacks are asked for.
const DropsStacks = 4096

// DropsInterface is struct drops_interface.
type DropsInterface struct {
	Name  [16]byte
	Index uint32 // 0: there is no such device now
	_     uint32
}

// dropsPrefix is struct drops_prefix.
type dropsPrefix struct{ Addr, Mask [2]uint64 }

// DropsConfig is what the program of `drops` is told before it is loaded. Empty filters let everything pass.
type DropsConfig struct {
	HasReason  bool   // the kernel has enum skb_drop_reason
	AllNetns   bool   // packets of every network namespace
	Stacks     bool   // tell drops apart by kernel stack too
	Follow     uint32 // live records per CPU and second; 0: none
	Reasons    []uint32
	SPIs       []uint32
	Interfaces []DropsInterface
	Prefixes   []netip.Prefix
	NATTPorts  []uint16 // nil: as compiled
}

// ConfigureDrops writes it into the object.
func ConfigureDrops(spec *ebpf.CollectionSpec, c DropsConfig) error {
	var prefixes [DropsFilters]dropsPrefix
	for i, p := range c.Prefixes {
		if i < len(prefixes) {
			prefixes[i].Addr, prefixes[i].Mask = peerWords(p)
		}
	}
	var reasons, spis [DropsFilters]uint32
	copy(reasons[:], c.Reasons)
	copy(spis[:], c.SPIs)
	var interfaces [DropsFilters]DropsInterface
	copy(interfaces[:], c.Interfaces)
	var ports [8]uint16
	if copy(ports[:], c.NATTPorts) == 0 {
		ports[0] = 4500
	}
	for what, n := range map[string]int{
		"reasons": len(c.Reasons), "SPIs": len(c.SPIs), "interfaces": len(c.Interfaces), "prefixes": len(c.Prefixes),
		"UDP encapsulation ports": len(c.NATTPorts),
	} {
		if n > DropsFilters {
			return fmt.Errorf("filter drops: %d %s, room for %d", n, what, DropsFilters)
		}
	}
	for name, value := range map[string]any{
		"cfg_has_reason": flag(c.HasReason), "cfg_all_netns": flag(c.AllNetns), "cfg_follow": c.Follow,
		"cfg_reasons_len": uint32(len(c.Reasons)), "cfg_reasons": reasons,
		"cfg_spis_len": uint32(len(c.SPIs)), "cfg_spis": spis,
		"cfg_interfaces_len": uint32(len(c.Interfaces)), "cfg_interfaces": interfaces,
		"cfg_prefixes_len": uint32(len(c.Prefixes)), "cfg_prefixes": prefixes,
		"cfg_natt_ports": ports,
	} {
		v, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("set %s of the drops program: the object has no such variable", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set %s of the drops program: %w", name, err)
		}
	}
	if c.Follow == 0 {
		spec.Maps["drops_ring"].MaxEntries = 64 << 10
	}
	return nil
}
