// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/lab/packet"
)

// segmentOpinion is a second decoder of what inner_parse.h decodes, by RFC 791, RFC 8200 and RFC 9293: what
// the packet is, and between whom. Bytes that are not at hand are in pages, where they might lie in a real one.
func segmentOpinion(ip []byte) (fate string, from, to netip.AddrPort, rst bool) {
	if len(ip) < 20 {
		return "paged", from, to, false
	}
	var header, total int
	var src, dst netip.Addr
	switch ip[0] >> 4 {
	case 4:
		fragment := binary.BigEndian.Uint16(ip[6:])
		switch {
		case ip[9] != 6 || fragment&0x1fff != 0:
			return "other", from, to, false
		case fragment&0x2000 != 0:
			return "fragment", from, to, false
		}
		header, total = int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		src, dst = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	case 6:
		if len(ip) < 40 {
			return "paged", from, to, false
		}
		if ip[6] != 6 {
			return "other", from, to, false
		}
		header = 40
		if n := int(binary.BigEndian.Uint16(ip[4:])); n > 0 {
			total = 40 + n
		}
		src, dst = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	default:
		return "bad", from, to, false
	}
	if total == 0 { // BIG TCP
		total = len(ip)
	}
	if header < 20 || total < header+20 {
		return "bad", from, to, false
	}
	if len(ip) < header+20 {
		return "paged", from, to, false
	}
	tcp := ip[header:]
	offset := int(tcp[12]>>4) * 4
	if offset < 20 || total < header+offset {
		return "bad", from, to, false
	}
	if tcp[13]&2 != 0 && len(tcp) < offset { // a SYN has options to read
		return "paged", from, to, false
	}
	return "tcp", netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:])), tcp[13]&4 != 0
}

// TestInnerSecondDecoder has the kernel and the second decoder judge the same broken segments.
func TestInnerSecondDecoder(t *testing.T) {
	i := openInner(t)
	c := chance{rand.New(rand.NewPCG(20261127, 4))}
	met := counts{}
	before := i.fates()
	for range 6000 {
		ip := c.segment()
		// No EtherType of IP, or the kernel runs nothing shorter than a header.
		frame := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, ip...)
		i.now += 1000
		words := make([]uint32, 48)
		words[2], words[14], words[15] = 0xc0ffee01, uint32(i.now>>32), uint32(i.now)
		if ret, err := i.coll.Programs["inner_frame"].Run(&ebpf.RunOptions{Data: frame, Context: words}); err != nil || int32(ret) != -1 {
			t.Fatalf("run inner_frame: returned %d, %v\n% x", int32(ret), err, frame)
		}
		want, from, to, rst := segmentOpinion(ip)
		met[want]++
		after := i.fates()
		moved := minus(after, before)
		before = after
		opened := moved["opened"]
		delete(moved, "opened")
		if len(moved) != 1 || moved[want] != 1 || want != "tcp" && opened != 0 {
			t.Fatalf("fates %v, %d opened; the second decoder says %s\n% x", moved, opened, want, ip)
		}
		if want == "tcp" && !rst && !i.has(from, to) {
			t.Fatalf("no flow from %s to %s\n% x", from, to, ip)
		}
	}
	for _, fate := range []string{"tcp", "other", "fragment", "paged", "bad"} {
		if met[fate] < 20 {
			t.Errorf("%d packets of fate %s: too few", met[fate], fate)
		}
	}
	t.Logf("packets by fate: %v", met)
}

// has says whether the flow between two ends is in the table. The smaller end comes first, as the kernel
// compares them: as they lie in memory.
func (i *inner) has(from, to netip.AddrPort) bool {
	i.t.Helper()
	for _, ends := range [][2]netip.AddrPort{{from, to}, {to, from}} {
		key := InnerKey{Family: 6}
		if from.Addr().Is4() {
			key.Family = 4
		}
		for n, e := range ends {
			b := e.Addr().As16()
			key.Addr[n] = [2]uint64{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
			key.Port[n] = e.Port()
		}
		var flow InnerFlow
		if i.coll.Maps["inner_flows"].Lookup(key, &flow) == nil {
			return true
		}
	}
	return false
}

// segment is a TCP segment, or something like it, without a link header.
func (c chance) segment() []byte {
	b := packet.L3()
	if c.one(2) {
		b.IPv4Options(a4, b4, pick(c, 0, 0, 0, 1, 10))
		if c.one(8) {
			b.Fragment(pick(c, 0, 0, 8), c.one(2))
		}
	} else {
		b.IPv6(a6, b6)
		if c.one(8) {
			b.DstOpts(0)
		}
	}
	if c.one(10) {
		b.UDP(53, 53)
	}
	tcp := make([]byte, 20+4*c.IntN(11))
	binary.BigEndian.PutUint16(tcp, 1000+uint16(c.IntN(3)))
	binary.BigEndian.PutUint16(tcp[2:], 443)
	binary.BigEndian.PutUint32(tcp[4:], c.Uint32())
	tcp[12], tcp[13] = byte(len(tcp)/4)<<4, byte(c.IntN(64))
	for n := 20; n < len(tcp); n++ {
		tcp[n] = pick(c, byte(0), 1, 1, 2, 3, 3, 4, 8, 10, 255)
	}
	f := b.TCPHeader(tcp).Frame().Data
	for range pick(c, 0, 0, 1, 1, 2) {
		f = c.damage(f)
	}
	return f
}
