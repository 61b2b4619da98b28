// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"xfrmscope/internal/ledger"
)

// Where the maximum segment size stands: kind and offset within the TCP option (RFC 9293 section 3.2).
const (
	tcpOptionMSS = 2
	mssOffset    = 2
	mssBytes     = 2
)

// toPMTU is XT_TCPMSS_CLAMP_PMTU (include/uapi/linux/netfilter/xt_TCPMSS.h).
const toPMTU = 0xffff

// clamps picks out of a ruleset what sets the segment size.
func clamps(chains []*nftables.Chain, rules map[chainKey][]*nftables.Rule) []ledger.MSSClamp {
	hooks := hooksOf(chains, rules)
	out := []ledger.MSSClamp{}
	for _, c := range chains {
		key := keyOf(c.Table, c.Name)
		for _, r := range rules[key] {
			size, ok := clampOf(r)
			if !ok {
				continue
			}
			id := ledger.FirewallID{Family: familyName(c.Table.Family), Table: c.Table.Name, Chain: c.Name, Handle: r.Handle}
			out = append(out, ledger.MSSClamp{FirewallID: id, Hooks: append([]string{}, hooks[key]...), Size: size})
		}
	}
	slices.SortFunc(out, func(a, b ledger.MSSClamp) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Handle, b.Handle))
	})
	return out
}

// clampOf says to what a rule sets the segment size, 0 for the route's MTU. What it is set to comes
// from a register that an expression before it has filled.
func clampOf(r *nftables.Rule) (size int, ok bool) {
	registers := map[uint32]int{}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Immediate:
			if len(e.Data) >= mssBytes {
				registers[e.Register] = int(binary.BigEndian.Uint16(e.Data))
			}
		case *expr.Rt:
			registers[e.Register] = 0
		case *expr.Exthdr:
			if e.Op == expr.ExthdrOpTcpopt && e.SourceRegister != 0 && e.Type == tcpOptionMSS && e.Offset == mssOffset {
				size, ok = registers[e.SourceRegister], true
			}
		case *expr.Target:
			// iptables-nft sets it by way of an extension of iptables.
			if info, known := e.Info.(*xt.Unknown); known && e.Name == "TCPMSS" && len(*info) >= mssBytes {
				size, ok = int(binary.NativeEndian.Uint16(*info)), true
				if size == toPMTU {
					size = 0
				}
			}
		}
	}
	return size, ok
}
