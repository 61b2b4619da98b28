// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// SPIUnknown is packets for which this host had no SA at that moment.
const SPIUnknown ID = "spi-unknown"

func spiUnknown(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.UnknownSPIs {
		out = append(out, stranger(r, &r.UnknownSPIs[i]))
	}
	for i := range r.SAs {
		sa := &r.SAs[i]
		// An SA that was never in the database is among the strangers already, and one that expired
		// explains what came after.
		if sa.Xfrm[ledger.NoState] == 0 || sa.State == ledger.Absent || expired(sa) {
			continue
		}
		out = append(out, knownSPI(r, sa))
	}
	return append(out, unknownSomewhere(r)...)
}

// stranger is an SPI that no SA had at any time during the run.
func stranger(r *ledger.Report, u *ledger.Stranger) Finding {
	s := Subject{SPI: new(u.SPI), Dst: new(u.Dst), Proto: u.Proto, Direction: u.Direction}
	from := ""
	if u.Src.IsValid() {
		s.Src = new(u.Src)
		from = " from " + u.Src.String()
	}
	base := witnessed
	e := []Evidence{{"unknown_spis.packets", u.Packets, "packets", "stack hooks", ""}}
	if n := r.Kernel.XfrmStat["XfrmInNoStates"]; n > 0 {
		e = append(e, Evidence{"XfrmInNoStates", n, "packets", "/proc/net/xfrm_stat", "all SPIs together"})
		if r.Kernel.Reconciled != nil && *r.Kernel.Reconciled {
			base = corroborated
		}
	}
	return Finding{
		ID: SPIUnknown, Severity: Warning, Confidence: sure(base, blurred(r)), Subject: s,
		Summary: fmt.Sprintf("%s%s to %s carry SPI %s, which no SA of this host had during the run: the sender holds an SA that this end has lost or never had.",
			packets(u.Packets), from, u.Dst, u.SPI),
		Evidence: e,
		Remedy:   renegotiate(),
	}
}

// knownSPI is an SA whose packets came before it was there, after it had gone, or past it.
func knownSPI(r *ledger.Report, sa *ledger.SA) Finding {
	n := sa.Xfrm[ledger.NoState]
	f := Finding{
		ID: SPIUnknown, Severity: Warning, Confidence: sure(corroborated, blurred(r)), Subject: about(sa),
		Evidence: []Evidence{{"xfrm.no_state", n, "packets", "stack hooks", ""}},
		Remedy:   renegotiate(),
	}
	if end := lastEnding(sa); end != nil {
		then, severity := afterwards(r, sa)
		f.Severity = severity
		if end.Why == ledger.EndVanished {
			f.Confidence = sure(witnessed, blurred(r))
		}
		f.Summary = fmt.Sprintf("%s to %s came after it was gone: %s (%s) was %s at %s. %s",
			packets(n), sa.Dst, who(sa), identity(sa), end.Why, end.At.Format("15:04:05.000 MST"), then)
		if inv := sa.Xfrm[ledger.StateInvalid]; inv > 0 {
			f.Evidence = append(f.Evidence, Evidence{"xfrm.state_invalid", inv, "packets", "stack hooks", "met it while it was being removed"})
			f.Consequences = append(f.Consequences, SAInvalid)
		}
		f.Remedy = append([]Remedy{{For: forStrongSwan,
			Text:     "If this follows a rekey: let the old inbound SA live on while packets are under way.",
			Commands: []string{"charon.delete_rekeyed_delay = 10   # strongswan.conf, seconds"}}}, f.Remedy...)
		return f
	}
	if sa.AddedDuring && sa.Added != nil {
		f.Confidence = sure(counted, blurred(r))
		f.Summary = fmt.Sprintf("%s found no SA %s (%s), which was added during the run, at %s: the peer began to send before this end was ready, or an earlier SA of this SPI had gone.",
			packets(n), sa.SPI, identity(sa), sa.Added.Format("15:04:05 MST"))
		return f
	}
	f.Confidence = sure(counted, blurred(r))
	f.Severity = Critical
	f.Summary = fmt.Sprintf("%s did not find SA %s (%s), although it was there all the time: mark, interface id or source port of the look-up do not match it.",
		packets(n), sa.SPI, identity(sa))
	f.Remedy = []Remedy{{For: forIproute2, Text: "Compare the SA's mark and if_id with what the packets carry when they reach xfrm; a mark set in nftables or tc comes before the look-up.",
		Commands: []string{
			fmt.Sprintf("ip xfrm state list spi %s | grep -E 'mark|if_id|^src'", sa.SPI),
			"nft list ruleset | grep -E 'mark set'",
		}}}
	return f
}

// identity says what an SA was, for one that can no longer be looked up.
func identity(sa *ledger.SA) string {
	parts := []string{}
	if sa.Mode != "" {
		parts = append(parts, sa.Mode+" mode")
	}
	if sa.ReqID != 0 {
		parts = append(parts, fmt.Sprintf("reqid %d", sa.ReqID))
	}
	if sa.IfID != 0 {
		parts = append(parts, fmt.Sprintf("if_id %d", sa.IfID))
	}
	if sa.Added != nil {
		parts = append(parts, "added "+sa.Added.Format("2006-01-02 15:04:05 MST"))
	}
	if len(parts) == 0 {
		return "no details known"
	}
	return strings.Join(parts, ", ")
}

// unknownSomewhere falls back on the kernel's total where no hook names the SPI; what is on the wire
// and in no SA is suspected.
func unknownSomewhere(r *ledger.Report) []Finding {
	n := r.Kernel.XfrmStat["XfrmInNoStates"]
	if n == 0 || r.UnknownSPIs != nil || len(expiredSomewhere(r)) > 0 {
		return nil
	}
	f := Finding{
		ID: SPIUnknown, Severity: Warning, Confidence: sure(counted),
		Summary:  fmt.Sprintf("%s found no SA; their SPI is not known, because the stack hooks are not attached.", packets(n)),
		Evidence: []Evidence{{"XfrmInNoStates", n, "packets", "/proc/net/xfrm_stat", ""}},
		Remedy:   renegotiate(),
	}
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction == ledger.In && sa.Wire != nil && sa.Wire.Packets > 0 &&
			(sa.State == ledger.Absent || sa.State == ledger.Gone) {
			f.Evidence = append(f.Evidence, Evidence{"wire.packets of " + sa.SPI.String() + " to " + sa.Dst.String(),
				sa.Wire.Packets, "packets", "wire", "on the wire, and not in the SA database now"})
		}
	}
	return []Finding{f}
}
