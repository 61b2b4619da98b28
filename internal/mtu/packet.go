// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Sizes of headers, in octets.
const (
	ipv4Header = 20
	ipv6Header = 40
	icmpHeader = 8
	udpHeader  = 8
)

const (
	protoICMP   = 1
	protoUDP    = 17
	protoICMPv6 = 58
	protoScout  = 253 // for experiments (RFC 3692, RFC 4727)
)

// ICMP types and codes (RFC 792, RFC 4443).
const (
	echoReply4, unreachable4, echoRequest4, exceeded4, parameter4               = 0, 3, 8, 11, 12
	unreachable6, tooBig6, exceeded6, parameter6, echoRequest6, echoReply6      = 1, 2, 3, 4, 128, 129
	fragNeeded                                                             byte = 4
)

// ipHeader is the size of a packet's IP header; the packets sent have no options.
func ipHeader(a netip.Addr) int {
	if a.Is4() {
		return ipv4Header
	}
	return ipv6Header
}

// echo writes an ICMP echo request with its payload. Over IPv6 the kernel fills in the checksum.
func echo(v6 bool, id, seq uint16, payload []byte) []byte {
	b := make([]byte, icmpHeader, icmpHeader+len(payload))
	b[0] = echoRequest4
	if v6 {
		b[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	b = append(b, payload...)
	if !v6 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// message is an ICMP message as far as it may answer a packet of ours.
type message struct {
	reply   bool // an echo reply: id and seq are its own; else an error: they are those of the packet it quotes
	typ     byte
	code    byte
	mtu     int // of fragmentation needed and packet too big
	id, seq uint16
	quote   quote
}

// quote is the packet that an ICMP error is about.
type quote struct {
	src, dst     netip.Addr
	proto        byte
	sport, dport uint16
	size         int // of the whole packet, by its own header
}

// parseICMP reads an ICMP message, of which an error has to quote the packet's IP header and eight octets
// more (RFC 792; RFC 4443 section 2.4 asks for as much as fits).
func parseICMP(v6 bool, b []byte) (m message, ok bool) {
	if len(b) < icmpHeader {
		return m, false
	}
	m.typ, m.code = b[0], b[1]
	if m.typ == echoReply4 && !v6 || m.typ == echoReply6 && v6 {
		m.reply = true
		m.id, m.seq = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		return m, true
	}
	switch {
	case v6 && m.typ == tooBig6:
		m.mtu = int(min(binary.BigEndian.Uint32(b[4:]), 1<<16))
	case v6 && (m.typ == unreachable6 || m.typ == exceeded6 || m.typ == parameter6):
	case !v6 && m.typ == unreachable4:
		if m.code == fragNeeded {
			m.mtu = int(binary.BigEndian.Uint16(b[6:])) // RFC 1191 section 4
		}
	case !v6 && (m.typ == exceeded4 || m.typ == parameter4):
	default:
		return m, false
	}
	inner, ok := m.quote.readIP(v6, b[icmpHeader:])
	if !ok || len(inner) < 8 {
		return m, false
	}
	switch m.quote.proto {
	case protoUDP:
		m.quote.sport, m.quote.dport = binary.BigEndian.Uint16(inner), binary.BigEndian.Uint16(inner[2:])
	case protoScout:
		m.id = binary.BigEndian.Uint16(inner)
	case protoICMP, protoICMPv6:
		if request := inner[0]; request != echoRequest4 && !v6 || request != echoRequest6 && v6 {
			return m, false
		}
		m.id, m.seq = binary.BigEndian.Uint16(inner[4:]), binary.BigEndian.Uint16(inner[6:])
	default:
		return m, false
	}
	return m, true
}

// readIP reads the quoted IP header and returns what follows it. Our packets have no options and no
// extension headers; what has is not ours.
func (q *quote) readIP(v6 bool, b []byte) (rest []byte, ok bool) {
	if v6 {
		if len(b) < ipv6Header || b[0]>>4 != 6 {
			return nil, false
		}
		q.src, q.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		q.proto, q.size = b[6], ipv6Header+int(binary.BigEndian.Uint16(b[4:]))
		return b[ipv6Header:], true
	}
	if len(b) < ipv4Header || b[0] != 0x45 {
		return nil, false
	}
	q.src, q.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	q.proto, q.size = b[9], int(binary.BigEndian.Uint16(b[2:]))
	return b[ipv4Header:], true
}

// stripIPv4 takes the header off a packet as a raw IPv4 socket gives it.
func stripIPv4(b []byte) ([]byte, bool) {
	if len(b) < ipv4Header {
		return nil, false
	}
	header := int(b[0]&0xf) * 4
	if header < ipv4Header || len(b) < header {
		return nil, false
	}
	return b[header:], true
}

// explain puts an ICMP error into words.
func (m *message) explain(v6 bool) string {
	v4Codes := []string{"network unreachable", "host unreachable", "protocol unreachable", "port unreachable",
		"fragmentation needed", "source route failed", "network unknown", "host unknown", "source host isolated",
		"network prohibited", "host prohibited", "network unreachable for this type of service",
		"host unreachable for this type of service", "prohibited by a filter"}
	v6Codes := []string{"no route", "prohibited by a filter", "beyond the scope of the source address",
		"address unreachable", "port unreachable", "source address not allowed", "route rejected"}
	switch {
	case v6 && m.typ == unreachable6 && int(m.code) < len(v6Codes):
		return v6Codes[m.code]
	case !v6 && m.typ == unreachable4 && int(m.code) < len(v4Codes):
		return v4Codes[m.code]
	case m.typ == exceeded4 && !v6 || m.typ == exceeded6 && v6:
		return "time exceeded: the path has a loop or is too long"
	}
	return fmt.Sprintf("ICMP type %d code %d", m.typ, m.code)
}
