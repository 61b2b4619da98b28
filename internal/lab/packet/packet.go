// SPDX-License-Identifier: Apache-2.0

// Package packet builds the frames that tests send, layer by layer as they lie on the wire:
//
//	packet.Eth().VLAN(7).IPv4("192.0.2.1", "192.0.2.2").UDP(4500, 4500).ESP(0x1001, 1, 64).Frame()
//
// Lengths, protocol numbers and the IPv4 checksum follow from the layers. What is meant to be wrong
// is made wrong afterwards, by one mutation of the finished Frame.
package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Kind names a layer, so that a mutation can find it.
type Kind string

// The layers.
const (
	Ethernet Kind = "ethernet"
	VLAN     Kind = "vlan"
	IPv4     Kind = "ipv4"
	IPv6     Kind = "ipv6"
	Ext      Kind = "ext"
	FragExt  Kind = "fragment"
	AH       Kind = "ah"
	UDP      Kind = "udp"
	Marker   Kind = "marker"
	ESP      Kind = "esp"
	IKE      Kind = "ike"
	Data     Kind = "data"
)

// Protocol numbers (IANA) and EtherTypes of the layers.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoESP      = 50
	protoAH       = 51
	protoNone     = 59
	protoDstOpts  = 60

	typeIPv4  = 0x0800
	typeIPv6  = 0x86dd
	typeVLAN  = 0x8100
	typeQinQ  = 0x88a8
	typeOther = 0x0806 // ARP
)

type layer struct {
	kind  Kind
	proto uint8  // as the layer before it names it, where that is IP or an extension
	ether uint16 // the same for Ethernet and VLAN
	head  []byte
}

// Builder collects layers, outermost first.
type Builder struct {
	layers []layer
}

// Eth begins a frame with an Ethernet header.
func Eth() *Builder {
	return new(Builder).add(layer{kind: Ethernet, head: []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0, 0}})
}

// L3 begins a packet without a link header.
func L3() *Builder { return new(Builder) }

func (b *Builder) add(l layer) *Builder {
	b.layers = append(b.layers, l)
	return b
}

// VLAN adds an 802.1Q tag.
func (b *Builder) VLAN(id uint16) *Builder {
	return b.add(layer{kind: VLAN, ether: typeVLAN, head: []byte{byte(id >> 8), byte(id), 0, 0}})
}

// QinQ adds an 802.1ad tag.
func (b *Builder) QinQ(id uint16) *Builder {
	return b.add(layer{kind: VLAN, ether: typeQinQ, head: []byte{byte(id >> 8), byte(id), 0, 0}})
}

// IPv4 adds a header without options.
func (b *Builder) IPv4(src, dst string) *Builder { return b.IPv4Options(src, dst, 0) }

// IPv4Options adds a header with that many 4-byte words of options.
func (b *Builder) IPv4Options(src, dst string, words int) *Builder {
	h := make([]byte, 20+4*words)
	h[0] = 0x40 | byte(len(h)/4)
	h[8] = 64
	for i := 20; i < len(h); i++ {
		h[i] = 1 // no operation
	}
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(h[12:], s[:])
	copy(h[16:], d[:])
	return b.add(layer{kind: IPv4, ether: typeIPv4, proto: 4, head: h})
}

// Fragment makes the IPv4 header before it that of a fragment; offset is in bytes.
func (b *Builder) Fragment(offset int, more bool) *Builder {
	h := b.layers[len(b.layers)-1]
	if h.kind != IPv4 {
		panic("packet: Fragment follows IPv4 only; IPv6 has FragmentExt")
	}
	v := uint16(offset / 8)
	if more {
		v |= 0x2000
	}
	binary.BigEndian.PutUint16(h.head[6:], v)
	return b
}

// IPv6 adds a header.
func (b *Builder) IPv6(src, dst string) *Builder {
	h := make([]byte, 40)
	h[0], h[7] = 0x60, 64
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	copy(h[8:], s[:])
	copy(h[24:], d[:])
	return b.add(layer{kind: IPv6, ether: typeIPv6, proto: 41, head: h})
}

// HopByHop, Routing and DstOpts add an extension header of 8*(units+1) bytes.
func (b *Builder) HopByHop(units uint8) *Builder { return b.ext(protoHopByHop, units) }

// Routing adds a routing header: see HopByHop.
func (b *Builder) Routing(units uint8) *Builder { return b.ext(protoRouting, units) }

// DstOpts adds a destination options header: see HopByHop.
func (b *Builder) DstOpts(units uint8) *Builder { return b.ext(protoDstOpts, units) }

func (b *Builder) ext(proto, units uint8) *Builder {
	h := make([]byte, 8*(int(units)+1))
	h[1] = units
	return b.add(layer{kind: Ext, proto: proto, head: h})
}

// FragmentExt adds an IPv6 fragment header; offset is in bytes.
func (b *Builder) FragmentExt(offset int, more bool) *Builder {
	h := make([]byte, 8)
	v := uint16(offset) &^ 7
	if more {
		v |= 1
	}
	binary.BigEndian.PutUint16(h[2:], v)
	return b.add(layer{kind: FragExt, proto: protoFragment, head: h})
}

