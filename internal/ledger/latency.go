// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
)

// LatencyTable is how long packets spent in xfrm (bpf/latency.bpf.c), from its entry to where it hands
// them on decrypted, or encrypted to be sent.
type LatencyTable struct {
	SAs     []SALatency
	Unknown map[string]uint64 // packets whose time is not known, by enum latency_miss in lower case
}

// SALatency is the absolutes of one SA.
type SALatency struct {
	Key     SAKey
	Packets uint64
	SumNs   uint64
	MaxNs   uint64 // of all time, not of the run
	Async   uint64 // of Packets: finished later by an asynchronous cipher
	Hist    []uint64
}

// Latency is the time that an SA's packets spent in xfrm during the run, in nanoseconds. The quantiles
// are upper bounds: the ends of the histogram's buckets that they lie in.
type Latency struct {
	Packets   int64   `json:"packets"`
	Async     int64   `json:"async"`
	MeanNs    int64   `json:"mean_ns"`
	MedianNs  int64   `json:"median_ns"`
	P99Ns     int64   `json:"p99_ns"`
	MaxNs     int64   `json:"max_ns"` // at most; of what the histogram's last bucket allows
	Histogram []int64 `json:"histogram_ns"`
}

// latencyBuckets is LATENCY_BUCKETS of bpf/lib/latency_abi.h.
const latencyBuckets = 32

const (
	latencyPackets = -1 - iota
	latencySum
	latencyAsync
)

// latencySA is one SA's counters: the histogram by bucket, the others under negative keys.
type latencySA struct {
	tally[int]
	max uint64
}

func (l *Ledger) observeLatency(s Snapshot, baseline bool) {
	if s.Latency == nil {
		return
	}
	if l.latency == nil {
		l.latency = map[SAKey]*latencySA{}
	}
	for _, x := range s.Latency.SAs {
		t := l.latency[x.Key]
		if t == nil {
			t = &latencySA{}
			l.latency[x.Key] = t
		}
		now := map[int]uint64{latencyPackets: x.Packets, latencySum: x.SumNs, latencyAsync: x.Async}
		for b, n := range x.Hist {
			now[min(b, latencyBuckets-1)] += n
		}
		t.observe(now, baseline)
		t.max = x.MaxNs
	}
	l.latencyUnknown.observe(s.Latency.Unknown, baseline)
}

// report draws up one SA; nil where it had no packets.
func (t *latencySA) report() *Latency {
	if t == nil {
		return nil
	}
	m := t.total()
	if m[latencyPackets] <= 0 {
		return nil
	}
	out := &Latency{
		Packets: m[latencyPackets], Async: m[latencyAsync], MeanNs: m[latencySum] / m[latencyPackets],
		Histogram: make([]int64, latencyBuckets),
	}
	top := 0
	for b := range latencyBuckets {
		out.Histogram[b] = m[b]
		if m[b] > 0 {
			top = b
		}
	}
	out.MedianNs, out.P99Ns = quantile(out.Histogram, 50), quantile(out.Histogram, 99)
	// The largest of all time is that of the run only if it lies in the run's last bucket.
	out.MaxNs = bucketEnd(top)
	if t.max > 0 && bits.Len64(t.max)-1 == top {
		out.MaxNs = int64(t.max)
	}
	out.MedianNs, out.P99Ns = min(out.MedianNs, out.MaxNs), min(out.P99Ns, out.MaxNs)
	return out
}

// bucketEnd is the largest value of bucket b.
func bucketEnd(b int) int64 { return int64(1)<<(b+1) - 1 }

// quantile is the end of the bucket in which so many percent of all lie.
func quantile(hist []int64, percent int64) int64 {
	sum, below := int64(0), int64(0)
	for _, n := range hist {
		sum += n
	}
	for b, n := range hist {
		if below += n; 100*below >= percent*sum {
			return bucketEnd(b)
		}
	}
	return 0
}

// listOf writes counters by name.
func listOf(m map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}
