// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

func TestIdentifyDrop(t *testing.T) {
	stages := []string{"before_xfrm", "after_decap", "egress", "ike", "keepalive"}
	hooks := []string{"", "prerouting", "input"}
	key := bpfobj.DropKey{Spi: 0xc0ffee01, Proto: 50, Family: 4, Hook: 2, Reason: 7, Ifindex: 3, Location: 1}
	copy(key.Dst[10:], []byte{0xff, 0xff, 192, 0, 2, 2})
	copy(key.Src[10:], []byte{0xff, 0xff, 192, 0, 2, 1})
	id := ledger.DropID{Stage: ledger.BeforeXfrm, Hook: "input", Reason: "SEVEN", Ifindex: 3, Src: netip.MustParseAddr("192.0.2.1"),
		Key: ledger.SAKey{Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0xc0ffee01, Proto: ledger.ESP, Direction: ledger.In}}
	for _, row := range []struct {
		name, location string
		flags          uint8
		stage          bpfobj.DropDropStage
		function       string
		module         string
		drop           bool
	}{
		{"plain", "nf_hook_slow+0xa1", 0, 0, "nf_hook_slow", "", true},
		{"part of a function, in a module", "nft_do_chain.constprop.0+0x1 [nf_tables]", 0, 0, "nft_do_chain", "nf_tables", true},
		{"no such function", "0xffffffffc0001234", 0, 0, "", "", true},
		{"namespace not known", "nf_hook_slow+0xa1", bpfobj.DropNoNetns, 0, "nf_hook_slow", "", false},
		{"a fragment whose device is gone", "inet_frag_rbtree_purge+0x4", bpfobj.DropNoNetns, 0, "inet_frag_rbtree_purge", "", true},
		{"part of a merged packet", "kfree_skb_list+0x20", 0, bpfobj.DropDropStageDROP_AFTER_DECAP, "kfree_skb_list", "", false},
		{"in a queue", "kfree_skb_list+0x20", bpfobj.DropMoved, bpfobj.DropDropStageDROP_AFTER_DECAP, "kfree_skb_list", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			src := DropSource{Location: func(uint64) string { return row.location }, Reason: func(n uint32) string { return map[uint32]string{7: "SEVEN"}[n] }}
			k, want := key, id
			k.Flags, k.Stage = row.flags, row.stage
			want.Stage, want.Function, want.Module = ledger.DropStage(stages[row.stage]), row.function, row.module
			got, drop := src.identify(&k, stages, hooks)
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || drop != row.drop {
				t.Errorf("a drop: %v, want %v (-want +got):\n%s", drop, row.drop, diff)
			}
		})
	}
}
