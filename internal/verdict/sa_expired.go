// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// SAExpired is an SA that reached a hard limit while packets still came.
const SAExpired ID = "sa-expired"

func saExpired(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if !expired(sa) {
			continue
		}
		x := sa.Xfrm
		hit := x[ledger.StateExpired] + x[ledger.OutExpired]
		invalid := x[ledger.StateInvalid] + x[ledger.OutInvalid]
		gone := x[ledger.NoState]
		total := hit + invalid + gone
		if total == 0 {
			// It expired and nobody missed it.
			continue
		}
		then, severity := afterwards(r, sa)
		base := witnessed
		when := ""
		if e := lastEnding(sa); e != nil && e.Why == ledger.EndExpired {
			when = " at " + e.At.Format("15:04:05.000 MST")
			base = corroborated
		}
		f := Finding{
			ID:         SAExpired,
			Severity:   severity,
			Confidence: sure(base, blurred(r)),
			Subject:    about(sa),
			Summary: fmt.Sprintf("%s reached its hard limit%s under traffic and %s were dropped. %s",
				who(sa), when, packets(total), then),
			Evidence: []Evidence{},
			Remedy:   expiryRemedies(sa),
		}
		if hit > 0 {
			f.Evidence = append(f.Evidence, Evidence{"xfrm.state_expired", hit, "packets", sourceOf(sa), "met the SA at its limit"})
		}
		if invalid > 0 {
			f.Evidence = append(f.Evidence, Evidence{"xfrm.state_invalid", invalid, "packets", sourceOf(sa), "met it expired, before the kernel removed it"})
			f.Consequences = append(f.Consequences, SAInvalid)
		}
		if gone > 0 {
			f.Evidence = append(f.Evidence, Evidence{"xfrm.no_state", gone, "packets", "stack hooks", "came after it was removed"})
			f.Consequences = append(f.Consequences, SPIUnknown)
		}
		out = append(out, f)
	}
	return append(out, expiredSomewhere(r)...)
}

func expiryRemedies(sa *ledger.SA) []Remedy {
	return append([]Remedy{
		{For: forStrongSwan, Text: "Rekeying must begin before the hard limit: keep rekey_* below life_*, by more than the exchange takes at full rate. " +
			"Limits by packets or bytes run out fast on fast links.",
			Commands: []string{
				"connections.<conn>.children.<child>.rekey_time = 1h        # life_time defaults to 110 % of it",
				"connections.<conn>.children.<child>.rekey_packets = 0      # 0: no limit by packets",
				"connections.<conn>.children.<child>.rekey_bytes = 0",
			}},
		{For: forLibreswan, Text: "The same with its own names.",
			Commands: []string{"salifetime=8h", "rekeymargin=9m", "rekey=yes"}},
		{For: forIproute2, Text: "Nobody rekeys SAs added by hand: give them no hard limit, or replace them in time.",
			Commands: []string{fmt.Sprintf("ip -s xfrm state get src %s dst %s proto %s spi %s | grep -A4 lifetime", address(sa), sa.Dst, sa.Proto, sa.SPI)}},
	}, renegotiate()[2])
}

// expiredSomewhere falls back on the kernel's totals where no hook names the SA.
func expiredSomewhere(r *ledger.Report) []Finding {
	n := r.Kernel.XfrmStat["XfrmInStateExpired"] + r.Kernel.XfrmStat["XfrmOutStateExpired"]
	if n == 0 || r.Kernel.WithoutSA != nil {
		return nil
	}
	f := Finding{
		ID: SAExpired, Severity: Warning, Confidence: sure(counted),
		Summary:  fmt.Sprintf("%s met an SA at its hard limit; which one is not known, because the stack hooks are not attached.", packets(n)),
		Evidence: []Evidence{{"XfrmInStateExpired + XfrmOutStateExpired", n, "packets", "/proc/net/xfrm_stat", ""}},
		Remedy:   renegotiate(),
	}
	for i := range r.SAs {
		if e := lastEnding(&r.SAs[i]); e != nil && e.Why == ledger.EndExpired {
			f.Subject = about(&r.SAs[i])
			f.Evidence = append(f.Evidence, Evidence{"hard expiry of " + r.SAs[i].SPI.String(), 1, "times", "SA database",
				"at " + e.At.Format("15:04:05.000 MST")})
		}
	}
	// What came after it found an SA that is invalid, and then none: no source says otherwise.
	for _, c := range []struct {
		counter string
		id      ID
	}{{"XfrmInStateInvalid", SAInvalid}, {"XfrmInNoStates", SPIUnknown}} {
		if m := r.Kernel.XfrmStat[c.counter]; m > 0 {
			f.Evidence = append(f.Evidence, Evidence{c.counter, m, "packets", "/proc/net/xfrm_stat", "taken for what came afterwards"})
			f.Consequences = append(f.Consequences, c.id)
			f.Confidence = sure(inferred)
		}
	}
	return []Finding{f}
}
