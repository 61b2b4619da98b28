// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// TestRewrite: marks and ports change, and every checksum stays right.
func TestRewrite(t *testing.T) {
	for _, ends := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		c := Crafted{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), Src: netip.MustParseAddr(ends[0]), Dst: netip.MustParseAddr(ends[1]),
			UDP: true, SPI: 7, Seq: 1, Payload: make([]byte, 40)}
		frame := c.frame()
		p, ok := parse(frame)
		if !ok {
			t.Fatal("the crafted frame is no ESP")
		}
		for _, r := range []Rule{{Action: Mark}, {Action: Move, Port: 61234}} {
			if err := rewrite(frame, p, r); err != nil {
				t.Fatal(err)
			}
		}
		head := frame[ethLen:]
		tos := head[1]
		if c.Src.Is6() {
			tos = uint8(binary.BigEndian.Uint16(head) >> 4)
			if want := c.checksum(protoUDP, withoutSum(frame[p.udp:p.end])); binary.BigEndian.Uint16(frame[p.udp+6:]) != want {
				t.Errorf("UDP checksum %#x, want %#x", frame[p.udp+6:p.udp+8], want)
			}
		} else if fold(sum(head[:ipv4NoFlags])) != 0xffff {
			t.Error("the header's checksum does not match")
		}
		if tos&3 != 3 || binary.BigEndian.Uint16(frame[p.udp:]) != 61234 {
			t.Errorf("traffic class %#x, source port %d", tos, binary.BigEndian.Uint16(frame[p.udp:]))
		}
		if _, ok := parse(frame); !ok {
			t.Error("the rewritten frame is no ESP")
		}
	}
	c := Crafted{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), SPI: 7}
	frame := c.frame()
	p, _ := parse(frame)
	if err := rewrite(frame, p, Rule{Action: Move, Port: 1}); err == nil {
		t.Error("a packet without UDP was moved")
	}
}

func withoutSum(udp []byte) []byte {
	out := clone(udp)
	out[6], out[7] = 0, 0
	return out
}

// TestEncapsulation: what unwrap takes away wrap puts back, and neither does it twice or over IPv6.
func TestEncapsulation(t *testing.T) {
	natt, plain := crafted(4, true).frame(), crafted(4, false).frame()
	for _, row := range []struct {
		name     string
		change   func([]byte, packet) ([]byte, error)
		from, to []byte
	}{{"wrap", wrap, plain, natt}, {"unwrap", unwrap, natt, plain}} {
		p, _ := parse(row.from)
		got, err := row.change(row.from, p)
		if err != nil || !bytes.Equal(got, row.to) {
			t.Errorf("%s: %v, %x, want %x", row.name, err, got, row.to)
		}
		p, _ = parse(row.to)
		if _, err := row.change(row.to, p); err == nil {
			t.Errorf("%s: done twice", row.name)
		}
	}
	for _, udp := range []bool{false, true} {
		frame := crafted(6, udp).frame()
		p, _ := parse(frame)
		if _, err := wrap(frame, p); err == nil {
			t.Error("a packet over IPv6 was put in UDP")
		}
	}
}
