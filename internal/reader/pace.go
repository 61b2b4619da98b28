// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"time"

	"xfrmscope/internal/ledger"
)

// pace compares, from sample to sample, how fast an SA's packets came while some were lost and while
// none were. A rate limit shows as a rate that is the same whenever packets are lost, and that is
// never exceeded without loss.
type pace struct {
	at              time.Time
	packets, holes  uint64
	restarts, jumps uint64

	last     [2]uint64 // passed and sent a second, of the newest interval with a loss
	held     bool      // there is one, not counted yet
	within   bool      // the interval before it had a loss as well
	lossy    uint64    // intervals counted
	passed   sums
	sent     sums
	cleanMax uint64
}

type sums struct{ sum, squares uint64 }

func (s *sums) add(v uint64) {
	s.sum += v
	s.squares += v * v
}

// paceMin is the shortest interval that gives a rate; snapshots come at odd times.
const paceMin = 100 * time.Millisecond

func (p *pace) sample(now time.Time, s *State) {
	packets, holes := s.packets(), s.holes()
	d := now.Sub(p.at)
	fresh := p.at.IsZero() || packets < p.packets || s.Restarts != p.restarts || s.Jumps != p.jumps
	if !fresh && d < paceMin {
		return
	}
	if !fresh && packets > p.packets {
		p.interval(d.Seconds(), packets-p.packets, holes, p.holes)
	} else {
		p.held = false
	}
	p.at, p.packets, p.holes, p.restarts, p.jumps = now, packets, holes, s.Restarts, s.Jumps
}

// interval counts those with a loss that stand between two others: in the first and the last of a row the
// loss covers a part only, and their rate is a mixture.
func (p *pace) interval(seconds float64, arrived, holes, before uint64) {
	rate := func(n uint64) uint64 { return uint64(float64(n) / seconds) }
	if holes <= before {
		if holes == before {
			p.cleanMax = max(p.cleanMax, rate(arrived))
		}
		p.held = false
		return
	}
	if p.held && p.within {
		p.lossy++
		p.passed.add(p.last[0])
		p.sent.add(p.last[1])
	}
	p.within = p.held
	p.held, p.last = true, [2]uint64{rate(arrived), rate(arrived + holes - before)}
}

func (p *pace) fill(w *ledger.WireSA) {
	w.LossyIntervals, w.CleanRateMax = p.lossy, p.cleanMax
	w.LossyRate, w.LossyRateSquares = p.passed.sum, p.passed.squares
	w.OfferedRate, w.OfferedRateSquares = p.sent.sum, p.sent.squares
}

// current says whether the newest sample found the SA as it is, or there was none. Then it can be left out of
// samples: each would find that no packet came, which wake makes up for.
func (p *pace) current(s *State) bool {
	if p.at.IsZero() {
		p.packets, p.holes, p.restarts, p.jumps = s.packets(), s.holes(), s.Restarts, s.Jumps
		return true
	}
	return p.packets == s.packets() && p.holes == s.holes() && p.restarts == s.Restarts && p.jumps == s.Jumps
}

// wake is told when the last sample was taken that the SA was left out of.
func (p *pace) wake(at time.Time) {
	if at.After(p.at) {
		p.at, p.held = at, false
	}
}
