// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"math/rand/v2"

	"xfrmscope/internal/lab/packet"
)

// chance builds frames as nobody would send them: first a packet of any layers that can follow each other,
// then what damage and malice do to it.
type chance struct{ *rand.Rand }

func (c chance) one(in int) bool { return c.IntN(in) == 0 }

func pick[T any](c chance, of ...T) T { return of[c.IntN(len(of))] }

// frame is without a link header if l3 is set.
func (c chance) frame(l3 bool) []byte {
	if c.one(50) { // no packet at all
		noise := make([]byte, 14+c.IntN(200))
		for i := range noise {
			noise[i] = byte(c.Uint32())
		}
		return noise
	}
	b := packet.Eth()
	if l3 {
		b = packet.L3()
	} else if c.one(3) {
		for range 1 + c.IntN(3) {
			b = pick(c, b.VLAN, b.QinQ)(uint16(c.IntN(4096)))
		}
	}
	c.network(b)
	whole := b.Frame()
	if kind := pick(c, packet.ESP, packet.IKE, packet.UDP, packet.AH, packet.Ext); c.one(6) && whole.Has(kind) {
		whole.EndAt(kind, c.IntN(min(28, len(whole.Data)-whole.At(kind)))) // short, and no length lies
	}
	f := whole.Data
	for range pick(c, 0, 1, 1, 2, 4) {
		f = c.damage(f)
	}
	return f
}

func (c chance) network(b *packet.Builder) {
	switch c.IntN(20) {
	case 0:
		b.Bytes(make([]byte, c.IntN(60))) // some other EtherType
		return
	case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
		b.IPv4Options(a4, b4, pick(c, 0, 0, 0, 1, 10))
		if c.one(6) {
			b.Fragment(pick(c, 0, 0, 8, 1480, 65528), c.one(2))
		}
		for range pick(c, 0, 0, 0, 0, 1, 1, 2, 8, 9) {
			b.AH(9, 1, 4*c.IntN(8))
		}
	default:
		b.IPv6(a6, b6)
		for range pick(c, 0, 0, 0, 1, 1, 2, 3, 7, 8, 9) {
			switch c.IntN(5) {
			case 0:
				b.HopByHop(uint8(c.IntN(3)))
			case 1:
				b.DstOpts(uint8(c.IntN(3)))
			case 2:
				b.Routing(uint8(c.IntN(3)))
			case 3:
				b.FragmentExt(pick(c, 0, 0, 0, 1480), c.one(2))
			case 4:
				b.AH(9, 1, 4*c.IntN(8))
			}
		}
	}
	c.transport(b)
}

func (c chance) transport(b *packet.Builder) {
	switch c.IntN(8) {
	case 0:
		b.TCP(uint16(c.Uint32()), 4500)
	case 1:
		b.ICMPError(packet.L3().IPv4(b4, a4).UDP(4500, 4500).ESP(1, 1, 8).Frame().Data)
	case 2, 3:
		c.esp(b)
	default:
		b.UDP(pick(c, uint16(4500), 4500, 500, 10000, 53, 0), pick(c, uint16(4500), 500, 500, 40000))
		c.datagram(b)
	}
}

func (c chance) esp(b *packet.Builder) { b.ESP(1+c.Uint32N(100), c.Uint32N(1000), c.IntN(40)) }

func (c chance) datagram(b *packet.Builder) {
	switch c.IntN(8) {
	case 0, 1:
		c.esp(b)
	case 2, 3:
		b.NonESPMarker()
		b.IKE(uint8(c.IntN(4)))
	case 4, 5:
		b.IKE(uint8(c.IntN(4)))
	case 6:
		b.Keepalive()
	case 7:
		b.Bytes(make([]byte, c.IntN(40)))
	}
}

// damage changes the frame in one way.
func (c chance) damage(f []byte) []byte {
	if len(f) < 4 {
		return f
	}
	at := c.IntN(len(f) - 1)
	switch c.IntN(9) {
	case 0:
		f[at] ^= 1 << c.IntN(8)
	case 1:
		f[at] = pick(c, byte(0), 1, 4, 44, 50, 51, 60, 0x40, 0x45, 0x4f, 0x60, 0xff)
	case 2: // a length or a port, a little or very wrong
		v := binary.BigEndian.Uint16(f[at:])
		binary.BigEndian.PutUint16(f[at:], pick(c, v+1, v-1, 0, 7, 8, 0xffff, 500, 4500))
	case 3:
		f = f[:at+1]
	case 4:
		f = append(f, make([]byte, c.IntN(40))...)
	case 5: // a part of it again
		f = append(f[:at:at], f[c.IntN(at+1):]...)
	case 6: // or left out
		f = append(f[:at:at], f[at+c.IntN(len(f)-at):]...)
	default: // a header's worth of noise
		for i := at; i < len(f) && i < at+c.IntN(24); i++ {
			f[i] = byte(c.Uint32())
		}
	}
	return f
}
