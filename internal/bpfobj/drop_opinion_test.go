// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// A second decoder of what the programs in the stack decode: drop_packet.h, drops_packet.h, pmtu_packet.h and
// packet_snap.h. They read what has no frame around it, may lack lengths that are not written yet, and lies partly in
// pages, so they go by less than the wire program does.

// outer is an IP packet, as far as it is linear.
type outer struct {
	family   uint8
	proto    uint8 // of what is behind the headers that were followed
	src, dst netip.Addr
	length   int    // by its own account; 0: it says nothing
	later    bool   // a fragment that is not the first one
	header   int    // bytes in front of `rest`
	rest     []byte // what is behind those headers
}

// ipOpinion follows so many IPv6 extension headers at most. A header that is not all there is none.
func ipOpinion(b []byte, extensions int, kinds ...uint8) (o outer, ok bool) {
	if len(b) < 20 {
		return o, false
	}
	switch b[0] >> 4 {
	case 4: // RFC 791 section 3.1
		o = outer{family: 4, proto: b[9], length: int(binary.BigEndian.Uint16(b[2:])), header: int(b[0]&15) * 4,
			later: binary.BigEndian.Uint16(b[6:])&0x1fff != 0,
			src:   netip.AddrFrom4([4]byte(b[12:])), dst: netip.AddrFrom4([4]byte(b[16:]))}
		if o.header < 20 {
			return o, false
		}
	case 6: // RFC 8200 section 3
		if len(b) < 40 {
			return o, false
		}
		o = outer{family: 6, proto: b[6], header: 40, src: netip.AddrFrom16([16]byte(b[8:])), dst: netip.AddrFrom16([16]byte(b[24:]))}
		if n := int(binary.BigEndian.Uint16(b[4:])); n > 0 {
			o.length = 40 + n
		}
		for range extensions {
			if !slices.Contains(kinds, o.proto) || len(b) < o.header+8 {
				break
			}
			ext := b[o.header:]
			if o.header += 8; o.proto != 44 {
				o.header += int(ext[1]) * 8
			}
			o.later = o.proto == 44 && binary.BigEndian.Uint16(ext[2:])>>3 != 0
			if o.proto = ext[0]; o.later {
				break
			}
		}
	default:
		return o, false
	}
	o.rest = b[min(o.header, len(b)):]
	return o, true
}

// ip is the packet's header, where the stack has said where that is.
func (p skb) ip(extensions int, kinds ...uint8) (o outer, ok bool) {
	if p.network == 0 || p.network == noHeader {
		return o, false
	}
	return ipOpinion(p.packet, extensions, kinds...)
}

// encapsulated is RFC 3948 section 2 for a UDP header: what the datagram is, and its SPI, 0 where it is not linear.
func encapsulated(udp []byte) (what string, spi uint32) {
	sport, dport, length := binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:]), binary.BigEndian.Uint16(udp[4:])
	if !slices.Contains(nattPorts, sport) && !slices.Contains(nattPorts, dport) {
		if sport == 500 || dport == 500 {
			return "ike", 0
		}
		return "other", 0
	}
	switch {
	case length == 9:
		return "keepalive", 0
	case length < 16: // neither SPI and number nor marker and IKE header
		return "ike", 0
	case len(udp) < 12:
		return "esp", 0
	case binary.BigEndian.Uint32(udp[8:]) == 0:
		return "ike", 0
	}
	return "esp", binary.BigEndian.Uint32(udp[8:])
}

