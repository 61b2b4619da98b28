// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Messages as a Linux router sent them, cut after the quoted eight octets.
const (
	fragNeeded4 = "0304f783 00000578 4500 05dc 0001 4000 40 01 50b3 c0000201 c6336402 0800 1d3d 004d 0001"
	tooBigUDP6  = "0200 34e2 00000578 60000000 05b4 11 40 20010db8000100000000000000000001 20010db8000200000000000000000002 d431 829a 05b4 0000"
)

func TestParseICMP(t *testing.T) {
	got, ok := parseICMP(false, fromHex(t, fragNeeded4))
	want := message{typ: 3, code: 4, mtu: 1400, id: 77, seq: 1,
		quote: quote{src: netip.MustParseAddr("192.0.2.1"), dst: netip.MustParseAddr("198.51.100.2"), proto: protoICMP, size: 1500}}
	compare := cmp.Options{cmp.AllowUnexported(message{}, quote{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
	if diff := cmp.Diff(want, got, compare); diff != "" || !ok {
		t.Errorf("fragmentation needed: %v (-want +got):\n%s", ok, diff)
	}
	got, ok = parseICMP(true, fromHex(t, tooBigUDP6))
	want = message{typ: 2, mtu: 1400, quote: quote{src: netip.MustParseAddr("2001:db8:1::1"), dst: netip.MustParseAddr("2001:db8:2::2"),
		proto: protoUDP, sport: 0xd431, dport: 33434, size: 1500}}
	if diff := cmp.Diff(want, got, compare); diff != "" || !ok {
		t.Errorf("packet too big: %v (-want +got):\n%s", ok, diff)
	}
}

// TestParseCut: a message cut anywhere is refused, and never read beyond its end.
func TestParseCut(t *testing.T) {
	for v6, text := range map[bool]string{false: fragNeeded4, true: tooBigUDP6} {
		whole := fromHex(t, text)
		for n := range whole {
			if m, ok := parseICMP(v6, whole[:n:n]); ok {
				t.Errorf("%d of %d octets are taken for %+v", n, len(whole), m)
			}
		}
	}
	for n := range 24 {
		b := make([]byte, n)
		if n > 0 {
			b[0] = 0x4f
		}
		if rest, ok := stripIPv4(b); ok {
			t.Errorf("%d octets are taken for a packet with %d behind its header", n, len(rest))
		}
	}
}

func FuzzParseICMP(f *testing.F) {
	for _, text := range []string{fragNeeded4, tooBigUDP6} {
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(true, b)
		f.Add(false, b)
	}
	f.Fuzz(func(t *testing.T, v6 bool, b []byte) {
		m, ok := parseICMP(v6, b)
		if ok && !m.reply && (m.quote.size < ipv4Header || !m.quote.dst.IsValid()) && len(b) < icmpHeader+ipv4Header+8 {
			t.Errorf("%x is taken for %+v", b, m)
		}
		_, _ = stripIPv4(b)
		_ = m.explain(v6)
	})
}

// TestStrangersAnswers: messages about other people's packets are no answers.
func TestStrangersAnswers(t *testing.T) {
	ours := func() *Sockets {
		return &Sockets{target: Target{Src: hostA, Dst: far}, id: 77, port: 5000,
			sent: map[uint16]shot{1: {size: 1500}}, shots: nil}
	}
	m, ok := parseICMP(false, fromHex(t, fragNeeded4))
	if !ok {
		t.Fatal("not read")
	}
	if a, ok := ours().answer(m, router); !ok || a.Kind != TooBig || a.Size != 1500 || a.MTU != 1400 || a.From != router {
		t.Errorf("ours: %+v, %v", a, ok)
	}
	for name, spoil := range map[string]func(*message){
		"other id":          func(m *message) { m.id++ },
		"other number":      func(m *message) { m.seq++ },
		"other destination": func(m *message) { m.quote.dst = router },
		"other source":      func(m *message) { m.quote.src = router },
		"UDP of nobody":     func(m *message) { m.quote.proto = protoUDP },
	} {
		other := m
		spoil(&other)
		if a, ok := ours().answer(other, router); ok {
			t.Errorf("%s is taken for %+v", name, a)
		}
	}
	reply := message{reply: true, id: 77, seq: 1}
	if _, ok := ours().answer(reply, router); ok {
		t.Error("a reply of somebody else's is taken for the target's")
	}
	if a, ok := ours().answer(reply, far); !ok || a.Kind != Passed {
		t.Errorf("the target's reply: %+v, %v", a, ok)
	}
}

// TestEcho holds an echo request against another's reading of it.
func TestEcho(t *testing.T) {
	b := echo(false, 77, 3, []byte("odd"))
	p := gopacket.NewPacket(b, layers.LayerTypeICMPv4, gopacket.Default)
	l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if !ok || l.TypeCode.Type() != layers.ICMPv4TypeEchoRequest || l.Id != 77 || l.Seq != 3 || string(l.Payload) != "odd" {
		t.Fatalf("%v", p)
	}
	if checksum(b) != 0 {
		t.Errorf("checksum of it all is %#x, want 0", checksum(b))
	}
}
