// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math"

	"xfrmscope/internal/ledger"
)

// Confidence follows a written rule (docs/verdicts/README.md repeats it): a base by the kind of proof, times
// 0.8 for each doubt that applies.
const (
	corroborated = 0.99 // two independent sources agree to the packet
	witnessed    = 0.95 // one source that saw each packet and its cause
	counted      = 0.80 // a counter that other causes can move too
	inferred     = 0.60 // no source names the cause; it is what remains
	doubtFactor  = 0.80
)

func sure(base float64, doubts ...bool) float64 {
	for _, d := range doubts {
		if d {
			base *= doubtFactor
		}
	}
	return math.Round(base*100) / 100
}

// blurred says whether xfrmscope lost something itself that could belong to any SA.
func blurred(r *ledger.Report) bool {
	s := &r.Self
	return s.TableFull > 0 || s.RecursionMisses > 0 || s.Lost["contention"] > 0 || s.Lost["slot"] > 0
}

// restarted says whether the sequence on the wire began anew or leapt, so that numbers before and
// after are not one sequence.
func restarted(sa *ledger.SA) bool {
	w := sa.Sequence()
	return w != nil && (w.Restarts > 0 || w.Jumps > 0)
}
