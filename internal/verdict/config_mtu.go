// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// configMTU: an xfrm interface whose MTU is above what any SA behind such an interface lets through. Every
// large packet then costs a message to its sender, and vanishes where that is filtered.
func configMTU(r *ledger.Report) []Finding {
	if r.Host == nil || r.PMTU == nil {
		return nil
	}
	sas := outbounds(r)
	most := fits(r, sas)
	if clampedBelow(r, most) {
		return nil
	}
	inner, known := 0, true
	for i := range r.PMTU.Paths {
		p := &r.PMTU.Paths[i]
		sa := sas[ledger.SARef{SPI: p.SPI, Dst: p.Dst}]
		if sa == nil || sa.IfID == 0 {
			continue
		}
		known = known && p.InnerMTU > 0
		inner = max(inner, p.InnerMTU)
	}
	out := wideClamps(r, most)
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

// fits is the largest TCP segment that any of these SAs lets through, 0 where that is not known of all.
func fits(r *ledger.Report, sas map[ledger.SARef]*ledger.SA) int {
	most := 0
	for i := range r.PMTU.Paths {
		p := &r.PMTU.Paths[i]
		if sas[ledger.SARef{SPI: p.SPI, Dst: p.Dst}] == nil {
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
func wideClamps(r *ledger.Report, most int) []Finding {
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

// outbounds are the SAs to send by that exist now, by SPI and destination.
func outbounds(r *ledger.Report) map[ledger.SARef]*ledger.SA {
	out := make(map[ledger.SARef]*ledger.SA, len(r.PMTU.Paths))
	for i := range r.SAs {
		if sa := &r.SAs[i]; sa.Direction == ledger.Out && sa.State == ledger.Alive {
			out[ledger.SARef{SPI: sa.SPI, Dst: sa.Dst}] = sa
		}
	}
	return out
}
