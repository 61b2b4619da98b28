// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
)

// smallMaps makes an object's tables without its programs, and with room for so many entries each.
func smallMaps(t *testing.T, load func() (*ebpf.CollectionSpec, error), entries uint32, names ...string) map[string]*ebpf.Map {
	t.Helper()
	if err := errors.Join(kernel.CheckCapabilities(), rlimit.RemoveMemlock()); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	spec, err := load()
	must(t, err)
	spec.Programs = nil
	for _, name := range names {
		spec.Maps[name].MaxEntries = entries
	}
	coll, err := ebpf.NewCollection(spec)
	must(t, err)
	t.Cleanup(coll.Close)
	return coll.Maps
}

// perCPUValue is a value that one CPU has and no other.
func perCPUValue[V any](v V) []V {
	out := make([]V, ebpf.MustPossibleCPU())
	out[0] = v
	return out
}

// TestPruneDrops: while there is room nothing goes. Once there is not, drops that have not moved do, with all
// of their entries in both tables, and those of which one entry moved stay whole.
func TestPruneDrops(t *testing.T) {
	m := smallMaps(t, bpfobj.LoadDrop, 8, "host_drops", "stray_drops")
	// The low digit of a location is an offset, which a drop is not told by.
	src := DropSource{Host: m["host_drops"], Stray: m["stray_drops"], Location: func(at uint64) string { return fmt.Sprintf("fn%d+0x%d", at/10, at%10) }}
	aging, err := src.Aging()
	must(t, err)
	part, err := src.Part()
	must(t, err)
	put := func(table *ebpf.Map, location uint64, n uint64) {
		t.Helper()
		must(t, table.Put(bpfobj.DropKey{Location: location, Spi: 1, Proto: 50, Family: 4}, perCPUValue(n)))
	}
	read := func() map[string]uint64 {
		t.Helper()
		var snap ledger.Snapshot
		must(t, part(t.Context(), &snap))
		out := map[string]uint64{}
		for _, d := range snap.HostDrops {
			out[d.Function] += d.Packets
		}
		return out
	}
	put(src.Host, 11, 5)
	put(src.Host, 12, 5)
	put(src.Stray, 13, 5)
	put(src.Host, 21, 7)
	put(src.Host, 22, 7)
	for at := range uint64(2) {
		put(src.Host, 31+at, 1)
	}
	must(t, aging.prune()) // remembers
	must(t, aging.prune()) // there is room
	if diff := cmp.Diff([]string{"fn1", "fn2", "fn3"}, slices.Sorted(maps.Keys(read()))); diff != "" {
		t.Fatalf("with room left (-want +got):\n%s", diff)
	}
	put(src.Host, 22, 8) // moves
	put(src.Host, 41, 2) // is new
	must(t, aging.prune())
	if diff := cmp.Diff(map[string]uint64{"fn2": 15, "fn4": 2}, read()); diff != "" {
		t.Errorf("after making room (-want +got):\n%s", diff)
	}
	put(src.Host, 11, 1)
	if diff := cmp.Diff(map[string]uint64{"fn1": 1, "fn2": 15, "fn4": 2}, read()); diff != "" {
		t.Errorf("one that came back (-want +got):\n%s", diff)
	}
}

