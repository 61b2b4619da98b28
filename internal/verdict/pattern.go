// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"time"

	"xfrmscope/internal/ledger"
)

// pattern is how an SA's losses lie in its sequence.
type pattern string

const (
	patternFew      pattern = "few"      // too few to tell
	patternBlurred  pattern = "blurred"  // packets also came late, so that gaps are not losses
	patternStretch  pattern = "stretch"  // nearly all at one time: an outage
	patternBursts   pattern = "bursts"   // several in a row
	patternRegular  pattern = "regular"  // one at a time, at even distances
	patternRandom   pattern = "random"   // one at a time, at distances that vary as much as chance makes them
	patternSingular pattern = "singular" // one at a time, neither even nor at random
)

// Bounds of the patterns. Of losses at random the distances' deviation is as large as their mean
// (geometric distribution); of a rate limit it is a small part.
const (
	patternGaps   = 8
	regularSpread = 0.3
	randomSpread  = 0.6
)

func lossPattern(sa *ledger.SA, lost int64) pattern {
	w := sa.Sequence()
	if w == nil || w.GapEvents == 0 && w.Jumps == 0 {
		return patternFew
	}
	if 4*w.Late > lost {
		return patternBlurred
	}
	if w.GapEvents < patternGaps {
		if lost >= 4*patternGaps && lost >= 8*max(1, w.GapEvents) {
			return patternStretch
		}
		return patternFew
	}
	single := w.GapHistogram[0]
	switch s := w.GapSpacing; {
	case 5*(lost-single) >= 3*lost:
		return patternBursts
	case s == nil || 5*single < 4*w.GapEvents:
		return patternSingular
	case s.Deviation <= regularSpread*s.Mean:
		return patternRegular
	case s.Deviation >= randomSpread*s.Mean:
		return patternRandom
	}
	return patternSingular
}

// sentence says what a pattern looks like and what it speaks for.
func (p pattern) sentence(sa *ledger.SA) string {
	w := sa.Sequence()
	switch p {
	case patternBlurred:
		return "Packets also came late, so the pattern of the loss cannot be told."
	case patternStretch:
		return "They are missing in one stretch or few: an outage, not a lossy link."
	case patternBursts:
		return fmt.Sprintf("They are missing in bursts, %s in a row: a queue that overflows, or short outages.", longestRun(w))
	case patternRegular:
		return fmt.Sprintf("They are missing one at a time and regularly, about every %.0f numbers: a rate limit, or one bad link of a bundle.", w.GapSpacing.Mean)
	case patternRandom:
		return "They are missing one at a time and at random: noise on a link, or a queue that drops early (RED)."
	case patternSingular:
		return "They are missing mostly one at a time, neither regularly nor at random."
	}
	return ""
}

func longestRun(w *ledger.Wire) string {
	for b := len(w.GapHistogram) - 1; b > 0; b-- {
		if w.GapHistogram[b] > 0 {
			return fmt.Sprintf("up to %d", int64(1)<<(b+1)-1)
		}
	}
	return "1"
}

func patternEvidence(sa *ledger.SA, p pattern) []Evidence {
	w := sa.Sequence()
	if w == nil || p == patternFew {
		return nil
	}
	e := []Evidence{{"wire.gap_histogram[0]", w.GapHistogram[0], "gaps", "wire", "of one number; pattern: " + string(p)}}
	if s := w.GapSpacing; s != nil {
		e = append(e, Evidence{"wire.gap_spacing.mean", int64(s.Mean + 0.5), "numbers", "wire",
			fmt.Sprintf("from one gap to the next, deviation %.1f", s.Deviation)})
	}
	if w.ECNCE > 0 {
		e = append(e, Evidence{"wire.ecn_ce", w.ECNCE, "packets", "wire", "arrived marked \"congestion experienced\""})
	}
	return e
}

func atTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return " at " + t.Format("15:04:05")
}

// leapFactor is how much faster than it ever was an SA would have to be for a leap to be a loss.
const leapFactor = 20

// leaptOver is how many numbers an SA's sender skipped at once that it cannot have sent: a standby that
// takes over starts ahead of the last number, as it should. A real outage skips what its rate allows.
func leaptOver(r *ledger.Report, sa *ledger.SA) int64 {
	w := sa.Sequence()
	if w == nil || w.Jumped == 0 || r.Source.DurationS <= 0 {
		return 0
	}
	rate := max(float64(w.CleanRateMax), float64(w.Packets)/r.Source.DurationS)
	if w.LossyRate != nil {
		rate = max(rate, w.LossyRate.Mean)
	}
	if float64(w.Jumped) <= leapFactor*rate*r.Source.DurationS {
		return 0
	}
	return min(w.Jumped, w.Missing)
}
