// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// headersOpinion is how many bytes of a packet in the stack are headers, which are what a capture without --snaplen
// may have. inner takes the place of ESP's own protocol where the header does not say yet what was inside; encrypted
// says that UDP may be ESP's. `all` is false where pages hide how long they are.
func (p skb) headersOpinion(inner uint8, encrypted bool) (n int, all bool) {
	b := p.packet
	if len(b) < 1 {
		return 0, p.paged == 0
	}
	extension := func(proto uint8) bool { return proto == 0 || proto == 43 || proto == 44 || proto == 60 }
	var proto uint8
	switch b[0] >> 4 {
	case 4:
		if len(b) < 20 {
			return len(b), false
		}
		if n = int(b[0]&15) * 4; n < 20 {
			return 0, true
		}
		if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return n, true // the rest is payload
		}
		if proto = b[9]; inner != 0 {
			proto = inner
		}
	case 6:
		if len(b) < 40 {
			return len(b), false
		}
		n, proto = 40, b[6]
		for passed := 0; ; passed++ {
			if !extension(proto) && inner != 0 {
				proto, inner = inner, 0
			}
			if !extension(proto) || passed == 3 {
				break
			}
			if len(b) < n+8 {
				return len(b), false
			}
			ext := b[n:]
			if n += 8; proto != 44 {
				n += int(ext[1]) * 8
			}
			if proto == 44 && binary.BigEndian.Uint16(ext[2:])>>3 != 0 {
				return n, true
			}
			proto = ext[0]
		}
	default:
		return 0, true
	}
	switch proto {
	case 6:
		if len(b) < n+13 {
			return len(b), false
		}
		return n + int(b[n+12]>>4)*4, true
	case 17:
		if encrypted && len(b) < n+4 {
			return len(b), false
		}
		if encrypted && (outer{rest: b[n:]}).natt() {
			return n + 8 + 8 + 16, true
		}
		return n + 8, true
	case 1, 58:
		return n + 8, true
	case 132, 51:
		return n + 12, true
	case 50:
		return n + 8 + 16, true
	}
	return n, true
}

// TestSnapSecondDecoder has the programs that copy packets in the stack copy broken ones: their headers, and not a byte
// behind these.
func TestSnapSecondDecoder(t *testing.T) {
	f := newForge(t)
	tape := loadTape(t, PacketConfig{NATTPorts: nattPorts}, "packet_drop", "decrypted_skb")
	f.inNetns(tape.Collection)
	c := chance{rand.New(rand.NewPCG(20261128, 4))}
	met := counts{}
	for range 8000 {
		p := c.skb()
		program, transport, wanted := "packet_drop", uint64(0), true
		if c.one(2) {
			_, wanted = p.hostDropOpinion()
		} else {
			program, p.sa, p.network = "decrypted_skb", true, 128
			if c.one(2) {
				p.inner, transport = pick(c, uint8(6), 17, 1, 50, 60), 1
			}
		}
		f.run(tape.Programs[program], f.set(c, p), transport)
		got := tape.drain()
		if !wanted {
			met["none"]++
			if len(got) != 0 {
				t.Fatalf("%s copied %+v\n% x, %d bytes in pages", program, got, p.packet, p.paged)
			}
			continue
		}
		n, all := p.headersOpinion(p.inner, !p.sa)
		want := p.packet[:min(n, len(p.packet))]
		paged := p.paged > 0 && (n > len(p.packet) || !all)
		switch {
		case paged:
			met["paged"]++
		case n > len(p.packet):
			met["cut"]++
		case len(want) == 0:
			met["not IP"]++
		default:
			met["headers"]++
		}
		if len(got) != 1 {
			t.Fatalf("%s: %d copies\n% x, %d bytes in pages", program, len(got), p.packet, p.paged)
		}
		if h := got[0].Head; !bytes.Equal(got[0].Data, want) || h.Flags&PacketFlagPaged != 0 != paged ||
			int(h.WireLen) != len(p.packet)+p.paged || p.sa && h.Spi != forgedSPI {
			t.Fatalf("%s copied %d of %d bytes, flags %#x; the second decoder says %d, in pages %v\n% x, %d bytes in pages, inner %d", program,
				len(got[0].Data), h.WireLen, h.Flags, len(want), paged, p.packet, p.paged, p.inner)
		}
	}
	enough(t, met, "none", "paged", "cut", "not IP", "headers")
}