// TestPruneTables does the same with the tables whose entries stand for themselves: refusals, latency, what did not
// fit. Drops of an SA that is there stay.
func TestPruneTables(t *testing.T) {
	const room = 8
	stack := smallMaps(t, bpfobj.LoadStack, room, "stack_counts", "unknown_spis", "refusals")
	pmtu := smallMaps(t, bpfobj.LoadPMTU, room, "pmtu_own", "pmtu_told")
	latency := smallMaps(t, bpfobj.LoadLatency, room, "latency_counts")["latency_counts"]
	maps := PMTUMaps{Own: pmtu["pmtu_own"], Told: pmtu["pmtu_told"], Totals: pmtu["pmtu_totals"]}
	r, err := New(Source{Stack: &StackMaps{Counts: stack["stack_counts"], Unknown: stack["unknown_spis"], Refused: stack["refusals"]}, Aging: append(maps.Aging(), LatencyMaps{Counts: latency}.Aging()...)}, Options{})
	must(t, err)
	fill := func(i, n int) {
		t.Helper()
		key := bpfobj.StackKey{Spi: uint32(i), Proto: 50, Dir: 1}
		must(t, stack["stack_counts"].Put(key, perCPUValue(bpfobj.StackCount{Causes: [len(bpfobj.StackCount{}.Causes)]uint64{1: uint64(n)}})))
		must(t, stack["unknown_spis"].Put(key, perCPUValue(uint64(n))))
		must(t, stack["refusals"].Put(bpfobj.RefusalKey{Sport: uint16(i)}, perCPUValue(bpfobj.Refusal{Packets: uint64(n)})))
		must(t, latency.Put(bpfobj.LatencyStackKey{Spi: uint32(i)}, perCPUValue(bpfobj.LatencyCount{Packets: uint64(n)})))
		must(t, maps.Own.Put(bpfobj.PMTUKey{Spi: uint32(i)}, bpfobj.PMTUCount{Packets: uint64(n)}))
		must(t, maps.Told.Put(bpfobj.PMTUKey{Spi: uint32(i)}, bpfobj.PMTUCount{Packets: uint64(n)}))
	}
	sizes := func() (out []int) {
		for _, m := range []*ebpf.Map{stack["stack_counts"], stack["unknown_spis"], stack["refusals"], latency} {
			n := 0
			it := m.Iterate()
			key, value := make([]byte, m.KeySize()), [][]byte{}
			for it.Next(&key, &value) {
				n++
			}
			must(t, it.Err())
			out = append(out, n)
		}
		for _, m := range []*ebpf.Map{maps.Own, maps.Told} {
			n := 0
			must(t, eachEntry(m, func(bpfobj.PMTUKey, bpfobj.PMTUCount) { n++ }))
			out = append(out, n)
		}
		return out
	}
	r.reap.known = map[ledger.SAKey]bool{stackKey(bpfobj.StackKey{Spi: 1, Proto: 50, Dir: 1}): true}
	for i := range room {
		fill(i, 5)
	}
	must(t, r.Prune(0))
	fill(0, 6) // moves
	must(t, r.Prune(0))
	if diff := cmp.Diff([]int{2, 1, 1, 1, 1, 1}, sizes()); diff != "" {
		t.Errorf("entries that stay: drops, unknown SPIs, refusals, latency, told, heard (-want +got):\n%s", diff)
	}
}

// TestPruneKeepalives: once bindings, which anybody can invent, leave little room, those go that no keepalive came for.
func TestPruneKeepalives(t *testing.T) {
	const room = 8
	m := smallMaps(t, func() (*ebpf.CollectionSpec, error) {
		spec, err := bpfobj.LoadWire(true)
		if err != nil {
			return nil, err
		}
		return &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{"keepalives": spec.Maps["keepalives"]}, Types: spec.Types}, nil
	}, room, "keepalives")["keepalives"]
	a := (&Reader{src: Source{Wire: &WireMaps{Keepalives: m}}}).aging()
	if len(a) != 1 {
		t.Fatalf("%d tables make room, want 1", len(a))
	}
	for i := range room {
		must(t, m.Put(bpfobj.KeepaliveKey{Sport: uint16(i)}, bpfobj.Keepalive{Packets: 1}))
	}
	must(t, a[0].prune())
	must(t, m.Put(bpfobj.KeepaliveKey{Sport: 3}, bpfobj.Keepalive{Packets: 2}))
	must(t, a[0].prune())
	var left []uint16
	must(t, eachEntry(m, func(k bpfobj.KeepaliveKey, _ bpfobj.Keepalive) { left = append(left, k.Sport) }))
	if diff := cmp.Diff([]uint16{3}, left); diff != "" {
		t.Errorf("bindings that stay (-want +got):\n%s", diff)
	}
}
