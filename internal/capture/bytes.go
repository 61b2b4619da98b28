// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"

	"xfrmscope/internal/bpfobj"
)

const (
	protoUDP  = 17
	protoESP  = 50
	udpHeader = 8
	ip6Header = 40
)

// mend makes the headers of a packet in the stack whole where the kernel, at that moment, has not done so:
// in transport mode the protocol of a decrypted packet is written into its IP header one function later, and
// what came in UDP has lost the UDP header's length from its own.
func (p *packet) mend() {
	b := p.data
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header := int(b[0]&15) * 4
		switch {
		case header < 20 || header > len(b):
			return
		case p.head.Inner != 0:
			b[9] = p.head.Inner
			binary.BigEndian.PutUint16(b[2:], uint16(min(p.head.WireLen, 0xffff)))
		case p.head.Point == bpfobj.PacketDrop && b[9] == protoUDP && len(b) >= header+udpHeader:
			total := header + int(binary.BigEndian.Uint16(b[header+4:]))
			if total <= int(binary.BigEndian.Uint16(b[2:])) || total > 0xffff {
				return
			}
			binary.BigEndian.PutUint16(b[2:], uint16(total))
			p.head.WireLen = max(p.head.WireLen, uint32(total))
		default:
			return
		}
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], checksum(b[:header]))
	case len(b) >= ip6Header && b[0]>>4 == 6 && p.head.Inner != 0:
		b[6] = p.head.Inner
		binary.BigEndian.PutUint16(b[4:], uint16(min(p.head.WireLen-ip6Header, 0xffff)))
	}
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// readNumber reads the sequence number of a packet that was dropped with its ESP header still on.
func (p *packet) readNumber() {
	if p.numbered() || p.key.SPI == 0 || p.head.Flags&bpfobj.PacketFlagDecrypted != 0 || len(p.data) < 20 {
		return
	}
	b, proto := p.data, p.data[9]
	at := int(b[0]&15) * 4
	if b[0]>>4 == 6 {
		at, proto = ip6Header, b[6]
	}
	if proto == protoUDP {
		at += udpHeader
	} else if proto != protoESP {
		return
	}
	if len(b) < at+8 || binary.BigEndian.Uint32(b[at:]) != uint32(p.key.SPI) {
		return
	}
	p.head.Seq = uint64(binary.BigEndian.Uint32(b[at+4:]))
	p.head.Flags |= bpfobj.PacketFlagSeq
}
