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
	lossy           uint64 // intervals
	passed, sent    sums
	cleanMax        uint64
	restarts, jumps uint64
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
		rate := func(n uint64) uint64 { return uint64(float64(n) / d.Seconds()) }
		arrived := packets - p.packets
		if holes > p.holes {
			p.lossy++
			p.passed.add(rate(arrived))
			p.sent.add(rate(arrived + holes - p.holes))
		} else if holes == p.holes {
			p.cleanMax = max(p.cleanMax, rate(arrived))
		}
	}
	p.at, p.packets, p.holes, p.restarts, p.jumps = now, packets, holes, s.Restarts, s.Jumps
}

func (p *pace) fill(w *ledger.WireSA) {
	w.LossyIntervals, w.CleanRateMax = p.lossy, p.cleanMax
	w.LossyRate, w.LossyRateSquares = p.passed.sum, p.passed.squares
	w.OfferedRate, w.OfferedRateSquares = p.sent.sum, p.sent.squares
}
