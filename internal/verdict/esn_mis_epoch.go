// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// ESNMisEpoch is reordering that exceeds the replay window of an SA with ESN: the receiver takes the
// late number for one of the next epoch, and the integrity check fails (RFC 4303 appendix A2.2).
const ESNMisEpoch ID = "esn-mis-epoch"

func esnMisEpoch(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction != ledger.In {
			continue
		}
		n, seen := misEpoch(sa)
		l := lateDrops(sa, n)
		if l.genuine <= 0 {
			continue
		}
		base := inferred
		switch {
		case seen && sa.Own != nil && sa.Own.IntegrityFailed == n+sa.Xfrm[ledger.IntegrityFailed]:
			base = corroborated
		case seen:
			base = witnessed
		}
		advice, remedy := reorderAdvice(sa, l)
		f := Finding{
			ID:         ESNMisEpoch,
			Severity:   lossSeverity(l.genuine, arrivals(sa)),
			Confidence: sure(base, blurred(r), restarted(sa)),
			Subject:    about(sa),
			Summary: fmt.Sprintf("%s: %s (%s of those that arrived) came below the replay window of %d and failed the integrity check, because under ESN such a number is taken for one of the next epoch. Neither keys nor forgery are at fault. %s",
				who(sa), packets(l.genuine), share(l.genuine, arrivals(sa)), windowOf(sa), advice),
			Evidence: reorderEvidence(sa, l, ledger.ESNMisEpoch, "stats.integrity_failed", ownIntegrity(sa)),
			Remedy:   remedy,
		}
		if sa.Own != nil && sa.Own.IntegrityFailed == n {
			f.Consequences = []ID{IntegrityFailed}
		}
		if restarted(sa) {
			f.Evidence = append(f.Evidence, restartEvidence(sa))
		}
		out = append(out, f)
	}
	return out
}

func ownIntegrity(sa *ledger.SA) int64 {
	if sa.Own == nil {
		return 0
	}
	return sa.Own.IntegrityFailed
}
