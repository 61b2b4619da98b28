// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"xfrmscope/internal/ledger"
)

func TestDroppers(t *testing.T) {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"}
	drop := nftables.ChainPolicyDrop
	chains := []*nftables.Chain{
		{Name: "in", Table: table, Hooknum: nftables.ChainHookInput, Policy: &drop},
		{Name: "fwd", Table: table, Hooknum: nftables.ChainHookForward},
		{Name: "both", Table: table},
		{Name: "unused", Table: table},
	}
	jump := &nftables.Rule{Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "both"}}}
	espDrop := &nftables.Rule{Handle: 7, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{50}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0xc0, 0xff, 0xee, 1}},
		&expr.Numgen{}, &expr.Counter{Packets: 12}, &expr.Verdict{Kind: expr.VerdictDrop},
	}}
	reject := &nftables.Rule{Handle: 9, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{192, 0, 2, 1}}, &expr.Reject{},
	}}
	accept := &nftables.Rule{Handle: 11, Exprs: []expr.Any{&expr.Counter{Packets: 99}, &expr.Verdict{Kind: expr.VerdictAccept}}}
	got := droppers(chains, map[chainKey][]*nftables.Rule{
		keyOf(table, "in"): {jump, accept}, keyOf(table, "fwd"): {jump}, keyOf(table, "both"): {espDrop}, keyOf(table, "unused"): {reject},
	})
	id := func(chain string, handle uint64) ledger.FirewallID {
		return ledger.FirewallID{Family: "inet", Table: "filter", Chain: chain, Handle: handle}
	}
	want := []ledger.FirewallRule{
		{FirewallID: id("both", 7), Hooks: []string{"input", "forward"}, Verdict: "drop", Match: "l4proto esp spi 0xc0ffee01 …", Packets: new(uint64(12))},
		{FirewallID: id("in", 0), Hooks: []string{"input"}, Verdict: "policy drop"},
		{FirewallID: id("unused", 9), Verdict: "reject", Match: "saddr != 192.0.2.1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The netdev family numbers its hooks otherwise than the others do.
func TestHooksByFamily(t *testing.T) {
	inet := &nftables.Table{Family: nftables.TableFamilyINet, Name: "t"}
	netdev := &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "t"}
	fifth := nftables.ChainHook(5)
	got := hooksOf([]*nftables.Chain{
		{Name: "pre", Table: inet, Hooknum: nftables.ChainHookPrerouting},
		{Name: "early", Table: inet, Hooknum: &fifth},
		{Name: "in", Table: netdev, Hooknum: nftables.ChainHookIngress},
		{Name: "out", Table: netdev, Hooknum: nftables.ChainHookEgress},
	}, nil)
	want := map[chainKey][]string{
		keyOf(inet, "pre"): {"prerouting"}, keyOf(inet, "early"): {"ingress"},
		keyOf(netdev, "in"): {"ingress"}, keyOf(netdev, "out"): {"egress"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClamps(t *testing.T) {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "mangle"}
	chains := []*nftables.Chain{{Name: "fwd", Table: table, Hooknum: nftables.ChainHookForward}}
	mss := func(from uint32) *expr.Exthdr {
		return &expr.Exthdr{Op: expr.ExthdrOpTcpopt, Type: 2, Offset: 2, Len: 2, SourceRegister: from}
	}
	info := func(b ...byte) *xt.Unknown { u := xt.Unknown(b); return &u }
	got := clamps(chains, map[chainKey][]*nftables.Rule{keyOf(table, "fwd"): {
		{Handle: 1, Exprs: []expr.Any{&expr.Immediate{Register: 1, Data: []byte{0x05, 0x50}}, mss(1)}},
		{Handle: 2, Exprs: []expr.Any{&expr.Rt{Register: 1, Key: expr.RtTCPMSS}, &expr.Byteorder{}, mss(1)}},
		{Handle: 3, Exprs: []expr.Any{&expr.Target{Name: "TCPMSS", Info: info(0x50, 0x05)}}},
		{Handle: 4, Exprs: []expr.Any{&expr.Target{Name: "TCPMSS", Info: info(0xff, 0xff)}}},
		// One that reads the option, one that sets another one, and one that drops.
		{Handle: 5, Exprs: []expr.Any{&expr.Exthdr{Op: expr.ExthdrOpTcpopt, Type: 2, Offset: 2, Len: 2, DestRegister: 1}}},
		{Handle: 6, Exprs: []expr.Any{&expr.Immediate{Register: 1, Data: []byte{0, 7}}, &expr.Exthdr{Op: expr.ExthdrOpTcpopt, Type: 3, Offset: 2, Len: 1, SourceRegister: 1}}},
		{Handle: 7, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}},
	}})
	var want []ledger.MSSClamp
	for handle, size := range []int{1360, 0, 1360, 0} {
		want = append(want, ledger.MSSClamp{
			FirewallID: ledger.FirewallID{Family: "inet", Table: "mangle", Chain: "fwd", Handle: uint64(handle + 1)},
			Hooks:      []string{"forward"}, Size: size,
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
