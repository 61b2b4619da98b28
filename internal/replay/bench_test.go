// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bufio"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// writeBig writes a capture of n ESP packets of eight SAs, always the same.
func writeBig(t testing.TB, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "big.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	le := binary.LittleEndian
	head := le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, 0xa1b2c3d4), 2), 4)
	for _, v := range []uint32{0, 0, 262144, 1} {
		head = le.AppendUint32(head, v)
	}
	write := func(b []byte) {
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	write(head)
	var seqs [8]uint32
	for i := range n {
		s := i % len(seqs)
		seqs[s]++
		frame := esp(false, 0x1000+uint32(s), seqs[s], 64)
		var rec []byte
		for _, v := range []uint32{1_700_000_000 + uint32(i/100_000), uint32(i%100_000) * 10, uint32(len(frame)), uint32(len(frame))} {
			rec = le.AppendUint32(rec, v)
		}
		write(rec)
		write(frame)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// BenchmarkReplay reads a capture of a million packets, through the driver and packet by packet, with
// the program loaded already, and once as a whole.
func BenchmarkReplay(b *testing.B) {
	needBPF(b)
	const n = 1_000_000
	path := writeBig(b, n)
	for _, single := range []bool{false, true} {
		b.Run(map[bool]string{false: "driver", true: "packet-by-packet"}[single], func(b *testing.B) {
			w, err := open(Options{}, []way{{lockfree: true, driver: !single}})
			if err != nil {
				b.Fatal(err)
			}
			defer w.close()
			b.ResetTimer()
			for range b.N {
				f, err := w.file(context.Background(), path, nil)
				if err != nil || f.Packets != n {
					b.Fatalf("%d packets, error %v", f.Packets, err)
				}
			}
			report(b, n)
		})
	}
	b.Run("whole", func(b *testing.B) {
		for range b.N {
			r, err := Run(context.Background(), []string{path}, Options{})
			if err != nil || r.Packets != n || len(r.End.Wire) != 8 || r.End.Wire[0].Unique != n/8 {
				b.Fatalf("result %+v, error %v", r, err)
			}
		}
		report(b, n)
	})
}

func report(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "packets/s")
}