// AH adds an authentication header with an ICV of that many bytes, a multiple of four.
func (b *Builder) AH(spi, seq uint32, icv int) *Builder {
	h := make([]byte, 12+icv)
	h[1] = byte(len(h)/4 - 2)
	binary.BigEndian.PutUint32(h[4:], spi)
	binary.BigEndian.PutUint32(h[8:], seq)
	return b.add(layer{kind: AH, proto: protoAH, head: h})
}

// UDP adds a header.
func (b *Builder) UDP(src, dst uint16) *Builder {
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h, src)
	binary.BigEndian.PutUint16(h[2:], dst)
	return b.add(layer{kind: UDP, proto: protoUDP, head: h})
}

// ESP adds SPI, sequence number and that many bytes of ciphertext.
func (b *Builder) ESP(spi, seq uint32, payload int) *Builder {
	h := make([]byte, 8+payload)
	binary.BigEndian.PutUint32(h, spi)
	binary.BigEndian.PutUint32(h[4:], seq)
	for i := 8; i < len(h); i++ {
		h[i] = byte(i) // anything but zeroes
	}
	return b.add(layer{kind: ESP, proto: protoESP, head: h})
}

// NonESPMarker adds the four zero bytes of RFC 3948 section 2.2.
func (b *Builder) NonESPMarker() *Builder { return b.add(layer{kind: Marker, head: make([]byte, 4)}) }

// IKE adds the header of an IKE message of that major version, without payloads.
func (b *Builder) IKE(major uint8) *Builder {
	h := make([]byte, 28)
	binary.BigEndian.PutUint64(h, 0x1122334455667788)
	h[16], h[17], h[18] = 33, major<<4, 34
	h[27] = 28
	return b.add(layer{kind: IKE, head: h})
}

// Keepalive adds the byte of RFC 3948 section 2.3.
func (b *Builder) Keepalive() *Builder { return b.Bytes([]byte{0xff}) }

// Bytes adds anything; an IP header before it will say "no next header".
func (b *Builder) Bytes(p []byte) *Builder {
	return b.add(layer{kind: Data, proto: protoNone, ether: typeOther, head: append([]byte(nil), p...)})
}

// TCP adds a header that is no more than plausible.
func (b *Builder) TCP(src, dst uint16) *Builder {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, src)
	binary.BigEndian.PutUint16(h[2:], dst)
	h[12] = 5 << 4
	return b.add(layer{kind: Data, proto: protoTCP, head: h})
}

// TCPHeader adds a header as it is given, options and payload included.
func (b *Builder) TCPHeader(h []byte) *Builder {
	return b.add(layer{kind: Data, proto: protoTCP, head: append([]byte(nil), h...)})
}

// ICMPError adds an ICMPv4 "fragmentation needed" that quotes a packet.
func (b *Builder) ICMPError(quoted []byte) *Builder {
	h := append([]byte{3, 4, 0, 0, 0, 0, 0x05, 0x78}, quoted...)
	return b.add(layer{kind: Data, proto: protoICMP, head: h})
}

// Frame puts the layers together.
func (b *Builder) Frame() *Frame {
	f := &Frame{at: map[Kind]int{}}
	for i, l := range b.layers {
		h := append([]byte(nil), l.head...)
		var next layer
		next.proto, next.ether = protoNone, typeOther
		if i+1 < len(b.layers) {
			next = b.layers[i+1]
		}
		rest := 0
		for _, m := range b.layers[i+1:] {
			rest += len(m.head)
		}
		switch l.kind {
		case Ethernet:
			binary.BigEndian.PutUint16(h[12:], next.ether)
		case VLAN:
			binary.BigEndian.PutUint16(h[2:], next.ether)
		case IPv4:
			h[9] = next.proto
			binary.BigEndian.PutUint16(h[2:], uint16(len(h)+rest))
			binary.BigEndian.PutUint16(h[10:], checksum(h))
		case IPv6:
			h[6] = next.proto
			binary.BigEndian.PutUint16(h[4:], uint16(rest))
		case Ext, FragExt, AH:
			h[0] = next.proto
		case UDP:
			binary.BigEndian.PutUint16(h[4:], uint16(len(h)+rest))
		}
		if _, ok := f.at[l.kind]; !ok {
			f.at[l.kind] = len(f.Data)
		}
		f.Data = append(f.Data, h...)
	}
	return f
}

// checksum is that of the IPv4 header (RFC 791), whose own field is still zero.
func checksum(h []byte) uint16 {
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Frame is a finished frame and knows where its layers are.
type Frame struct {
	Data []byte
	at   map[Kind]int
}

// At is where the first layer of a kind begins.
func (f *Frame) At(k Kind) int {
	at, ok := f.at[k]
	if !ok {
		panic(fmt.Sprintf("packet: the frame has no %s layer", k))
	}
	return at
}

// Has says whether the frame has a layer of a kind.
func (f *Frame) Has(k Kind) bool {
	_, ok := f.at[k]
	return ok
}