// hostDropOpinion is what host_drop makes of a packet that was received and not decrypted: one key, or none.
func (p skb) hostDropOpinion() (key DropKey, ok bool) {
	o, ok := p.ip(1, 44)
	if !ok || o.later || len(o.rest) < 8 {
		return key, false
	}
	key = DropKey{Src: o.src.As16(), Dst: o.dst.As16(), Family: o.family, Proto: o.proto, Ifindex: forgedIndex, Location: 1, Reason: 2,
		Stage: DropDropStageDROP_BEFORE_XFRM, Hook: DropDropHookDROP_HOOK_PREROUTING}
	switch o.proto {
	case 17:
		key.Sport, key.Dport = binary.BigEndian.Uint16(o.rest), binary.BigEndian.Uint16(o.rest[2:])
		what, spi := encapsulated(o.rest)
		switch key.Spi = spi; what {
		case "other":
			return key, false
		case "esp":
			key.Proto = 50
		case "ike":
			key.Stage = DropDropStageDROP_IKE
		case "keepalive":
			key.Stage = DropDropStageDROP_KEEPALIVE
		}
	case 50:
		key.Spi = binary.BigEndian.Uint32(o.rest)
	case 51:
		key.Spi = binary.BigEndian.Uint32(o.rest[4:])
	default:
		return key, false
	}
	return key, true
}

// skb is a packet in the stack, or something like it.
func (c chance) skb() skb {
	p := skb{packet: c.frame(true), network: 64 + 2*uint16(c.IntN(100))}
	if c.one(3) { // a part of it, seldom without the headers, is in pages
		n := min(len(p.packet), pick(c, 20, 40, 20+c.IntN(40), 28, 48, c.IntN(100)))
		p.packet, p.paged = p.packet[:n], len(p.packet)-n
	}
	if len(p.packet) > 0 {
		p.protocol = map[byte]uint16{4: 0x0800, 6: 0x86dd}[p.packet[0]>>4]
	}
	if c.one(10) {
		p.protocol = pick(c, 0, 0, uint16(0x0800), 0x86dd, 0x0806)
	}
	if c.one(30) {
		p.network = pick(c, 0, uint16(noHeader))
	}
	return p
}

// TestHostDropSecondDecoder has host_drop and the second decoder judge the same broken packets.
func TestHostDropSecondDecoder(t *testing.T) {
	f := newForge(t)
	spec, err := LoadDrop()
	if err != nil {
		t.Fatal(err)
	}
	if err := ConfigureDrop(spec, true, nattPorts); err != nil {
		t.Fatal(err)
	}
	coll := f.load(spec)
	c := chance{rand.New(rand.NewPCG(20261128, 1))}
	met := counts{}
	for range 8000 {
		p := c.skb()
		f.run(coll.Programs["host_drop"], f.set(c, p), 1, 2)
		got := emptied[DropKey, []uint64](t, coll.Maps["stray_drops"])
		want, drop := p.hostDropOpinion()
		switch {
		case !drop:
			met["none"]++
		default:
			met[kind(want)]++
		}
		if n := len(emptied[DropKey, []uint64](t, coll.Maps["host_drops"])); n != 0 {
			t.Fatalf("%d packets sent, want none", n)
		}
		if _, there := got[want]; there != drop || len(got) > 1 || len(got) == 1 && !drop {
			t.Fatalf("counted as %+v; the second decoder says %+v, %v\nnetwork header at %d, protocol %#x, % x, %d bytes in pages",
				got, want, drop, p.network, p.protocol, p.packet, p.paged)
		}
	}
	enough(t, met, "none", "esp", "esp in udp", "esp without spi", "ah", "ike", "keepalive")
}

func kind(k DropKey) string {
	switch {
	case k.Stage == DropDropStageDROP_IKE:
		return "ike"
	case k.Stage == DropDropStageDROP_KEEPALIVE:
		return "keepalive"
	case k.Proto == 51:
		return "ah"
	case k.Spi == 0:
		return "esp without spi"
	case k.Dport != 0:
		return "esp in udp"
	}
	return "esp"
}

// enough demands that a generator got everywhere: else it proves nothing of it.
func enough(t *testing.T, met counts, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		if met[kind] < 20 {
			t.Errorf("%d packets of the kind %q: too few", met[kind], kind)
		}
	}
	t.Logf("packets: %v", met)
}
