// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"

	"xfrmscope/internal/ledger"
)

// fakeKernel answers dumps.
type fakeKernel struct {
	sas, policies [][]byte
	addresses     []string
	dials         int
	fail          error    // what the next answer is
	seen          [][]byte // the very buffers that were handed out
}

func (k *fakeKernel) client() *Client {
	return &Client{dial: func(int) (conn, error) {
		k.dials++
		return nltest.Dial(k.answer), nil
	}}
}

func (k *fakeKernel) answer(req []netlink.Message) ([]netlink.Message, error) {
	if len(req) == 0 {
		return nil, errors.New("nothing more to receive")
	}
	if err := k.fail; err != nil {
		k.fail = nil
		return nil, err
	}
	if req[0].Header.Flags != netlink.Request|netlink.Dump {
		return nil, fmt.Errorf("request with flags %v", req[0].Header.Flags)
	}
	var typ netlink.HeaderType
	var bodies [][]byte
	switch req[0].Header.Type {
	case msgGetSA:
		typ, bodies = msgNewSA, k.sas
	case msgGetPolicy:
		typ, bodies = msgNewPolicy, k.policies
	case 22: // RTM_GETADDR
		typ = 20
		for _, s := range k.addresses {
			a := netip.MustParseAddr(s)
			family := byte(familyIPv4)
			if a.Is6() {
				family = familyIPv6
			}
			attrs := nltest.MustMarshalAttributes([]netlink.Attribute{{Type: 1, Data: a.AsSlice()}})
			bodies = append(bodies, append([]byte{family, 24, 0, 0, 1, 0, 0, 0}, attrs...))
		}
	default:
		return nil, fmt.Errorf("request of type %d", req[0].Header.Type)
	}
	h := netlink.Header{Type: typ, Sequence: req[0].Header.Sequence, PID: req[0].Header.PID}
	var msgs []netlink.Message
	for _, b := range bodies {
		b = bytes.Clone(b)
		k.seen = append(k.seen, b)
		msgs = append(msgs, netlink.Message{Header: h, Data: b})
	}
	msgs = append(msgs, netlink.Message{Header: h}) // becomes the end of the dump
	if len(msgs) == 1 {
		msgs[0].Header.Type, msgs[0].Header.Flags = netlink.Done, netlink.Multi
		return msgs, nil
	}
	return nltest.Multipart(msgs)
}

func TestDumpWipesWhatItReceived(t *testing.T) {
	k := &fakeKernel{sas: [][]byte{oldSA(t), newSA(t), oldSA(t)[:300]}, addresses: []string{"192.0.2.2"}}
	_, err := k.client().Dump(t.Context())
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want the third message's", err)
	}
	for i, b := range k.seen {
		if len(bytes.Trim(b, "\x00")) != 0 {
			t.Errorf("message %d was not overwritten: it may hold keys", i)
		}
	}
	if len(k.seen) != 3 {
		t.Errorf("%d messages handed out, want 3", len(k.seen))
	}
}

func TestDumpSAs(t *testing.T) {
	acquire := saInfo(familyIPv4, 0)
	reserved := saInfo(familyIPv4, 0x777)
	k := &fakeKernel{
		sas:       [][]byte{oldSA(t), newSA(t), plain(t, acquire), plain(t, reserved)},
		addresses: []string{"192.0.2.2", "2001:db8::1"},
	}
	c := k.client()
	for range 2 { // the sockets are used again
		got, err := c.DumpSAs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, e := range got {
			lines = append(lines, fmt.Sprintf("%v %v", e.Key.SPI, e.Key.Direction))
		}
		// The second one's destination is not local, but the kernel itself says "in".
		if diff := cmp.Diff([]string{"0xc0ffee01 in", "0xc0ffee02 in"}, lines); diff != "" {
			t.Errorf("SAs (-want +got):\n%s", diff)
		}
	}
	if k.dials != 2 {
		t.Errorf("%d sockets opened, want one for xfrm and one for addresses", k.dials)
	}
	full, err := c.Dump(t.Context())
	if err != nil || len(full) != 3 {
		t.Errorf("full dump has %d SAs, want 3 with the reservation; error %v", len(full), err)
	}
}

