// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"net/netip"

	"xfrmscope/internal/ledger"
)

// Inside and Beyond are two inner networks, ours and the peer's.
var (
	Inside = netip.MustParsePrefix("10.2.0.0/16")
	Beyond = netip.MustParsePrefix("10.1.0.0/16")
)

// Demand adds a policy for traffic of an SA: from Beyond to Inside for one that comes in, and back.
func (w *World) Demand(dir string, sa *SA) *ledger.Policy {
	p := ledger.Policy{
		Dir: dir, Action: "allow", Index: uint32(8 * (1 + len(w.Policies))),
		Selector: ledger.Selector{Src: Beyond, Dst: Inside},
		Templates: []ledger.Template{{
			Src: sa.Entry.Src, Dst: sa.Key.Dst, Proto: sa.Key.Proto, Mode: sa.Entry.Mode, ReqID: sa.Entry.ReqID,
		}},
		Added: Start, IfID: sa.Entry.IfID,
	}
	if dir == "out" {
		p.Selector.Src, p.Selector.Dst = Inside, Beyond
	}
	w.Policies = append(w.Policies, p)
	return &w.Policies[len(w.Policies)-1]
}

// Flow is a UDP flow between the two networks as a policy refuses it.
func Flow(cause ledger.Cause, place ledger.Site) ledger.Refusal {
	r := ledger.Refusal{
		Cause: cause, Place: place, Src: netip.MustParseAddr("10.1.0.7"), Dst: netip.MustParseAddr("10.2.0.9"),
		Proto: 17, DstPort: 9000, Ifindex: 3, Largest: 228,
	}
	if cause.Outbound() {
		r.Src, r.Dst = r.Dst, r.Src
	}
	return r
}

// Deny lets n packets of a flow be refused, decrypted by sa or, where it is nil, by none.
func (w *World) Deny(n uint64, sa *SA, r ledger.Refusal) {
	if sa != nil {
		r.SA, r.ReqID, r.IfID = sa.Key, sa.Entry.ReqID, sa.Entry.IfID
	}
	switch {
	case sa != nil:
		sa.Block(n, r.Cause)
	case r.Cause.Counter() != "":
		w.DropLone(n, r.Cause)
	}
	r.Packets = n
	w.refusals = append(w.refusals, r)
}

// policies are the SPD's share of a snapshot.
func (w *World) policies(s *ledger.Snapshot) {
	if !w.BlindSAD {
		s.Clamps = w.Clamps
		s.Policies, s.PolicyDefault = append([]ledger.Policy{}, w.Policies...), w.PolicyDefault
	}
	if !w.BlindStack {
		s.Refusals = append([]ledger.Refusal{}, w.refusals...)
	}
}
