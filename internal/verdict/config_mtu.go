// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

func configMTU(r *ledger.Report) []Finding {
	if r.Host == nil || r.PMTU == nil || clampedBelow(r, fits(r)) {
		return nil
	}
	inner, known := 0, true
	for i := range r.PMTU.Paths {
		p := &r.PMTU.Paths[i]
		sa := outboundOf(r, p)
		if sa == nil || sa.IfID == 0 {
			continue
		}
		known = known && p.InnerMTU > 0
		inner = max(inner, p.InnerMTU)
	}
	out := wideClamps(r)
	if inner == 0 || !known {
		return out
	}
	for i := range r.Host.Links {
		l := &r.Host.Links[i]
		if l.Kind != "xfrm" || !l.Up || l.MTU <= inner {
			continue
		}
		out = append(out, Finding{
			ID: ConfigMTU, Severity: Info, Confidence: sure(configured), Subject: Subject{Ifindex: l.Index, Direction: ledger.Out},
			Summary: fmt.Sprintf("%s has an MTU of %d, and no SA of an xfrm interface lets more than %d octets through: each sender has to be told so, and stalls where ICMP is filtered.",
				l.Name, l.MTU, inner),
			Evidence: []Evidence{
				{"host.links.mtu", int64(l.MTU), "octets", l.Name, ""},
				{"pmtu.paths.inner_mtu", int64(inner), "octets", "computed from the SAs", "the largest of them"},
			},
			Remedy: []Remedy{
				{For: forHost, Text: "Set the interface to what fits, and let TCP know from the start.", Commands: []string{
					fmt.Sprintf("ip link set %s mtu %d", l.Name, inner),
					fmt.Sprintf("nft add rule inet <table> forward oifname %q tcp flags syn tcp option maxseg size set rt mtu", l.Name)}},
				{For: forStrongSwan, Text: "The interface is set up outside of it: in the script or unit that adds it."},
			},
		})
	}
	return out
}

// fits is the largest TCP segment that any outbound SA lets through, 0 where that is not known of all.
func fits(r *ledger.Report) int {
	most := 0
	for i := range r.PMTU.Paths {
		p := &r.PMTU.Paths[i]
		if outboundOf(r, p) == nil {
			continue
		}
		if p.InnerMTU <= 0 {
			return 0
		}
		most = max(most, p.MSS4, p.MSS6)
	}
	return most
}

// clampedBelow says whether a rule keeps TCP's segments small enough, so that no sender has to be told.
func clampedBelow(r *ledger.Report, most int) bool {
	for _, c := range r.Clamps {
		if c.Size > 0 && c.Size <= most {
			return true
		}
	}
	return false
}

// wideClamps finds rules that were meant to spare TCP the search for the MTU and allow more than any
// SA lets through. A rule that follows the route is as right as the route.
func wideClamps(r *ledger.Report) []Finding {
	most := fits(r)
	if most == 0 {
		return nil
	}
	var e []Evidence
	rule, size := "", 0
	for _, c := range r.Clamps {
		if c.Size > most {
			where := fmt.Sprintf("%s %s %s handle %d", c.Family, c.Table, c.Chain, c.Handle)
			e = append(e, Evidence{"mss_clamps.size", int64(c.Size), "octets", "nftables", where})
			rule, size = where, c.Size
		}
	}
	if rule == "" {
		return nil
	}
	return []Finding{{
		ID: ConfigMTU, Severity: Info, Confidence: sure(configured), Subject: Subject{Direction: ledger.Out},
		Summary: fmt.Sprintf("The nftables rule %s lets TCP send segments of %d octets, and no SA lets more than %d through: it spares tunnelled connections nothing.",
			rule, size, most),
		Evidence: append(e, Evidence{"pmtu.paths.mss", int64(most), "octets", "computed from the SAs", "the largest of them"}),
		Remedy: []Remedy{
			{For: forHost, Text: "Add a rule for the networks behind the tunnels, in front of that one if it ends the chain.", Commands: []string{
				fmt.Sprintf("nft insert rule inet <table> forward ip daddr <remote network> tcp flags syn tcp option maxseg size set %d", most)}},
			{For: forStrongSwan, Text: "Nothing to change: it sets no segment size."},
		},
	}}
}

func outboundOf(r *ledger.Report, p *ledger.PMTUPath) *ledger.SA {
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction == ledger.Out && sa.SPI == p.SPI && sa.Dst == p.Dst && sa.State == ledger.Alive {
			return sa
		}
	}
	return nil
}