func TestDumpOfNothing(t *testing.T) {
	c := (&fakeKernel{}).client()
	sas, err := c.DumpSAs(t.Context())
	if err != nil || sas == nil || len(sas) != 0 {
		t.Errorf("SAs %v, error %v: want an empty list, which is not nil", sas, err)
	}
	policies, err := c.DumpPolicies(t.Context())
	if err != nil || policies == nil || len(policies) != 0 {
		t.Errorf("policies %v, error %v", policies, err)
	}
}

func TestFailedDumpIsFollowedByAGoodOne(t *testing.T) {
	k := &fakeKernel{fail: syscall.EPERM}
	c := k.client()
	_, err := c.Dump(t.Context())
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("error %v", err)
	}
	if _, err := c.Dump(t.Context()); err != nil || k.dials != 2 {
		t.Errorf("second dump: error %v, %d sockets opened, want 2", err, k.dials)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Dump(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled dump: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestDirection(t *testing.T) {
	tmpl := func(src, dst string, reqid uint32) cTmpl {
		return cTmpl{ID: cID{Daddr: cAddress(dst), Proto: protoESP}, Family: familyIPv4, Saddr: cAddress(src), ReqID: reqid, Mode: 1}
	}
	sa := func(parts ...[]byte) []byte {
		return bytes.Join(append([][]byte{plain(t, saInfo(familyIPv4, 1)), aeadAttr(t)}, parts...), nil)
	}
	here, there := "192.0.2.2", "192.0.2.1" // destination and source
	both := []string{here, there}
	for _, row := range []struct {
		name      string
		addresses []string
		sa        []byte
		policies  [][]byte
		want      ledger.Direction
	}{
		{"destination is local", []string{here}, sa(), nil, ledger.In},
		{"source is local", []string{there}, sa(), nil, ledger.Out},
		{"the kernel says", []string{here}, sa(attr(t, attrSADir, uint8(2))), nil, ledger.Out},
		{"both local, out template", both, sa(), [][]byte{outPolicy(t, tmpl(there, here, 42), 1)}, ledger.Out},
		{"both local, fwd template without addresses", both, sa(), [][]byte{outPolicy(t, tmpl("0.0.0.0", "0.0.0.0", 42), 2)}, ledger.In},
		{"both local, another's template", both, sa(), [][]byte{outPolicy(t, tmpl(there, here, 43), 1)}, ledger.Unknown},
		{
			"both local, templates disagree", both, sa(),
			[][]byte{outPolicy(t, tmpl(there, here, 42), 1), outPolicy(t, tmpl(there, here, 42), 0)}, ledger.Unknown,
		},
		{"neither local, has sent", nil, sa(attr(t, attrReplayVal, cReplay{Oseq: 3})), nil, ledger.Out},
		{"neither local, has received", nil, sa(attr(t, attrReplayVal, cReplay{Seq: 3})), nil, ledger.In},
		{"neither local, unused", nil, sa(), nil, ledger.Unknown},
	} {
		k := &fakeKernel{sas: [][]byte{row.sa}, policies: row.policies, addresses: row.addresses}
		got, err := k.client().DumpSAs(t.Context())
		if err != nil || len(got) != 1 || got[0].Key.Direction != row.want {
			t.Errorf("%s: %+v error %v, want %s", row.name, got, err, row.want)
		}
	}
}

func TestOpenRefusesToDebug(t *testing.T) {
	t.Setenv("NLDEBUG", "level=1")
	if _, err := Open(nil); !errors.Is(err, ErrDebugged) {
		t.Errorf("error %v", err)
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("XfrmInError             \t0\nXfrmFromTheFuture\t18446744073709551615\n"))
	want := map[string]uint64{"XfrmInError": 0, "XfrmFromTheFuture": 1<<64 - 1}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"XfrmInError\n", "XfrmInError x\n", "XfrmInError 1\nXfrmInError 2\n", "a b c\n", "XfrmInError -1\n"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestXfrmStatFromRoot(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/thread-self/net", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/thread-self/net/xfrm_stat", []byte("XfrmInNoStates 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stat, err := XfrmStat(root)
	if diff := cmp.Diff(map[string]uint64{"XfrmInNoStates": 7}, stat); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	if _, err := XfrmStat(t.TempDir()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "CONFIG_XFRM_STATISTICS") {
		t.Errorf("absent file: %v", err)
	}
}
