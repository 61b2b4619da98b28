// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
)

// Offsets and numbers of the headers that ESP travels in.
const (
	ethLen      = 14
	ipv6Len     = 40
	udpLen      = 8
	espLen      = 8 // SPI and sequence number (RFC 4303 section 2)
	ivLen       = 8 // of AES-GCM (RFC 4106 section 3.1)
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	protoUDP    = 17
	protoESP    = 50
	encapPort   = 4500 // RFC 3948 section 2
	hopLimit    = 64
	ipv4NoFlags = 20 // length of an IPv4 header without options
)

// packet is where the ESP header and what surrounds it lie in a frame. It is deliberately a small
// reader of its own: the injector must not share mistakes with the programs that it judges.
type packet struct {
	spi uint32
	seq uint32
	udp int // offset of the UDP header, 0 without encapsulation
	esp int // offset of the ESP header
	ip  int // length of the outer IP packet
	end int // offset of the first byte after the IP packet
}

// header is where the transport header of an IP packet lies.
type header struct {
	proto byte
	at    int // offset of the transport header
	ip    int // length of the IP packet
	end   int // offset of the first byte after it
}

// network finds the transport header; ok is false for what is no IP, a fragment or not whole.
func network(frame []byte) (h header, ok bool) {
	if len(frame) < ethLen {
		return h, false
	}
	switch body := frame[ethLen:]; binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4:
		if len(body) < ipv4NoFlags || body[0]>>4 != 4 || int(body[0]&15)*4 < ipv4NoFlags {
			return h, false
		}
		if binary.BigEndian.Uint16(body[6:])&0x3fff != 0 { // a fragment, first or later
			return h, false
		}
		h.proto, h.at = body[9], ethLen+int(body[0]&15)*4
		h.ip = int(binary.BigEndian.Uint16(body[2:]))
	case etherIPv6:
		if len(body) < ipv6Len || body[0]>>4 != 6 {
			return h, false
		}
		h.proto, h.at = body[6], ethLen+ipv6Len
		h.ip = ipv6Len + int(binary.BigEndian.Uint16(body[4:]))
	default:
		return h, false
	}
	h.end = ethLen + h.ip
	return h, h.end <= len(frame)
}

// parse finds the ESP header of a frame; ok is false for everything that is not whole ESP.
func parse(frame []byte) (p packet, ok bool) {
	h, ok := network(frame)
	if !ok {
		return p, false
	}
	p.ip, p.end = h.ip, h.end
	proto, at := h.proto, h.at
	if proto == protoUDP {
		if at+udpLen > p.end || !onEncapPort(frame[at:]) {
			return p, false
		}
		p.udp, at, proto = at, at+udpLen, protoESP
	}
	if proto != protoESP || at+espLen > p.end {
		return p, false
	}
	p.esp = at
	p.spi, p.seq = binary.BigEndian.Uint32(frame[at:]), binary.BigEndian.Uint32(frame[at+4:])
	// On the encapsulation port an SPI of zero is the marker of IKE (RFC 3948 section 2.2).
	return p, p.udp == 0 || p.spi != 0
}

func onEncapPort(udp []byte) bool {
	return binary.BigEndian.Uint16(udp) == encapPort || binary.BigEndian.Uint16(udp[2:]) == encapPort
}

// errTooShort says that a packet has no ciphertext to damage.
var errTooShort = errors.New("ESP packet has no byte of ciphertext to corrupt")

// corrupt flips one bit in the first byte of ciphertext, behind the IV, and mends the UDP checksum
// where there is one: the packet must reach the integrity check, not die before it.
func corrupt(frame []byte, p packet) error {
	at := p.esp + espLen + ivLen
	if at+1 > p.end {
		return errTooShort
	}
	if p.udp == 0 || binary.BigEndian.Uint16(frame[p.udp+6:]) == 0 {
		frame[at] ^= 0x01
		return nil
	}
	word := p.udp + (at-p.udp)&^1
	old := wordAt(frame[:p.end], word)
	frame[at] ^= 0x01
	mend(frame[p.udp+6:], old, wordAt(frame[:p.end], word))
	return nil
}

// errNotInUDP says that a packet has no port that could change.
var errNotInUDP = errors.New("ESP packet is not in UDP and has no port to move to")

// rewrite changes what routers change: the ECN field of the outer header, or the UDP source port.
func rewrite(frame []byte, p packet, r Rule) error {
	if r.Action == Move {
		if p.udp == 0 {
			return errNotInUDP
		}
		old := binary.BigEndian.Uint16(frame[p.udp:])
		binary.BigEndian.PutUint16(frame[p.udp:], r.Port)
		if binary.BigEndian.Uint16(frame[p.udp+6:]) != 0 {
			mend(frame[p.udp+6:], old, r.Port)
		}
		return nil
	}
	head := frame[ethLen:]
	if head[0]>>4 == 6 {
		head[1] |= 0x30 // the two lowest bits of the traffic class
		return nil
	}
	old := binary.BigEndian.Uint16(head)
	head[1] |= 0x03
	mend(head[10:], old, binary.BigEndian.Uint16(head))
	return nil
}

