// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// A second decoder of what the wire program decodes, written from the RFCs and from what abi.h says of
// each class, with slices and recursion and without a look at parse.h. Where both agree on every packet
// that chance can think of, neither has read past an end or believed a length that lies.

// rules are what a user may set and what a hook knows beside the bytes.
type rules struct {
	natt []uint16 // UDP ports that carry ESP
	l3   bool     // the packet begins with its IP header
	size int      // of the whole packet, where the bytes at hand are fewer; 0: they are all
}

// opinion is what a packet is.
type opinion struct {
	class        string
	asides       []string // sorted as the kernel's enum is: see aside
	family       uint8    // of the outer header, 0 if none was believed
	src, dst     netip.Addr
	sport, dport uint16 // of UDP, once its ports were read
	spi, seq     uint32 // of the classes esp and esp_udp
	bytes        uint64 // of the outer IP packet
	ike          []byte // the header of class ike
}

func (o *opinion) aside(name string) {
	if !slices.Contains(o.asides, name) {
		o.asides = append(o.asides, name)
	}
}

// stretch is the rest of a packet: the bytes at hand, and how many there are by its own account, which are
// fewer in a padded frame and more in one that a snap length has cut.
type stretch struct {
	bytes []byte
	size  int
}

// take splits n bytes off, if the packet has them and they are at hand.
func (s stretch) take(n int) (head []byte, rest stretch, ok bool) {
	if n > s.size || n > len(s.bytes) {
		return nil, s, false
	}
	return s.bytes[:n], stretch{s.bytes[n:], s.size - n}, true
}

// pass is take for bytes that nobody has to read.
func (s stretch) pass(n int) (rest stretch, ok bool) {
	if n > s.size {
		return s, false
	}
	return stretch{s.bytes[min(n, len(s.bytes)):], s.size - n}, true
}

func decode(frame []byte, r rules) opinion {
	var o opinion
	s := stretch{frame, max(r.size, len(frame))}
	if r.l3 {
		o.class = decodeBare(s, r, &o)
	} else {
		o.class = decodeEthernet(s, r, &o)
	}
	return o
}

// decodeBare has the version to go by, and no link header.
func decodeBare(s stretch, r rules, o *opinion) string {
	if len(s.bytes) == 0 {
		return "not_ip"
	}
	switch s.bytes[0] >> 4 {
	case 4:
		return decodeIPv4(s, r, o)
	case 6:
		return decodeIPv6(s, r, o)
	}
	return "not_ip"
}

// decodeEthernet follows IEEE 802.3 with at most two tags of 802.1Q or 802.1ad.
func decodeEthernet(s stretch, r rules, o *opinion) string {
	head, s, ok := s.take(14)
	if !ok {
		return "bad_eth"
	}
	kind := binary.BigEndian.Uint16(head[12:])
	tags := 0
	for kind == 0x8100 || kind == 0x88a8 {
		if tags == 2 {
			return "vlan_depth"
		}
		if head, s, ok = s.take(4); !ok {
			return "bad_eth"
		}
		tags++
		kind = binary.BigEndian.Uint16(head[2:])
	}
	if tags > 0 {
		o.aside([]string{"", "vlan", "vlan2"}[tags])
	}
	switch kind {
	case 0x0800:
		return decodeIPv4(s, r, o)
	case 0x86dd:
		return decodeIPv6(s, r, o)
	}
	return "not_ip"
}

// decodeIPv4 is RFC 791 section 3.1. A total length of 0 is BIG TCP's way of saying "more than 65,535".
func decodeIPv4(s stretch, r rules, o *opinion) string {
	head, _, ok := s.take(20)
	if !ok || head[0]>>4 != 4 {
		return "bad_ipv4"
	}
	length, total := int(head[0]&15)*4, int(binary.BigEndian.Uint16(head[2:]))
	if total == 0 && s.size > 65535 {
		total = s.size
	}
	if length < 20 || total < length || total > s.size {
		return "bad_ipv4"
	}
	o.family, o.bytes = 4, uint64(total)
	o.src, o.dst = netip.AddrFrom4([4]byte(head[12:])), netip.AddrFrom4([4]byte(head[16:]))
	fragment := binary.BigEndian.Uint16(head[6:])
	if fragment&0x1fff != 0 {
		return "frag_later"
	}
	if fragment&0x2000 != 0 {
		o.aside("frag_first")
	}
	rest, _ := stretch{s.bytes, total}.pass(length)
	return decodeNext(head[9], rest, r, o, 0)
}

