// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
)

// fill opens a slot for each of so many SAs, with 20 packets each, one of them lost.
func (g *rig) fill(sas int) []ledger.SADEntry {
	sad := make([]ledger.SADEntry, sas)
	for i := range sad {
		spi := uint32(i + 1)
		for seq := uint32(1); seq <= 20; seq++ {
			if seq != 10 {
				g.send(spi, seq)
			}
		}
		sad[i] = ledger.SADEntry{Key: in(spi), Mode: "tunnel", ReplayWindow: 32, ReqID: spi}
	}
	return sad
}

// BenchmarkSample is what the reader does four times a second, whatever else happens. CPU-ns/SA must not grow
// with the number of SAs.
func BenchmarkSample(b *testing.B) {
	for _, sas := range []int{100, 10000, 100000} {
		for _, busy := range []int{0, 10, 100} { // percent of the SAs that had packets since
			b.Run(fmt.Sprintf("sas=%d/busy=%d%%", sas, busy), func(b *testing.B) {
				g := newRig(b, uint32(sas+sas/10))
				g.fill(sas)
				r := g.reader(Options{})
				for range 6 { // until they are at rest
					must(b, r.Sample())
					g.now = g.now.Add(250 * time.Millisecond)
				}
				next := uint32(21)
				b.ReportAllocs()
				var used time.Duration
				for b.Loop() {
					b.StopTimer()
					for spi := range sas * busy / 100 {
						g.send(uint32(spi+1), next)
					}
					next++
					g.now = g.now.Add(250 * time.Millisecond)
					before := cpuUsed(b)
					b.StartTimer()
					must(b, r.Sample())
					used += cpuUsed(b) - before
				}
				b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/float64(sas), "CPU-ns/SA")
				b.ReportMetric(used.Seconds()/float64(b.N)/0.25*100, "%CPU")
			})
		}
	}
}

// BenchmarkSnapshot is what each look at the ledger costs the reader.
func BenchmarkSnapshot(b *testing.B) {
	for _, sas := range []int{100, 10000, 100000} {
		for _, busy := range []int{0, 100} { // percent of the SAs that had packets since
			b.Run(fmt.Sprintf("sas=%d/busy=%d%%", sas, busy), func(b *testing.B) {
				g := newRig(b, uint32(sas+sas/10))
				sad := g.fill(sas)
				before := inUse()
				r := g.reader(Options{})
				var snap ledger.Snapshot
				for range 4 { // until they are at rest, and kept as such
					snap = snapshot(b, r, sad)
					g.now = g.now.Add(time.Second)
				}
				kept := inUse() - before
				runtime.KeepAlive(snap)
				snap = ledger.Snapshot{}
				next := uint32(21)
				b.ReportAllocs()
				var used time.Duration
				for b.Loop() {
					b.StopTimer()
					for spi := range sas * busy / 100 {
						g.send(uint32(spi+1), next)
					}
					next++
					g.now = g.now.Add(time.Second)
					before := cpuUsed(b)
					b.StartTimer()
					snapshot(b, r, sad)
					used += cpuUsed(b) - before
				}
				b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/float64(sas), "CPU-ns/SA")
				b.ReportMetric(float64(kept)/float64(sas), "heap-B/SA")
				b.ReportMetric(float64(g.mapBytes())/float64(sas+sas/10), "map-B/slot")
			})
		}
	}
}

// cpuUsed is what the process has used: on a machine that others use, elapsed time says little.
func cpuUsed(t testing.TB) time.Duration {
	t.Helper()
	used, err := cpuTime()
	must(t, err)
	return used
}

// inUse is the heap that the program holds: here, the reader's and a snapshot's.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// mapBytes is what the kernel holds for the maps that grow with the table, on this machine's CPUs.
func (g *rig) mapBytes() (sum uint64) {
	g.t.Helper()
	for _, name := range []string{"sa_slots", "sa_states", "sa_counts", "free_slots"} {
		info, err := g.coll.Maps[name].Info()
		must(g.t, err)
		n, ok := info.Memlock()
		if !ok {
			g.t.Fatalf("the kernel does not tell the memory of %s", name)
		}
		sum += n
	}
	return sum
}
