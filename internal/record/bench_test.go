// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/record"
)

// busy are snapshots a second apart of a gateway on which each SA carries traffic of its own in each second,
// and one in a hundred loses some.
func busy(sas, seconds int) []ledger.Snapshot {
	w := ledgertest.New()
	w.Furnish()
	r := rand.New(rand.NewPCG(7, 7))
	var all []*ledgertest.SA
	for i := range sas {
		if i%2 == 0 {
			all = append(all, w.Inbound(ledger.SPI(r.Uint32()), 64, false))
		} else {
			all = append(all, w.Outbound(ledger.SPI(r.Uint32())))
		}
	}
	var out []ledger.Snapshot
	for range seconds {
		w.Tick(time.Second)
		for i, sa := range all {
			n := 100 + r.Uint64N(900)
			if i%2 == 1 {
				sa.Send(n)
				continue
			}
			sa.Deliver(n)
			if r.IntN(100) == 0 {
				sa.Lose(1 + r.Uint64N(9))
			}
		}
		s := w.Snapshot()
		for i := range s.Wire {
			x := &s.Wire[i]
			x.CPUs = map[int]uint64{0: x.Packets / 2, 1: x.Packets - x.Packets/2}
			x.PacketsBefore = x.Packets - r.Uint64N(3)
		}
		out = append(out, s)
	}
	return out
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

// BenchmarkWrite tells what recording costs, and how large the file becomes. docs/record.md quotes it.
func BenchmarkWrite(b *testing.B) {
	for _, sas := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(sas), func(b *testing.B) {
			rows := busy(sas, 6)
			var bytes, first int64
			for b.Loop() {
				c := &counter{}
				w, err := record.Create(c, record.Header{}, record.Options{})
				if err != nil {
					b.Fatal(err)
				}
				for i, s := range rows {
					if err := w.Snapshot(s); err != nil {
						b.Fatal(err)
					}
					if i == 0 {
						first = c.n
					}
				}
				bytes = c.n - first
			}
			seconds := float64(len(rows) - 1)
			b.ReportMetric(float64(first)/float64(sas), "first-bytes/SA")
			b.ReportMetric(float64(bytes)/seconds/float64(sas), "bytes/SA/s")
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/float64(len(rows)), "ms/snapshot")
		})
	}
}

// BenchmarkRead tells how fast a recording is read, with and without a ledger behind it.
func BenchmarkRead(b *testing.B) {
	for _, sas := range []int{10, 1000, 10000} {
		file := write(b, record.Options{}, busy(sas, 6)...)
		for name, l := range map[string]bool{"alone": false, "ledger": true} {
			b.Run(fmt.Sprintf("%d/%s", sas, name), func(b *testing.B) {
				n := 0
				for b.Loop() {
					r, err := record.NewReader(bytes.NewReader(file))
					if err != nil {
						b.Fatal(err)
					}
					into := ledger.New(ledger.Source{Kind: ledger.KindRecording})
					for {
						rec, err := r.Next()
						if err == io.EOF {
							break
						}
						if err != nil {
							b.Fatal(err)
						}
						if rec.Snapshot != nil {
							n++
							if l {
								into.Observe(*rec.Snapshot)
							}
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(n), "ms/snapshot")
			})
		}
	}
}
