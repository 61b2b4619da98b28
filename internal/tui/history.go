// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"math"
	"time"

	"xfrmscope/internal/ledger"
)

// depth is how many frames the sparklines go back.
const depth = 60

// cell is what happened to one SA between two frames.
type cell struct {
	packets uint32 // on the wire
	offered uint32 // that were to cross it
	lost    uint32 // of these, that did not
}

func (c cell) plus(d cell) cell {
	return cell{c.packets + d.packets, c.offered + d.offered, c.lost + d.lost}
}

// amounts are an SA's totals that rates are made of.
type amounts struct{ packets, bytes, offered, lost int64 }

func (a amounts) minus(b amounts) amounts {
	return amounts{a.packets - b.packets, a.bytes - b.bytes, a.offered - b.offered, a.lost - b.lost}
}

// series is the recent past of one SA.
type series struct {
	cells       [depth]cell // of frame n at n % depth
	first, last int         // frames
	was         amounts
	of          *history
	pps, bps    float64 // packets and bits a second, of the newest frame
}

// history is the recent past of all SAs.
type history struct {
	n     int // frames so far; the newest is n - 1
	at    time.Time
	start time.Time // when the ledger began
	times [depth]time.Time
	holes [depth]bool // nothing is known of what happened in a frame
	by    map[ledger.SAKey]*series
}

// add takes a frame.
func (h *history) add(f *Frame) {
	if h.by == nil {
		h.by = map[ledger.SAKey]*series{}
	}
	// A ledger that let its oldest part go counts from a later moment on: what came in this very frame
	// cannot be told from its totals. One that was reset counts from zero.
	slid := h.n > 0 && !f.Reset && !h.start.Equal(f.Report.Source.Start)
	h.holes[h.n%depth] = slid
	since := f.At.Sub(h.at).Seconds()
	if h.n == 0 {
		since = 0
	}
	for i := range f.Report.SAs {
		sa := &f.Report.SAs[i]
		key := saKey(sa)
		s := h.by[key]
		if s == nil {
			s = &series{of: h, first: h.n, last: h.n - 1}
			h.by[key] = s
		}
		now := amountsOf(sa)
		switch {
		case slid:
			s.was, s.last = now, h.n // rates stay as they were
			continue
		case f.Reset:
			s.was = amounts{}
		}
		s.add(h.n, since, now)
	}
	if len(h.by) > len(f.Report.SAs) {
		for key, s := range h.by {
			if h.n-s.last >= depth {
				delete(h.by, key)
			}
		}
	}
	h.times[h.n%depth] = f.At
	h.at, h.start = f.At, f.Report.Source.Start
	h.n++
}

func (s *series) add(n int, since float64, now amounts) {
	for i := max(s.last+1, n-depth+1); i < n; i++ {
		s.cells[i%depth] = cell{}
	}
	d := now.minus(s.was)
	s.cells[n%depth] = cell{narrow(d.packets), narrow(d.offered), narrow(d.lost)}
	s.pps, s.bps = 0, 0
	if since > 0 {
		s.pps, s.bps = max(0, float64(d.packets)/since), max(0, 8*float64(d.bytes)/since)
	}
	s.was, s.last = now, n
}

// clone copies a history, so that it stays as it is.
func (h *history) clone() *history {
	out := *h
	out.by = make(map[ledger.SAKey]*series, len(h.by))
	for k, s := range h.by {
		t := *s
		t.of = &out
		out.by[k] = &t
	}
	return &out
}

// narrow bounds a difference to what a cell holds. Bins may shrink for a moment; that is no traffic.
func narrow(n int64) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

// at is what happened in a frame; ok is false where the SA was not known.
func (s *series) at(frame int) (c cell, ok bool) {
	if s == nil || s.of.holes[frame%depth] || frame < s.first || frame > s.last || frame <= s.last-depth {
		return c, false
	}
	return s.cells[frame%depth], true
}

// span is how far back the history goes.
func (h *history) span() time.Duration {
	if h.n < 2 {
		return 0
	}
	oldest := max(0, h.n-depth)
	return h.at.Sub(h.times[oldest%depth])
}

// amountsOf takes an SA's totals from the wire, or from the SA database where the wire is not watched
// or hardware takes the packets past it.
func amountsOf(sa *ledger.SA) (a amounts) {
	switch {
	case sa.Wire != nil && (sa.Wire.Packets != 0 || sa.Own == nil):
		a.packets, a.bytes = sa.Wire.Packets, sa.Wire.Bytes
	case sa.Own != nil:
		a.packets, a.bytes = sa.Own.Packets, sa.Own.Bytes
	}
	if b := sa.Ledger.In; b != nil {
		a.offered, a.lost = zero(b.Sent), zero(b.LostOnPath)
	}
	if b := sa.Ledger.Out; b != nil {
		a.offered, a.lost = zero(b.Offered), lostOut(b).v
		if b.Offered == nil {
			a.offered = zero(b.Encapsulated)
		}
	}
	return a
}

func zero(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
