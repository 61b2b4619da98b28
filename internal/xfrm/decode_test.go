// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/netlink"

	"xfrmscope/internal/ledger"
)

var compareAll = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.AllowUnexported(SA{}),
	cmpopts.EquateApproxTime(0),
}

func TestEncoderHasTheKernelsSizes(t *testing.T) {
	// From pahole of a kernel: should the mirror structs of the encoder be wrong, nothing else holds.
	for _, s := range []struct {
		v    any
		want int
	}{
		{cSelector{}, 56}, {cID{}, 24}, {cSAInfo{}, 224}, {cSAID{}, 24}, {cPolicyInfo{}, 168}, {cTmpl{}, 64},
		{cEncap{}, 24}, {cMapping{}, 64}, {cReplayESN{}, 24}, {cReplay{}, 12},
	} {
		if got := binary.Size(s.v); got != s.want {
			t.Errorf("%T has %d bytes, want %d", s.v, got, s.want)
		}
	}
}

func TestDecodeSAOfOldKernel(t *testing.T) {
	want := SA{
		SADEntry: ledger.SADEntry{
			Key:       ledger.SAKey{Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0xc0ffee01, Proto: ledger.ESP, Direction: ledger.Unknown},
			Src:       netip.MustParseAddr("192.0.2.1"),
			Mode:      "tunnel",
			ReqID:     42,
			MarkValue: 0x10, MarkMask: 0xff,
			Encap: ledger.EncapUDP, EncapSrcPort: 4500, EncapDstPort: 4501,
			Algorithms: []ledger.Algorithm{
				{Kind: "authentication", Name: "hmac(sha256)", KeyBits: 256, ICVBits: 128},
				{Kind: "encryption", Name: "cbc(aes)", KeyBits: 128},
			},
			ReplayWindow: 32, Seq: 107, OSeq: 9,
			Packets: 100, Bytes: 8400, ReplayLate: 3, ReplayDuplicate: 5, IntegrityFailed: 7,
			Added: time.Unix(1_700_000_000, 0),
			Lifetimes: ledger.Lifetimes{
				SoftBytes: 1 << 40, HardBytes: 2 << 40, SoftPackets: 1000, HardPackets: 2000,
				SoftAdd: 3000 * time.Second, HardAdd: time.Hour,
			},
			Flags:    []string{"noecn", "nopmtudisc"},
			Selector: Selector{Dst: netip.MustParsePrefix("0.0.0.0/0"), Src: netip.MustParsePrefix("0.0.0.0/0")},
		},
		SoftUse: 50 * time.Second, HardUse: time.Minute,
		FirstUsed: time.Unix(1_700_000_005, 0), LastUsed: time.Unix(1_700_000_077, 0),
		PCPU: -1, proto: protoESP, family: familyIPv4,
	}
	got, err := decodeSA(oldSA(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAll); diff != "" {
		t.Errorf("decoded SA (-want +got):\n%s", diff)
	}
}

func TestDecodeSAOfNewKernel(t *testing.T) {
	want := SA{
		SADEntry: ledger.SADEntry{
			Key:   ledger.SAKey{Dst: netip.MustParseAddr("2001:db8::2"), SPI: 0xc0ffee02, Proto: ledger.ESP, Direction: ledger.Unknown},
			Src:   netip.MustParseAddr("2001:db8::1"),
			Mode:  "iptfs",
			ReqID: 42, IfID: 77,
			Encap:      ledger.EncapNone,
			Algorithms: []ledger.Algorithm{{Kind: "aead", Name: "rfc4106(gcm(aes))", KeyBits: 256, ICVBits: 128}},
			ESN:        true, ReplayWindow: 128, Seq: 4<<32 | 2, OSeq: 3<<32 | 1,
			Packets: 100, Bytes: 8400, ReplayLate: 3, ReplayDuplicate: 5, IntegrityFailed: 7,
			Added:   time.Unix(1_700_000_000, 0),
			Offload: "packet", OffloadIfindex: 3,
			Flags:    []string{"esn", "dont-encap-dscp", "oseq-may-wrap"},
			Selector: Selector{Dst: netip.MustParsePrefix("::/0"), Src: netip.MustParsePrefix("::/0")},
		},
		SeqBitmapBits: 128,
		FirstUsed:     time.Unix(1_700_000_005, 0),
		KernelDir:     ledger.In,
		PCPU:          6,
		NATKeepalive:  30 * time.Second,
		MappingMaxAge: 20 * time.Second,
		IPTFS: &IPTFS{
			DropTime: time.Second, ReorderWindow: 8, DontFragment: true, InitDelay: 250 * time.Microsecond,
			MaxQueueBytes: 1 << 20, PacketBytes: 1400,
		},
		proto: protoESP, family: familyIPv6,
	}
	got, err := decodeSA(newSA(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAll); diff != "" {
		t.Errorf("decoded SA (-want +got):\n%s", diff)
	}
}

func TestDecodeReplayStateOfWideWindowWithoutESN(t *testing.T) {
	// The kernel uses the ESN form for windows beyond 32 as well; its high halves then mean nothing.
	b := append(plain(t, saInfo(familyIPv4, 1)),
		attr(t, attrReplayESNVal, cReplayESN{BmpLen: 2, Oseq: 5, Seq: 6, OseqHi: 7, SeqHi: 8, ReplayWindow: 64}, uint64(0))...)
	got, err := decodeSA(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.ESN || got.Seq != 6 || got.OSeq != 5 || got.ReplayWindow != 64 {
		t.Errorf("ESN %v seq %d oseq %d window %d, want false 6 5 64", got.ESN, got.Seq, got.OSeq, got.ReplayWindow)
	}
}

func TestDecodePolicy(t *testing.T) {
	tmpl := cTmpl{
		ID:     cID{Daddr: cAddress("192.0.2.2"), SPI: net32(0xabc), Proto: protoESP},
		Family: familyIPv4, Saddr: cAddress("192.0.2.1"), ReqID: 42, Mode: 1, Optional: 1,
	}
	wantTmpl := Template{
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0xabc,
		Proto: ledger.ESP, ReqID: 42, Mode: "tunnel", Optional: true,
	}
	want := Policy{
		Dir: "out", Sub: true, Action: "allow", Priority: 3, Index: 65,
		Selector: Selector{
			Dst: netip.MustParsePrefix("10.2.0.0/16"), Src: netip.MustParsePrefix("10.1.0.0/24"),
			Proto: 6, DstPort: 443, DstMask: 0xffff, Ifindex: 9,
		},
		Templates: []Template{wantTmpl, wantTmpl},
		IfID:      8, MarkValue: 1, MarkMask: 0xff, Flags: []string{"icmp"}, Packets: 2, Bytes: 1,
		Added: time.Unix(1_700_000_000, 0), Used: time.Unix(1_700_000_009, 0),
	}
	got, err := decodePolicy(outPolicy(t, tmpl, 1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAll); diff != "" {
		t.Errorf("decoded policy (-want +got):\n%s", diff)
	}
}

// messages are one of each kind that the kernel sends.
func messages(t testing.TB) map[string]netlink.Message {
	msg := func(typ netlink.HeaderType, b []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: typ}, Data: b}
	}
	policy := outPolicy(t, cTmpl{Family: familyIPv4}, 1)
	return map[string]netlink.Message{
		"new SA, old kernel": msg(msgNewSA, oldSA(t)),
		"new SA, new kernel": msg(msgNewSA, newSA(t)),
		"updated SA":         msg(msgUpdSA, oldSA(t)),
		"deleted SA":         msg(msgDelSA, deletedSA(t, newSA(t))),
		"deleted old SA":     msg(msgDelSA, deletedSA(t, oldSA(t))),
		"expired SA":         msg(msgExpire, expiredSA(t, saInfo(familyIPv6, 3), 1)),
		"flushed SAs":        msg(msgFlushSA, []byte{protoESP}),
		"mapping": msg(msgMapping, plain(t, cMapping{
			ID: cSAID{Daddr: cAddress("192.0.2.2"), SPI: net32(9), Family: familyIPv4, Proto: protoESP}, ReqID: 42,
			OldSaddr: cAddress("198.51.100.1"), NewSaddr: cAddress("198.51.100.2"), OldSport: net16(4500), NewSport: net16(61000),
		})),
		"new policy": msg(msgNewPolicy, policy),
		"deleted policy": msg(msgDelPolicy, append(plain(t, struct {
			Sel   cSelector
			Index uint32
			Dir   uint8
			_     [3]byte
		}{}), append(attr(t, attrPolicy, policy[:168]), policy[168:]...)...)),
		"expired policy":   msg(msgPolExpire, append(append(append([]byte{}, policy[:168]...), 1, 0, 0, 0, 0, 0, 0, 0), policy[168:]...)),
		"flushed policies": msg(msgFlushPolicy, nil),
	}
}

func TestDecodeEvents(t *testing.T) {
	wantKind := map[string]EventKind{
		"new SA, old kernel": SAAdded, "new SA, new kernel": SAAdded, "updated SA": SAUpdated, "deleted SA": SADeleted,
		"deleted old SA": SADeleted, "expired SA": SAHardExpired, "flushed SAs": SAsFlushed, "mapping": MappingChanged,
		"new policy": PolicyAdded, "deleted policy": PolicyDeleted, "expired policy": PolicyExpired, "flushed policies": PoliciesFlushed,
	}
	for name, m := range messages(t) {
		ev, ok, err := decodeEvent(m)
		if err != nil || !ok || ev.Kind != wantKind[name] {
			t.Errorf("%s: kind %q ok %v error %v, want %q", name, ev.Kind, ok, err, wantKind[name])
		}
		// A deletion must tell the same as the description of the same SA.
		if full := map[string][]byte{"deleted SA": newSA(t), "deleted old SA": oldSA(t)}[name]; full != nil {
			want, err := decodeSA(full)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&want, ev.SA, compareAll); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
	ev, _, err := decodeEvent(messages(t)["mapping"])
	want := &Mapping{
		Key:    ledger.SAKey{Dst: netip.MustParseAddr("192.0.2.2"), SPI: 9, Proto: ledger.ESP, Direction: ledger.In},
		ReqID:  42,
		OldSrc: netip.MustParseAddr("198.51.100.1"), NewSrc: netip.MustParseAddr("198.51.100.2"), OldPort: 4500, NewPort: 61000,
	}
	if diff := cmp.Diff(want, ev.Mapping, compareAll); diff != "" || err != nil {
		t.Errorf("mapping: error %v (-want +got):\n%s", err, diff)
	}
	if _, ok, err := decodeEvent(netlink.Message{Header: netlink.Header{Type: 0x7f}}); ok || err != nil {
		t.Errorf("unknown message: ok %v error %v", ok, err)
	}
}

// TestDecodeTruncated cuts every message at every byte: the result is either the error for malformed
// messages or, where the cut falls between two attributes, a message with fewer of them.
func TestDecodeTruncated(t *testing.T) {
	for name, m := range messages(t) {
		refused := 0
		for n := range m.Data {
			_, _, err := decodeEvent(netlink.Message{Header: m.Header, Data: m.Data[:n]})
			if err == nil {
				continue
			}
			refused++
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
			if leak := leaked(err.Error()); leak != "" {
				t.Errorf("%s cut to %d bytes: error holds %s: %v", name, n, leak, err)
			}
		}
		// At most one cut in four bytes can be between attributes.
		if refused < len(m.Data)*3/4 {
			t.Errorf("%s: only %d of %d cuts refused", name, refused, len(m.Data))
		}
	}
}

// leaked finds a planted key in any form in which Go prints bytes.
func leaked(s string) string {
	for _, key := range [][]byte{plantedKey, plantedKey2} {
		part := key[4:12]
		forms := []string{
			string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part),
			strings.Trim(fmt.Sprint(part), "[]"), strings.Trim(fmt.Sprintf("%q", part), `"`),
			strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"),
		}
		if j, err := json.Marshal(key); err == nil {
			forms = append(forms, string(j[3:12]))
		}
		for _, form := range forms {
			if strings.Contains(s, form) {
				return "key bytes as " + form
			}
		}
	}
	return ""
}

func TestLeakDetectorDetects(t *testing.T) {
	type holder struct{ Key []byte }
	h := holder{plantedKey}
	j, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%+v", h), fmt.Sprintf("%#v", h), fmt.Sprintf("%x", plantedKey2), string(j), fmt.Sprintf("%q", plantedKey)} {
		if leaked(s) == "" {
			t.Errorf("no leak found in %s", s)
		}
	}
}

func TestNoKeyInAnyOutput(t *testing.T) {
	for name, m := range messages(t) {
		ev, _, err := decodeEvent(m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		j, err := json.Marshal(ev)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out := fmt.Sprintf("%+v %#v %s", ev, ev, j)
		if ev.SA != nil {
			out += fmt.Sprintf("%+v %#v", *ev.SA, *ev.SA)
		}
		if leak := leaked(out); leak != "" {
			t.Errorf("%s: %s in %s", name, leak, out)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages(f) {
		f.Add(uint16(m.Header.Type), m.Data)
	}
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		ev, ok, err := decodeEvent(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ)}, Data: b})
		if err != nil && (ok || !errors.Is(err, ErrMalformed)) {
			t.Errorf("ok %v, error %v", ok, err)
		}
		if ok && ev.Kind == "" {
			t.Error("event without a kind")
		}
	})
}

// TestProtoName: SAs of kinds that have no name are called as internal/reader calls them, so that what the hooks
// and the SA database say of one is joined.
func TestProtoName(t *testing.T) {
	for n, want := range map[uint8]ledger.Proto{50: "esp", 51: "ah", 108: "comp", 43: "proto_43", 60: "proto_60"} {
		if got := protoName(n); got != want {
			t.Errorf("protocol %d is called %s, want %s", n, got, want)
		}
	}
}