// decodeIPv6 is RFC 8200 section 3, with BIG TCP as above.
func decodeIPv6(s stretch, r rules, o *opinion) string {
	head, s, ok := s.take(40)
	if !ok || head[0]>>4 != 6 {
		return "bad_ipv6"
	}
	payload := int(binary.BigEndian.Uint16(head[4:]))
	if payload == 0 && s.size > 65535 {
		payload = s.size
	}
	if payload > s.size {
		return "bad_ipv6"
	}
	o.family, o.bytes = 6, uint64(40+payload)
	o.src, o.dst = netip.AddrFrom16([16]byte(head[8:])), netip.AddrFrom16([16]byte(head[24:]))
	s.size = payload
	return decodeNext(head[6], s, r, o, 0)
}

// decodeNext is one header behind IP; passed counts those before it. Eight are followed.
func decodeNext(proto uint8, s stretch, r rules, o *opinion, passed int) string {
	const most = 8
	extension := o.family == 6 && (proto == 0 || proto == 43 || proto == 44 || proto == 60)
	if passed == most && (extension || proto == 51) {
		if o.family == 6 {
			return "ipv6_ext_depth"
		}
		return "ah"
	}
	switch {
	case proto == 51: // RFC 4302 section 2.2: the length is in words of four bytes, less two
		head, _, ok := s.take(12)
		if !ok {
			return "bad_ah"
		}
		length := (int(head[1]) + 2) * 4
		rest, ok := s.pass(length)
		if !ok || length < 12 {
			return "bad_ah"
		}
		o.aside("ah")
		return decodeNext(head[0], rest, r, o, passed+1)
	case extension && proto == 44: // RFC 8200 section 4.5
		head, rest, ok := s.take(8)
		if !ok {
			return "bad_ipv6_ext"
		}
		where := binary.BigEndian.Uint16(head[2:])
		if where>>3 != 0 {
			return "frag_later"
		}
		if where&1 != 0 {
			o.aside("frag_first")
		}
		return decodeNext(head[0], rest, r, o, passed+1)
	case extension: // RFC 8200 sections 4.3, 4.4, 4.6: in units of eight bytes, the first not counted
		head, _, ok := s.take(2)
		if !ok {
			return "bad_ipv6_ext"
		}
		rest, ok := s.pass((int(head[1]) + 1) * 8)
		if !ok {
			return "bad_ipv6_ext"
		}
		return decodeNext(head[0], rest, r, o, passed+1)
	case proto == 50:
		return decodeESP(s, o, "esp")
	case slices.Contains(o.asides, "ah"):
		return "ah"
	case proto == 17:
		return decodeUDP(s, r, o)
	}
	return "not_ipsec"
}

// decodeESP is RFC 4303 section 2.
func decodeESP(s stretch, o *opinion, class string) string {
	head, _, ok := s.take(8)
	if !ok {
		return "esp_short"
	}
	if slices.Contains(o.asides, "frag_first") {
		o.aside("frag_esp")
	}
	o.spi, o.seq = binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:])
	return class
}

// decodeUDP is RFC 768. A first fragment has the length of the whole datagram in it (RFC 791).
func decodeUDP(s stretch, r rules, o *opinion) string {
	ports, rest, ok := s.take(4)
	if !ok {
		return "bad_udp"
	}
	o.sport, o.dport = binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:])
	natt := slices.Contains(r.natt, o.sport) || slices.Contains(r.natt, o.dport)
	if !natt && o.sport != 500 && o.dport != 500 {
		return "not_ipsec"
	}
	head, rest, ok := rest.take(4)
	if !ok {
		return "bad_udp"
	}
	length := int(binary.BigEndian.Uint16(head)) - 8
	if length < 0 {
		return "bad_udp"
	}
	if !slices.Contains(o.asides, "frag_first") {
		if length > rest.size {
			return "bad_udp"
		}
		rest.size = length
	}
	if !natt {
		return decodeIKE(rest, o)
	}
	return decodeEncapsulated(rest, o)
}

// decodeEncapsulated is RFC 3948 section 2.
func decodeEncapsulated(s stretch, o *opinion) string {
	if s.size == 1 {
		if b, _, ok := s.take(1); ok && b[0] == 0xff {
			return "keepalive"
		}
		return "natt_short"
	}
	marker, rest, ok := s.take(4)
	switch {
	case !ok:
		return "natt_short"
	case binary.BigEndian.Uint32(marker) == 0:
		return decodeIKE(rest, o)
	}
	return decodeESP(s, o, "esp_udp")
}

// decodeIKE is RFC 7296 section 3.1 and RFC 2408 section 3.1.
func decodeIKE(s stretch, o *opinion) string {
	head, _, ok := s.take(28)
	if !ok || binary.BigEndian.Uint64(head) == 0 || head[17]>>4 != 1 && head[17]>>4 != 2 {
		return "bad_ike"
	}
	o.ike = head
	return "ike"
}
