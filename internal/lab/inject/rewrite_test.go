// SPDX-License-Identifier: Apache-2.0

package inject

import (
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