// errNotPlain says that a packet has no room for a UDP header.
var errNotPlain = errors.New("ESP packet is in UDP already, or not over IPv4")

// unwrap takes the UDP header away.
func unwrap(frame []byte, p packet) ([]byte, error) {
	if p.udp == 0 || frame[ethLen]>>4 != 4 {
		return frame, errNotInUDP
	}
	out := append(clone(frame[:p.udp]), frame[p.esp:p.end]...)
	carry(out, p.udp, protoESP)
	return out, nil
}

// wrap puts a UDP header before the ESP header, with the checksum of zero that RFC 3948 section 2.1 wants.
func wrap(frame []byte, p packet) ([]byte, error) {
	if p.udp != 0 || frame[ethLen]>>4 != 4 {
		return frame, errNotPlain
	}
	out := clone(frame[:p.esp])
	for _, field := range []uint16{encapPort, encapPort, uint16(udpLen + p.end - p.esp), 0} {
		out = binary.BigEndian.AppendUint16(out, field)
	}
	out = append(out, frame[p.esp:p.end]...)
	carry(out, p.esp, protoUDP)
	return out, nil
}

// carry sets in the IPv4 header before at what depends on the payload.
func carry(frame []byte, at int, proto byte) {
	head := frame[ethLen:at]
	binary.BigEndian.PutUint16(head[2:], uint16(len(frame)-ethLen))
	head[9] = proto
	head[10], head[11] = 0, 0
	binary.BigEndian.PutUint16(head[10:], ^fold(sum(head)))
}

// wordAt reads the 16 bits that the Internet checksum sees there: an odd last byte is padded with
// zero (RFC 1071 section 1).
func wordAt(b []byte, at int) uint16 {
	if at+1 < len(b) {
		return binary.BigEndian.Uint16(b[at:])
	}
	return uint16(b[at]) << 8
}

// mend updates a checksum for one changed word (RFC 1624 section 3, equation 3).
func mend(sum []byte, old, now uint16) {
	n := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^old) + uint32(now)
	n = n&0xffff + n>>16
	n = n&0xffff + n>>16
	out := ^uint16(n)
	if out == 0 { // zero would mean "no checksum" (RFC 768)
		out = 0xffff
	}
	binary.BigEndian.PutUint16(sum, out)
}

// Crafted describes an ESP packet made from nothing, such as one of an SA that nobody has.
type Crafted struct {
	SrcMAC, DstMAC net.HardwareAddr
	Src, Dst       netip.Addr
	UDP            bool // in UDP on the encapsulation port
	SPI, Seq       uint32
	Payload        []byte // IV, ciphertext and ICV
}

// frame builds the bytes. The UDP checksum stays zero over IPv4 (RFC 3948 section 2.1) and is
// computed over IPv6.
func (c Crafted) frame() []byte {
	body := binary.BigEndian.AppendUint32(nil, c.SPI)
	body = binary.BigEndian.AppendUint32(body, c.Seq)
	body = append(body, c.Payload...)
	proto := byte(protoESP)
	if c.UDP {
		proto = protoUDP
		udp := binary.BigEndian.AppendUint16(nil, encapPort)
		udp = binary.BigEndian.AppendUint16(udp, encapPort)
		udp = binary.BigEndian.AppendUint16(udp, uint16(udpLen+len(body)))
		udp = binary.BigEndian.AppendUint16(udp, 0)
		body = append(udp, body...)
		if c.Dst.Is6() {
			binary.BigEndian.PutUint16(body[6:], c.checksum(proto, body))
		}
	}
	f := append(append([]byte{}, c.DstMAC...), c.SrcMAC...)
	if c.Dst.Is6() {
		f = binary.BigEndian.AppendUint16(f, etherIPv6)
		f = append(f, 0x60, 0, 0, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(len(body)))
		f = append(f, proto, hopLimit)
		f = append(append(f, c.Src.AsSlice()...), c.Dst.AsSlice()...)
		return append(f, body...)
	}
	f = binary.BigEndian.AppendUint16(f, etherIPv4)
	header := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, hopLimit, proto, 0, 0}
	binary.BigEndian.PutUint16(header[2:], uint16(ipv4NoFlags+len(body)))
	header = append(append(header, c.Src.AsSlice()...), c.Dst.AsSlice()...)
	binary.BigEndian.PutUint16(header[10:], ^fold(sum(header)))
	return append(append(f, header...), body...)
}

// checksum is that of RFC 8200 section 8.1, pseudo-header included.
func (c Crafted) checksum(proto byte, body []byte) uint16 {
	n := sum(c.Src.AsSlice()) + sum(c.Dst.AsSlice()) + uint32(len(body)) + uint32(proto) + sum(body)
	if out := ^fold(n); out != 0 {
		return out
	}
	return 0xffff
}

func sum(b []byte) (n uint32) {
	for ; len(b) > 1; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		n += uint32(b[0]) << 8
	}
	return n
}

func fold(n uint32) uint16 {
	for n > 0xffff {
		n = n&0xffff + n>>16
	}
	return uint16(n)
}
