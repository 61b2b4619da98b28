// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// crafted is one packet in each of the four shapes that ESP has on the path.
func crafted(family int, udp bool) Crafted {
	c := Crafted{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"),
		UDP: udp, SPI: 0xdeadbeef, Seq: 77, Payload: bytes.Repeat([]byte{0xa5}, 61),
	}
	if family == 6 {
		c.Src, c.Dst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	return c
}

func TestCraftedIsReadAlikeByTwoParsers(t *testing.T) {
	for _, family := range []int{4, 6} {
		for _, udp := range []bool{false, true} {
			c := crafted(family, udp)
			frame := c.frame()
			p, ok := parse(frame)
			if !ok || p.spi != c.SPI || p.seq != c.Seq || p.end != len(frame) {
				t.Errorf("family %d, udp %v: parse = %+v, %v", family, udp, p, ok)
			}
			checkWithGopacket(t, frame, udp)
		}
	}
}

// checkWithGopacket lets another implementation verify headers and checksums.
func checkWithGopacket(t *testing.T, frame []byte, udp bool) {
	t.Helper()
	decoded := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if failure := decoded.ErrorLayer(); failure != nil && !udp {
		t.Errorf("gopacket: %v", failure.Error())
	}
	if udp {
		header, ok := decoded.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok {
			t.Fatalf("gopacket finds no UDP in %s", decoded)
		}
		if err := header.SetNetworkLayerForChecksum(decoded.NetworkLayer()); err != nil {
			t.Fatal(err)
		}
	} else if esp, ok := decoded.Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP); !ok || esp.SPI != 0xdeadbeef || esp.Seq != 77 {
		t.Errorf("gopacket reads %+v", esp)
	}
	err, mismatches := decoded.VerifyChecksums()
	if err != nil || len(mismatches) > 0 {
		t.Errorf("gopacket: checksums of %s: %v, %+v", decoded, err, mismatches)
	}
}

func TestCorruptFlipsOneBitAndKeepsChecksums(t *testing.T) {
	for _, family := range []int{4, 6} {
		for _, udp := range []bool{false, true} {
			for _, size := range []int{61, 62, 9} {
				c := crafted(family, udp)
				c.Payload = c.Payload[:min(size, len(c.Payload))]
				frame := c.frame()
				before := bytes.Clone(frame)
				p, _ := parse(frame)
				if err := corrupt(frame, p); err != nil {
					t.Errorf("family %d, udp %v, %d bytes: %v", family, udp, size, err)
					continue
				}
				var changed []int
				for i := range frame {
					inChecksum := p.udp != 0 && (i == p.udp+6 || i == p.udp+7)
					if frame[i] != before[i] && !inChecksum {
						changed = append(changed, i)
					}
				}
				if diff := cmp.Diff([]int{p.esp + espLen + ivLen}, changed); diff != "" {
					t.Errorf("family %d, udp %v: changed bytes (-want +got):\n%s", family, udp, diff)
				}
				checkWithGopacket(t, frame, udp)
			}
		}
	}
}

func TestCorruptNeedsCiphertext(t *testing.T) {
	c := crafted(4, false)
	c.Payload = c.Payload[:ivLen]
	frame := c.frame()
	p, _ := parse(frame)
	if err := corrupt(frame, p); !errors.Is(err, errTooShort) {
		t.Errorf("corrupt = %v, want %v", err, errTooShort)
	}
}

func TestParseDeclines(t *testing.T) {
	esp := func() []byte { return crafted(4, false).frame() }
	natt := func() []byte { return crafted(4, true).frame() }
	rows := []struct {
		name  string
		frame []byte
	}{
		{"empty", nil},
		{"header of Ethernet only", esp()[:ethLen]},
		{"ARP", mutate(esp(), func(f []byte) { f[12], f[13] = 8, 6 })},
		{"first fragment", mutate(esp(), func(f []byte) { f[ethLen+6] = 0x20 })},
		{"later fragment", mutate(esp(), func(f []byte) { f[ethLen+7] = 1 })},
		{"TCP", mutate(esp(), func(f []byte) { f[ethLen+9] = 6 })},
		{"impossible header length", mutate(esp(), func(f []byte) { f[ethLen] = 0x44 })},
		{"longer than the frame", mutate(esp(), func(f []byte) { f[ethLen+2] = 0xff })},
		{"no room for a sequence number", mutate(esp(), func(f []byte) { f[ethLen+2], f[ethLen+3] = 0, 27 })},
		{"IKE behind the marker", mutate(natt(), func(f []byte) { copy(f[ethLen+28:], []byte{0, 0, 0, 0}) })},
		{"UDP to other ports", mutate(natt(), func(f []byte) { f[ethLen+20], f[ethLen+22] = 1, 1 })},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if p, ok := parse(row.frame); ok {
				t.Errorf("parse = %+v, want none", p)
			}
		})
	}
}

func mutate(frame []byte, f func([]byte)) []byte {
	f(frame)
	return frame
}
