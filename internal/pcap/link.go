// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"encoding/binary"
	"fmt"
)

// LinkType is the kind of link-layer header, as the registry at tcpdump.org numbers them.
type LinkType uint32

// The link types that can be read.
const (
	LinkNull     LinkType = 0   // BSD loopback: address family in the capturing host's byte order
	LinkEthernet LinkType = 1   //
	LinkRaw12    LinkType = 12  // raw IP, as most systems number it inside the kernel
	LinkRaw14    LinkType = 14  // raw IP, as OpenBSD does
	LinkRaw      LinkType = 101 // raw IP, version in the first nibble
	LinkLoop     LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinkSLL      LinkType = 113 // Linux cooked
	LinkIPv4     LinkType = 228
	LinkIPv6     LinkType = 229
	LinkSLL2     LinkType = 276 // Linux cooked, version 2
)

// names of link types that people meet.
var linkNames = map[LinkType]string{
	LinkNull: "null", LinkEthernet: "Ethernet", LinkRaw12: "raw IP", LinkRaw14: "raw IP", LinkRaw: "raw IP",
	LinkLoop: "loop", LinkSLL: "Linux cooked", LinkIPv4: "raw IPv4", LinkIPv6: "raw IPv6", LinkSLL2: "Linux cooked v2",
	6: "Token Ring", 8: "SLIP", 9: "PPP", 10: "FDDI", 50: "PPP in HDLC", 51: "PPPoE", 104: "Cisco HDLC", 105: "IEEE 802.11",
	107: "Frame Relay", 117: "OpenBSD pflog", 119: "Prism", 127: "IEEE 802.11 radiotap", 147: "private use 0",
	189: "USB", 195: "IEEE 802.15.4", 220: "USB, padded", 239: "netfilter log", 247: "InfiniBand", 249: "USBPcap",
	252: "Wireshark upper PDU", 253: "netlink", 271: "vsock",
}

// String names the type as the registry does.
func (t LinkType) String() string {
	if name, ok := linkNames[t]; ok {
		return fmt.Sprintf("%d (%s)", uint32(t), name)
	}
	return fmt.Sprintf("%d", uint32(t))
}

const (
	etherHeader = 14
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	// etherNone is no EtherType: the frame is delivered and counted, and is not IP.
	etherNone = 0xffff
)

// shape says how a link type's packets become Ethernet frames: how long their own header is, and where
// the EtherType of what follows is to be found.
type shape struct {
	header int
	ether  func(p []byte) uint16
}

// shapes has all link types that can be read, but for Ethernet itself.
var shapes = map[LinkType]shape{
	LinkRaw12: {0, etherOfIP},
	LinkRaw14: {0, etherOfIP},
	LinkRaw:   {0, etherOfIP},
	LinkIPv4:  {0, func([]byte) uint16 { return etherIPv4 }},
	LinkIPv6:  {0, func([]byte) uint16 { return etherIPv6 }},
	LinkSLL:   {16, func(p []byte) uint16 { return binary.BigEndian.Uint16(p[14:]) }},
	LinkSLL2:  {20, func(p []byte) uint16 { return binary.BigEndian.Uint16(p) }},
	LinkLoop:  {4, func(p []byte) uint16 { return etherOfFamily(binary.BigEndian.Uint32(p)) }},
	LinkNull: {4, func(p []byte) uint16 {
		// Families are small numbers, so the order in which it is one is the right one.
		v := binary.LittleEndian.Uint32(p)
		if v > 0xffff {
			v = binary.BigEndian.Uint32(p)
		}
		return etherOfFamily(v)
	}},
}

func etherOfIP(p []byte) uint16 {
	if len(p) > 0 {
		switch p[0] >> 4 {
		case 4:
			return etherIPv4
		case 6:
			return etherIPv6
		}
	}
	return etherNone
}

// etherOfFamily knows AF_INET, which is 2 everywhere, and AF_INET6 of Linux, NetBSD and OpenBSD,
// FreeBSD, and macOS.
func etherOfFamily(family uint32) uint16 {
	switch family {
	case 2:
		return etherIPv4
	case 10, 24, 28, 30:
		return etherIPv6
	}
	return etherNone
}

// frame turns the packet at buf[at:] into an Ethernet frame, in place: the bytes before it make room
// for the header. It returns where the frame begins. Addresses are zero; there are none to tell. A
// packet shorter than its own link header becomes an empty frame, which the wire program counts as
// malformed.
func (t LinkType) frame(buf []byte, at int) (start int) {
	s, ok := t.shape()
	if !ok { // Ethernet
		return at
	}
	if len(buf)-at < s.header {
		return len(buf)
	}
	ether := s.ether(buf[at:])
	start = at + s.header - etherHeader
	clear(buf[start : start+12])
	binary.BigEndian.PutUint16(buf[start+12:], ether)
	return start
}

// grown is how much longer a packet became by turning it into an Ethernet frame.
func (t LinkType) grown() int {
	if s, ok := t.shape(); ok {
		return etherHeader - s.header
	}
	return 0
}

func (t LinkType) known() bool {
	_, ok := t.shape()
	return ok || t == LinkEthernet
}

// shape is what is to be done to a packet. Ethernet has none, and most packets are of it: they are spared
// the map.
func (t LinkType) shape() (shape, bool) {
	if t == LinkEthernet {
		return shape{}, false
	}
	s, ok := shapes[t]
	return s, ok
}
