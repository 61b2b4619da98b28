// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// LatencyMaps are the maps of the latency object.
type LatencyMaps struct {
	Counts *ebpf.Map // latency_counts
	Misses *ebpf.Map // latency_misses
	Names  []string  // enum latency_miss
}

// Part fills in how long packets spent in xfrm.
func (m LatencyMaps) Part(_ context.Context, snap *ledger.Snapshot) error {
	out := &ledger.LatencyTable{Unknown: make(map[string]uint64)}
	for i, name := range m.Names {
		var perCPU []uint64
		if err := m.Misses.Lookup(uint32(i), &perCPU); err != nil {
			return fmt.Errorf("read latency_misses: %w", err)
		}
		out.Unknown[name] = Sum(perCPU, add)
	}
	err := eachPerCPU(m.Counts, func(key bpfobj.LatencyStackKey, perCPU []bpfobj.LatencyCount) {
		c := Sum(perCPU, addLatency)
		out.SAs = append(out.SAs, ledger.SALatency{
			Key: stackKey(bpfobj.StackKey(key)), Packets: c.Packets, SumNs: c.SumNs, MaxNs: c.MaxNs, Async: c.Async,
			Hist: slices.Clone(c.Hist[:]),
		})
	})
	if err != nil {
		return fmt.Errorf("read latency_counts: %w", err)
	}
	slices.SortFunc(out.SAs, func(a, b ledger.SALatency) int { return compareKeys(a.Key, b.Key) })
	snap.Latency = out
	return nil
}

// Aging is the table that it is read from.
func (m LatencyMaps) Aging() []Aging {
	return []Aging{agingOf(m.Counts, "latency_counts", perCPU[bpfobj.LatencyStackKey](func(c bpfobj.LatencyCount) uint64 { return c.Packets }), nil)}
}

func addLatency(dst *bpfobj.LatencyCount, c bpfobj.LatencyCount) {
	for i, n := range c.Hist {
		dst.Hist[i] += n
	}
	dst.Packets += c.Packets
	dst.SumNs += c.SumNs
	dst.Async += c.Async
	dst.MaxNs = max(dst.MaxNs, c.MaxNs)
}
