// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"xfrmscope/internal/lab/packet"
)

// writeEnds writes captures of both ends of a tunnel, gw-a.pcap and gw-b.pcap, and stranger.pcap of another
// one. A packet is 3 ms under way, and B's clock is 2.5 s ahead. Of 40 packets from A to B, 7, 8 and 21 are
// lost and 15 comes twice; of 30 from B to A, 11 is lost.
func writeEnds(dir string) error {
	type packets struct {
		src, dst string
		spi      uint32
		seqs     []uint32
		shift    time.Duration
	}
	numbers := func(n uint32, without ...uint32) (out []uint32) {
		for seq := uint32(1); seq <= n; seq++ {
			if !slices.Contains(without, seq) {
				out = append(out, seq)
			}
		}
		return out
	}
	const a, b = "192.0.2.1", "192.0.2.2"
	const ahead, way = 2500 * time.Millisecond, 3 * time.Millisecond
	there := numbers(40, 7, 8, 21)
	for name, list := range map[string][]packets{
		"gw-a.pcap":     {{a, b, 0xc0ffee01, numbers(40), 0}, {b, a, 0xc0ffee02, numbers(30, 11), way}},
		"gw-b.pcap":     {{a, b, 0xc0ffee01, slices.Insert(there, 13, 15), ahead + way}, {b, a, 0xc0ffee02, numbers(30), ahead}},
		"stranger.pcap": {{a, b, 0xdeadbeef, numbers(40), 0}},
		"one-way.pcap":  {{a, b, 0xc0ffee01, numbers(20), 0}},
	} {
		var out bytes.Buffer
		w := pcapgo.NewWriterNanos(&out)
		if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
			return err
		}
		for _, p := range list {
			frame := packet.Eth().IPv4(p.src, p.dst).ESP(p.spi, 1, 80).Frame()
			for _, seq := range p.seqs {
				data := frame.Seq(seq).Data
				at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(p.shift + time.Duration(seq)*10*time.Millisecond)
				if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(data), Length: len(data)}, data); err != nil {
					return err
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
