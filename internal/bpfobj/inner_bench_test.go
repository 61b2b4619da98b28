// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
)

// BenchmarkInner measures what the inner programs do with a packet once they have it, beside the time
// that a run takes in which nothing is found. Fetching it from the stack comes on top.
func BenchmarkInner(b *testing.B) {
	needBPF(b)
	spec, err := LoadInner()
	if err != nil {
		b.Fatal(err)
	}
	for name := range spec.Programs {
		if name != "inner_frame" {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(coll.Close)
	stamps := append([]byte{1, 1, 8, 10}, make([]byte, 8)...)
	binary.BigEndian.PutUint32(stamps[4:], 1)
	for name, s := range map[string]tcp{
		"no TCP":          {from: nearV4, to: farV4, proto: 17},
		"acknowledgement": {from: nearV4, to: farV4, flags: ack, seq: 1, ack: 1, window: 500, options: stamps},
		"data":            {from: farV4, to: nearV4, flags: ack, seq: 1, ack: 1, window: 500, options: stamps, payload: 1000},
		"data, IPv6":      {from: farV6, to: nearV6, flags: ack, seq: 1, ack: 1, window: 500, options: stamps, payload: 1000},
	} {
		b.Run(name, func(b *testing.B) {
			ret, took, err := coll.Programs["inner_frame"].Benchmark(s.frame(), b.N, func() {})
			if err != nil || int32(ret) != -1 {
				b.Fatalf("run inner_frame: returned %d, %v", int32(ret), err)
			}
			b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
}
