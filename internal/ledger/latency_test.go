// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// TestLatency: only the run's packets count, and the quantiles are the ends of their buckets.
func TestLatency(t *testing.T) {
	w := ledgertest.New()
	sa, quiet := w.Inbound(spi, 32, false), w.Inbound(spi+1, 32, false)
	hist := make([]uint64, 32)
	hist[20] = 1 // one packet took a millisecond before anybody looked
	w.Latency = &ledger.LatencyTable{
		SAs: []ledger.SALatency{
			{Key: sa.Key, Packets: 1, SumNs: 1 << 20, MaxNs: 1 << 20, Hist: hist},
			{Key: quiet.Key, Packets: 5, SumNs: 100, MaxNs: 30, Hist: make([]uint64, 32)},
		},
		Unknown: map[string]uint64{"segmented": 4, "stale": 0},
	}
	r := w.Run(func() {
		sa.Deliver(100)
		now := append([]uint64{}, hist...)
		now[11] += 90 // 2048 to 4095 ns
		now[13] += 10
		w.Latency = &ledger.LatencyTable{
			SAs: []ledger.SALatency{
				{Key: sa.Key, Packets: 101, SumNs: 1<<20 + 400000, MaxNs: 1 << 20, Async: 7, Hist: now},
				w.Latency.SAs[1],
			},
			Unknown: map[string]uint64{"segmented": 6, "stale": 0},
		}
	})
	want := &ledger.Latency{Packets: 100, Async: 7, MeanNs: 4000, MedianNs: 4095, P99Ns: 16383, MaxNs: 16383, Histogram: make([]int64, 32)}
	want.Histogram[11], want.Histogram[13] = 90, 10
	if d := cmp.Diff(want, find(t, r, spi, ledger.In).Latency); d != "" {
		t.Errorf("latency (-want +got):\n%s", d)
	}
	if l := find(t, r, spi+1, ledger.In).Latency; l != nil {
		t.Errorf("an SA without packets has a latency: %+v", l)
	}
	noted(t, r.Notes, "time in xfrm not known of some packets: segmented 2")
}
