// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
)

// BenchmarkRead compares reading headers only, reading everything, and pcapgo, which can only do the
// latter.
func BenchmarkRead(b *testing.B) {
	const n, size = 1000, 1400
	packets := make([]sample, n)
	for i := range packets {
		packets[i] = sample{ns: int64(i) + 1, data: bytes.Repeat([]byte{byte(i)}, size)}
	}
	classic, _ := writeClassic(binary.LittleEndian, true, 1, packets)
	ng, _ := writeNG(binary.LittleEndian, packets)
	for name, file := range map[string][]byte{"pcap": classic, "pcapng": ng} {
		for _, keep := range []int{256, 0} {
			b.Run(name+map[int]string{256: "/headers", 0: "/all"}[keep], func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					r, err := NewReader("f", bytes.NewReader(file), Options{KeepBytes: keep})
					if err != nil {
						b.Fatal(err)
					}
					var p Packet
					for {
						if err = r.Next(&p); err != nil {
							break
						}
					}
					if err != io.EOF || p.Number != n {
						b.Fatal(p.Number, err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
			})
		}
		b.Run(name+"/pcapgo", func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if got := pcapgoCount(b, name, file); got != n {
					b.Fatal(got)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
		})
	}
}

func pcapgoCount(b *testing.B, kind string, file []byte) (n int) {
	var read func() error
	if kind == "pcap" {
		r, err := pcapgo.NewReader(bytes.NewReader(file))
		if err != nil {
			b.Fatal(err)
		}
		read = func() error { _, _, err := r.ZeroCopyReadPacketData(); return err }
	} else {
		r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
		if err != nil {
			b.Fatal(err)
		}
		read = func() error { _, _, err := r.ZeroCopyReadPacketData(); return err }
	}
	for ; ; n++ {
		if err := read(); err == io.EOF {
			return n
		} else if err != nil {
			b.Fatal(err)
		}
	}
}
