// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"runtime"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/record"
)

// TestConstantMemory writes a long run in which SAs come and go: the writer holds no more at its end than
// after its first minutes.
func TestConstantMemory(t *testing.T) {
	c := &counter{}
	w, err := record.Create(c, record.Header{}, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	write := func(from, to int) {
		for i := from; i < to; i++ {
			s := ledger.Snapshot{At: time.Unix(int64(i), 0), XfrmStat: map[string]uint64{"XfrmInError": uint64(i)}}
			for k := range 40 {
				spi := ledger.SPI(i/10*40 + k) // all are renewed every ten seconds
				s.Wire = append(s.Wire, ledger.WireSA{Key: ledger.SAKey{SPI: spi}, Packets: uint64(i * k), GapHist: make([]uint64, 16),
					CPUs: map[int]uint64{0: uint64(i * k)}})
			}
			if err := w.Snapshot(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	held := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	write(0, 200)
	before := held()
	write(200, 4000)
	after := held()
	runtime.KeepAlive(w)
	if after > before+1<<20 {
		t.Errorf("%d bytes held after 200 snapshots, %d after 4000", before, after)
	}
	if err := w.Close(record.EndTime); err != nil {
		t.Fatal(err)
	}
}
