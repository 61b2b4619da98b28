// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"context"
	"net/netip"

	"xfrmscope/internal/ledger"
)

type addrSet map[netip.Addr]bool

// orient finds out the direction of each SA. Kernels from 6.10 on may be told it (XFRMA_SA_DIR);
// others keep SAs without a direction, in one table, and only their use shows it.
func (c *Client) orient(ctx context.Context, sas []SA) error {
	if len(sas) == 0 {
		return nil
	}
	local, err := c.localAddresses(ctx)
	if err != nil {
		return err
	}
	var open []*SA
	for i := range sas {
		if sas[i].Key.Direction = byAddress(&sas[i], local); sas[i].Key.Direction == ledger.Unknown {
			open = append(open, &sas[i])
		}
	}
	if len(open) == 0 {
		return nil
	}
	policies, err := c.DumpPolicies(ctx)
	if err != nil {
		return err
	}
	for _, sa := range open {
		if sa.Key.Direction = byPolicy(sa, policies); sa.Key.Direction == ledger.Unknown {
			sa.Key.Direction = byNumbers(sa)
		}
	}
	return nil
}

// byAddress trusts the kernel's word, else the addresses: packets come in at local destinations and
// go out from local sources. Both local or neither says nothing.
func byAddress(sa *SA, local addrSet) ledger.Direction {
	switch to, from := local[sa.Key.Dst], local[sa.Src]; {
	case sa.KernelDir != "":
		return sa.KernelDir
	case to && !from:
		return ledger.In
	case from && !to:
		return ledger.Out
	}
	return ledger.Unknown
}

// byPolicy looks for policies that demand this SA, which must all agree.
func byPolicy(sa *SA, policies []Policy) ledger.Direction {
	dir := ledger.Unknown
	for _, p := range policies {
		var says ledger.Direction
		switch p.Dir {
		case "in", "fwd":
			says = ledger.In
		case "out":
			says = ledger.Out
		default:
			continue
		}
		for _, t := range p.Templates {
			if !fits(t, sa) || says == dir {
				continue
			}
			if dir != ledger.Unknown {
				return ledger.Unknown
			}
			dir = says
		}
	}
	return dir
}

// byNumbers uses that only sending advances oseq and only receiving advances seq.
func byNumbers(sa *SA) ledger.Direction {
	switch {
	case sa.OSeq != 0 && sa.Seq == 0:
		return ledger.Out
	case sa.Seq != 0 && sa.OSeq == 0:
		return ledger.In
	}
	return ledger.Unknown
}
