// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
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

// BenchmarkSample is what the reader does four times a second, whatever else happens. ns/SA must not grow
// with the number of SAs.
func BenchmarkSample(b *testing.B) {
	for _, sas := range []int{100, 1000, 10000} {
		for _, busy := range []int{0, 10, 100} { // percent of the SAs that had packets since
			b.Run(fmt.Sprintf("sas=%d/busy=%d%%", sas, busy), func(b *testing.B) {
				g := newRig(b, uint32(sas+sas/10))
				g.fill(sas)
				r := g.reader(Options{})
				must(b, r.Sample())
				next := uint32(21)
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					for spi := range sas * busy / 100 {
						g.send(uint32(spi+1), next)
					}
					next++
					g.now = g.now.Add(250 * time.Millisecond)
					b.StartTimer()
					must(b, r.Sample())
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(sas), "ns/SA")
				b.ReportMetric(float64(b.Elapsed().Seconds())/float64(b.N)/0.25*100, "%CPU")
			})
		}
	}
}

// BenchmarkSnapshot is what each look at the ledger costs the reader.
func BenchmarkSnapshot(b *testing.B) {
	for _, sas := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("sas=%d", sas), func(b *testing.B) {
			g := newRig(b, uint32(sas+sas/10))
			sad := g.fill(sas)
			r := g.reader(Options{})
			b.ReportAllocs()
			for b.Loop() {
				g.now = g.now.Add(time.Second)
				snapshot(b, r, sad)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(sas), "ns/SA")
		})
	}
}
