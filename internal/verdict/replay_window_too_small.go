// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// ReplayWindowTooSmall is reordering that exceeds the replay window of an SA without ESN.
const ReplayWindowTooSmall ID = "replay-window-too-small"

func replayWindowTooSmall(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction != ledger.In {
			continue
		}
		dropped, guess := sa.Xfrm[ledger.ReplayLate], false
		if n := sa.Xfrm[ledger.ReplayUnspecified]; dropped == 0 && n > 0 && sa.Sequence() != nil &&
			windowOf(sa) > 0 && sa.Wire.DisplacementMax >= windowOf(sa) {
			// The audit hook is missing, so duplicate and late are one figure; the wire saw packets
			// that the window cannot have taken.
			dropped, guess = max(0, n-sa.Wire.Duplicates), true
		}
		l := lateDrops(sa, dropped)
		if l.genuine <= 0 {
			continue
		}
		base := counted
		switch {
		case guess:
			base = inferred
		case sa.XfrmFrom == ledger.FromStack && sa.Own != nil && sa.Own.ReplayWindow == dropped:
			base = corroborated
		case sa.XfrmFrom == ledger.FromStack:
			base = witnessed
		}
		advice, remedy := reorderAdvice(sa, l)
		f := Finding{
			ID:         ReplayWindowTooSmall,
			Severity:   lossSeverity(l.genuine, arrivals(sa)),
			Confidence: sure(base, blurred(r), restarted(sa)),
			Subject:    about(sa),
			Summary: fmt.Sprintf("%s: xfrm dropped %s (%s of those that arrived) because they came later than its replay window of %d allows. %s",
				who(sa), packets(l.genuine), share(l.genuine, arrivals(sa)), windowOf(sa), advice),
			Evidence: reorderEvidence(sa, l, ledger.ReplayLate, "stats.replay_window", ownLate(sa)),
			Remedy:   remedy,
		}
		if restarted(sa) {
			f.Evidence = append(f.Evidence, restartEvidence(sa))
		}
		out = append(out, f)
	}
	return out
}

func ownLate(sa *ledger.SA) int64 {
	if sa.Own == nil {
		return 0
	}
	return sa.Own.ReplayWindow
}

// restartEvidence warns that late packets may be those of a sender that began its numbers anew under
// the same keys, as a standby gateway does that takes over with old counters: no window helps there.
func restartEvidence(sa *ledger.SA) Evidence {
	return Evidence{"wire.restarts", sa.Wire.Restarts + sa.Wire.Jumps, "times", "wire",
		"the sender's numbers began anew or leapt: a fail-over with old counters looks like this, and needs a rekey, not a window"}
}
