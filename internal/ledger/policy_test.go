// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func packet(src, dst string, proto uint8, sport, dport uint16) Refusal {
	return Refusal{Cause: TmplMismatch, Place: SiteDeliver, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: proto, SrcPort: sport, DstPort: dport}
}

func selector(src, dst string) Selector {
	return Selector{Src: netip.MustParsePrefix(src), Dst: netip.MustParsePrefix(dst)}
}

// TestSelectorTakes is xfrm_selector_match, with ports that are not known.
func TestSelectorTakes(t *testing.T) {
	web := selector("10.1.0.0/16", "10.2.0.0/16")
	web.Proto, web.DstPort, web.DstMask = 6, 443, 0xffff
	high := web
	high.DstPort = 8443
	echo := selector("10.1.0.0/16", "10.2.0.0/16")
	echo.Proto, echo.SrcPort, echo.SrcMask = 1, 8, 0xffff
	for _, tc := range []struct {
		name string
		s    Selector
		r    Refusal
		want bool
	}{
		{"inside", selector("10.1.0.0/16", "10.2.0.0/16"), packet("10.1.2.3", "10.2.0.1", 17, 0, 53), true},
		{"source outside", selector("10.1.0.0/16", "10.2.0.0/16"), packet("10.3.2.3", "10.2.0.1", 17, 0, 53), false},
		{"destination outside", selector("10.1.0.0/16", "10.2.0.0/16"), packet("10.1.2.3", "10.3.0.1", 17, 0, 53), false},
		{"any family", Selector{}, packet("fd00::1", "fd00::2", 6, 0, 22), true},
		{"other family", selector("0.0.0.0/0", "0.0.0.0/0"), packet("fd00::1", "fd00::2", 6, 0, 22), false},
		{"port", web, packet("10.1.2.3", "10.2.0.1", 6, 0, 443), true},
		{"other port", web, packet("10.1.2.3", "10.2.0.1", 6, 0, 80), false},
		{"other protocol", web, packet("10.1.2.3", "10.2.0.1", 17, 0, 443), false},
		{"a port below 1024 would have been kept", web, packet("10.1.2.3", "10.2.0.1", 6, 443, 0), false},
		{"a port from 1024 on may be any", high, packet("10.1.2.3", "10.2.0.1", 6, 443, 0), true},
		{"echo request", echo, packet("10.1.2.3", "10.2.0.1", 1, 8, 0), true},
		{"echo reply", echo, packet("10.1.2.3", "10.2.0.1", 1, 0, 0), false},
	} {
		if got := tc.s.Takes(tc.r); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestSelectorCovers(t *testing.T) {
	wide, narrow := selector("10.0.0.0/8", "10.2.0.0/16"), selector("10.1.0.0/16", "10.2.3.0/24")
	port := narrow
	port.Proto, port.DstPort, port.DstMask = 6, 443, 0xffff
	other := port
	other.DstPort = 80
	for _, tc := range []struct {
		name string
		a, b Selector
		want bool
	}{
		{"itself", wide, wide, true}, {"a narrower one", wide, narrow, true}, {"a wider one", narrow, wide, false},
		{"one of its ports", narrow, port, true}, {"all ports by one", port, narrow, false}, {"another port", port, other, false},
		{"everything", Selector{}, wide, true}, {"by a family", selector("0.0.0.0/0", "0.0.0.0/0"), Selector{}, false},
		{"the other family", selector("0.0.0.0/0", "0.0.0.0/0"), selector("::/0", "::/0"), false},
	} {
		if got := tc.a.Covers(tc.b); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// TestDecide: direction, interface id and mark must fit; then the priority counts, then the age.
func TestDecide(t *testing.T) {
	all := selector("10.0.0.0/8", "10.0.0.0/8")
	policies := []Policy{
		{Dir: "in", Index: 8, Priority: 9, Selector: all},
		{Dir: "fwd", Index: 16, Priority: 1, Selector: all},
		{Dir: "in", Index: 24, Priority: 3, Selector: all, IfID: 7},
		{Dir: "in", Index: 32, Priority: 2, Selector: all, MarkValue: 0xd00, MarkMask: 0xf00},
		{Dir: "in", Index: 40, Priority: 5, Selector: all},
		{Dir: "in", Index: 48, Priority: 5, Selector: all},
		{Dir: "in", Index: 56, Priority: 0, Selector: all, Sub: true},
		{Dir: "in", Index: 64, Priority: 0, Selector: selector("10.9.0.0/16", "10.0.0.0/8")},
		{Dir: "out", Index: 72, Priority: 0, Selector: all, IfID: 7},
	}
	r := packet("10.1.0.1", "10.2.0.1", 17, 0, 53)
	marked, tagged, forwarded, out := r, r, r, r
	marked.Mark, tagged.IfID = 0x2d01, 7
	forwarded.Place = SiteForward
	out.Cause, out.Place = OutInterface, SiteInterface
	got := map[string]uint32{}
	for name, r := range map[string]Refusal{"plain": r, "marked": marked, "of an interface": tagged, "forwarded": forwarded, "sent by an interface": out} {
		if p := decide(policies, r.askedOf(), r); p != nil {
			got[name] = p.Index
		}
	}
	want := map[string]uint32{"plain": 40, "marked": 32, "of an interface": 24, "forwarded": 16, "sent by an interface": 72}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("policies (-want +got):\n%s", d)
	}
}

// TestDifferences: what is received is not held against the template's destination (xfrm_state_ok).
func TestDifferences(t *testing.T) {
	here, there := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")
	sa := &SADEntry{Key: SAKey{Dst: here, SPI: 0x100, Proto: ESP}, Src: there, Mode: "tunnel", ReqID: 1, IfID: 5}
	for _, tc := range []struct {
		name string
		t    Template
		p    Policy
		want []string
	}{
		{"fits", Template{Src: there, Dst: here, Proto: ESP, ReqID: 1, Mode: "tunnel"}, Policy{Dir: "in", IfID: 5}, nil},
		{"anything goes", Template{Proto: ESP, Mode: "tunnel"}, Policy{Dir: "in"}, nil},
		{"all of it", Template{Src: here, Dst: there, SPI: 7, Proto: AH, ReqID: 2, Mode: "beet"}, Policy{Dir: "in", IfID: 6},
			[]string{"proto", "spi", "reqid", "mode", "src", "if_id"}},
		{"to send", Template{Src: there, Dst: there, Proto: ESP, Mode: "tunnel"}, Policy{Dir: "out"}, []string{"dst"}},
		{"addresses of transport mode are the packet's", Template{Src: here, Dst: there, Proto: ESP, Mode: "transport"}, Policy{Dir: "out"}, []string{"mode"}},
	} {
		var got []string
		for _, d := range tc.t.Differences(sa, &tc.p) {
			got = append(got, d.Field)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
	}
}
