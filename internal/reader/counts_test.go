// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/ledger"
)

// TestCountsByTheRow holds rows of counts, at the table's ends and across, against those that are read one by one.
func TestCountsByTheRow(t *testing.T) {
	g := newRig(t, 600)
	for spi := uint32(1); spi <= 600; spi += 7 {
		for seq := range spi%5 + 1 {
			g.send(spi, seq+1)
		}
	}
	r := g.reader(Options{})
	c := &r.table.counts
	keys, values := make([]uint32, 4), make([]Count, 4*r.table.cpus)
	if _, err := c.m.BatchLookup(new(ebpf.MapBatchCursor), keys, values, nil); errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.Errno(524)) {
		if c.readRow(0, 4) || !c.single {
			t.Error("a row was read, which this kernel cannot")
		}
		t.Skip("this kernel cannot read arrays of counts by the row:", err)
	}
	last := uint32(len(c.slots))
	for _, row := range []struct{ first, n uint32 }{{0, 1}, {0, last}, {5, 20}, {600 - last, last}, {599, 1}} {
		if !c.readRow(row.first, int(row.n)) {
			t.Fatalf("%d slots from %d on: not read", row.n, row.first)
		}
		for i := range row.n {
			many := append([]Count(nil), c.ofRow(int(i))...)
			must(t, c.read(row.first+i))
			if diff := cmp.Diff(c.alone, many); diff != "" {
				t.Errorf("slot %d of a row (-alone +row):\n%s", row.first+i, diff)
			}
		}
	}
}

// TestExactWhileRead has packets of many SAs counted on another CPU while snapshots are taken, in each way in which
// states and counts can be read. Each SA's packets lie between those that had been counted before the snapshot began and
// those that were begun when it had ended.
func TestExactWhileRead(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	for _, way := range []struct {
		name string
		set  func(*Reader)
	}{
		{"rows", func(*Reader) {}},
		{"one by one", func(r *Reader) { r.table.counts.single = true }},
		{"not mapped", func(r *Reader) { r.table.mem = nil }},
		{"at rest", func(r *Reader) { r.opts.Now, r.opts.Grace = time.Now, 5*time.Millisecond }},
	} {
		t.Run(way.name, func(t *testing.T) {
			const sas, slots = 100, 256
			g := newRig(t, slots)
			for spi := range uint32(sas) {
				g.send(spi+1, 1)
			}
			r := g.reader(Options{})
			way.set(r)
			var begun, counted [sas]atomic.Uint64
			for i := range sas {
				begun[i].Store(1)
				counted[i].Store(1)
			}
			stop, stopped := make(chan struct{}), make(chan error, 1)
			halt := sync.OnceValue(func() error { close(stop); return <-stopped })
			t.Cleanup(func() { _ = halt() })
			go func() {
				runtime.LockOSThread() // and never given back: its affinity ends with it
				var set unix.CPUSet
				set.Set(1)
				err := unix.SchedSetaffinity(0, &set)
				for n := 0; err == nil; n++ {
					select {
					case <-stop:
						stopped <- nil
						return
					default:
					}
					// Every third SA has most of the packets, so that some stand still for a snapshot.
					i := n % (sas / 3) * 3
					if n%64 == 63 {
						i = n / 64 % sas
					}
					seq := begun[i].Add(1)
					err = run(g.prog, frame(uint32(i+1), uint32(seq)), 1)
					counted[i].Store(seq)
				}
				stopped <- err
			}()
			check := func() {
				t.Helper()
				var before, after [sas]uint64
				for i := range sas {
					before[i] = counted[i].Load()
				}
				must(t, r.Sample())
				snap := snapshot(t, r, nil)
				for i := range sas {
					after[i] = begun[i].Load()
				}
				if len(snap.Wire) != sas {
					t.Fatalf("%d SAs, want %d", len(snap.Wire), sas)
				}
				for _, w := range snap.Wire {
					i := w.Key.SPI - 1
					lo, hi := before[i], after[i]
					if w.Packets < lo || w.Packets > hi || w.Unique < lo || w.Unique > w.Packets || w.PacketsBefore > w.Packets || w.Bytes/100 < lo || w.Bytes/100 > hi {
						t.Errorf("SA %d: packets %d, before the dump %d, unique %d, bytes %d; %d to %d were sent", w.Key.SPI,
							w.Packets, w.PacketsBefore, w.Unique, w.Bytes, lo, hi)
					}
				}
			}
			for range 50 {
				check()
			}
			must(t, halt())
			check() // now both bounds are the same
			if way.name == "at rest" && r.table.mem != nil {
				time.Sleep(2 * paceMin)
				check()
				check() // from what is kept
				if kept := slices.DeleteFunc(slices.Clone(r.parts), func(w *ledger.WireSA) bool { return w == nil }); len(kept) != sas {
					t.Errorf("of %d SAs a part is kept, want %d", len(kept), sas)
				}
			}
			if w := find(t, snapshot(t, r, nil), 1); fmt.Sprint(w.Packets, w.Unique, w.Missing, w.Duplicates) != fmt.Sprint(begun[0].Load(), begun[0].Load(), 0, 0) {
				t.Errorf("SA 1: %+v, %d sent", w, begun[0].Load())
			}
		})
	}
}
