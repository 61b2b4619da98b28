// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// DropSource reads the drop object's counts in this kernel's names. A function that is nil gives none.
type DropSource struct {
	Host     *ebpf.Map                   // host_drops
	Stray    *ebpf.Map                   // stray_drops
	Location func(address uint64) string // function+0xoffset [module]
	Reason   func(number uint32) string
}

// dropNames are those of enum drop_stage and drop_hook (bpf/lib), from the compiled object.
func dropNames() (stages, hooks []string, err error) {
	spec, err := bpfobj.LoadDrop()
	if err != nil {
		return nil, nil, fmt.Errorf("load drop object: %w", err)
	}
	if stages, err = bpfobj.EnumNames(spec, "drop_stage"); err != nil {
		return nil, nil, err
	}
	if hooks, err = bpfobj.EnumNames(spec, "drop_hook"); err != nil {
		return nil, nil, err
	}
	hooks[0] = "" // none
	return stages, hooks, nil
}

// Part fills in Snapshot.HostDrops.
func (s DropSource) Part() (Part, error) {
	stages, hooks, err := dropNames()
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, snap *ledger.Snapshot) error {
		out := []ledger.HostDrop{}
		sum := map[ledger.DropID]uint64{}
		for _, m := range []*ebpf.Map{s.Host, s.Stray} {
			err := eachPerCPU(m, func(key bpfobj.DropKey, perCPU []uint64) {
				if id, ok := s.identify(&key, stages, hooks); ok {
					sum[id] += Sum(perCPU, add)
				}
			})
			if err != nil {
				return fmt.Errorf("read drops: %w", err)
			}
		}
		for id, n := range sum {
			out = append(out, ledger.HostDrop{DropID: id, Packets: n})
		}
		slices.SortFunc(out, func(a, b ledger.HostDrop) int {
			if c := compareKeys(a.Key, b.Key); c != 0 {
				return c
			}
			return strings.Compare(a.Function, b.Function)
		})
		snap.HostDrops = out
		return nil
	}, nil
}

// Aging are the tables that it is read from.
func (s DropSource) Aging() (Aging, error) {
	stages, hooks, err := dropNames()
	if err != nil {
		return Aging{}, err
	}
	before := map[ledger.DropID]uint64{}
	return Aging{"drops", func() (err error) {
		before, err = s.prune(before, func(k *bpfobj.DropKey) ledger.DropID {
			id, _ := s.identify(k, stages, hooks)
			return id
		})
		return err
	}}, nil
}

// prune makes room once one of the tables runs short of it, and returns what stands now. Several entries can
// be one drop in the ledger's words, in either table: they go together or not at all, so that what the ledger
// reads never goes back by a part.
func (s DropSource) prune(before map[ledger.DropID]uint64, identity func(*bpfobj.DropKey) ledger.DropID) (map[ledger.DropID]uint64, error) {
	tables := []*ebpf.Map{s.Host, s.Stray}
	now := map[ledger.DropID]uint64{}
	entries := make([]map[bpfobj.DropKey]ledger.DropID, len(tables))
	short := false
	for i, m := range tables {
		entries[i] = map[bpfobj.DropKey]ledger.DropID{}
		if err := eachPerCPU(m, func(key bpfobj.DropKey, perCPU []uint64) {
			id := identity(&key)
			entries[i][key] = id
			now[id] += Sum(perCPU, add)
		}); err != nil {
			return nil, err
		}
		short = short || crowded(len(entries[i]), m)
	}
	if !short {
		return now, nil
	}
	gone := map[ledger.DropID]bool{}
	for id, n := range now {
		was, ok := before[id]
		gone[id] = ok && was == n
	}
	for i, m := range tables {
		for key, id := range entries[i] {
			if !gone[id] {
				continue
			}
			delete(now, id)
			if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return nil, err
			}
		}
	}
	return now, nil
}

// identify puts a key into the ledger's words; false where it is no drop, or of no known namespace.
func (s DropSource) identify(key *bpfobj.DropKey, stages, hooks []string) (ledger.DropID, bool) {
	id := ledger.DropID{
		Stage: ledger.DropStage(name(stages, int(key.Stage))),
		Hook:  name(hooks, int(key.Hook)),
		Key:   ledger.SAKey{Dst: addr(key.Dst), SPI: ledger.SPI(key.Spi), Direction: direction(key.Dir)},
		Src:   addr(key.Src), SrcPort: key.Sport, DstPort: key.Dport, ReqID: key.Reqid, IfID: key.IfId, Ifindex: int(key.Ifindex),
	}
	if key.Spi != 0 {
		id.Key.Proto = protos[key.Proto]
	}
	if s.Location != nil {
		id.Function, id.Module = splitLocation(s.Location(key.Location))
	}
	if s.Reason != nil {
		id.Reason = s.Reason(key.Reason)
	}
	fragment := strings.HasPrefix(id.Function, "inet_frag") || strings.HasPrefix(id.Function, "ip_") ||
		strings.HasPrefix(id.Function, "ip6_") || strings.HasPrefix(id.Function, "ip6frag") || strings.HasPrefix(id.Function, "nf_ct_frag")
	if key.Flags&bpfobj.DropNoNetns != 0 && !fragment {
		// Reassembly takes a fragment's device away; nothing else that holds a packet does.
		return id, false
	}
	// Up to 6.2 the parts of a packet that was merged on receipt are freed with it, one by one, with
	// the call that a queue drops with. A packet in a queue has moved to another device.
	merged := strings.HasPrefix(id.Function, "kfree_skb_list") && id.Stage == ledger.AfterDecap && key.Flags&bpfobj.DropMoved == 0
	return id, !merged
}

// splitLocation takes "function.part.0+0x12 [module]" apart.
func splitLocation(location string) (function, module string) {
	function, module, _ = strings.Cut(location, " ")
	function, _, _ = strings.Cut(function, "+")
	function, _, _ = strings.Cut(function, ".")
	if strings.HasPrefix(function, "0x") {
		function = ""
	}
	return function, strings.Trim(module, "[]")
}
