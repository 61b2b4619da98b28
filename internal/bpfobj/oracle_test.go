// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"math/bits"
	"slices"
)

// The constants of abi.h, written again: a change there must be noticed here.
const (
	horizon       = 8160
	confirm       = 8
	confirmInside = 32
	leapMax       = 1 << 24
	gapsKept      = 64
	buckets       = 16
)

// figures are what the kernel keeps of an SA, and the oracle works out anew.
type figures struct {
	Packets, Span, Unique, Missing, Early, Duplicates, Late, Stale uint64
	Restarts, Jumps, GapEvents, ExtentMax, Floor, DisplacementMax  uint64
	First, Highest                                                 uint64
	ExtentHist, DisplacementHist                                   [buckets]uint64
}

// oracle judges a stream of sequence numbers by the definitions, with sets and lists and no window:
// unique and duplicate by whether a number was seen, missing by what is not in the set, late and its
// extent by looking through all arrivals for the first with a higher number (RFC 4737 section 4.2.2).
// Only what proves a restart or a leap is a rule of ours, and is spelt out again.
type oracle struct {
	f        figures
	started  bool
	seen     map[uint64]bool // of the present sequence
	arrivals []uint64        // unique numbers of the present sequence, as they came
	before   uint64          // unique numbers of sequences that have ended
	ended    struct{ span, missing, early uint64 }
	gaps     []uint64 // arrival index in the present sequence of each packet that skipped numbers
	outside  run
	inside   run
	anew     []uint64 // new numbers of the run inside
}

type run struct {
	next   uint32
	length int
	top    uint64
}

func (r *run) follow(seq uint32, top uint64) int {
	if r.length > 0 && r.next == seq && r.top == top {
		r.length++
	} else {
		*r = run{length: 1, top: top}
	}
	r.next = seq + 1
	return r.length
}

func (o *oracle) packet(seq uint32) {
	o.f.Packets++
	if !o.started {
		o.started = true
		o.begin(SeqBias + uint64(seq))
		o.arrive(o.f.First)
		return
	}
	top := o.f.Highest
	number := top + uint64(int64(int32(seq-uint32(top))))
	distance := int64(number - top)
	switch {
	case distance > horizon || distance < -horizon:
		o.far(seq, number, distance)
	case o.seen[number]:
		o.again(seq)
	case number > top:
		if number > top+1 {
			o.f.GapEvents++
		}
		o.arrive(number)
	default:
		o.late(number)
	}
}

func (o *oracle) begin(first uint64) {
	o.f.First, o.f.Highest = first, first
	o.seen, o.arrivals, o.gaps = map[uint64]bool{}, nil, nil
}

// arrive takes a number above all others of its sequence, or its first.
func (o *oracle) arrive(number uint64) {
	o.arrivals = append(o.arrivals, number)
	if number > o.f.Highest+1 {
		o.gaps = append(o.gaps, uint64(len(o.arrivals)))
	}
	o.seen[number] = true
	o.f.Highest = number
}

func (o *oracle) late(number uint64) {
	if o.beginsAnew(uint32(number)) {
		return
	}
	if o.inside.length > 0 {
		o.anew = append(o.anew, number)
	}
	o.f.Late++
	o.seen[number] = true
	o.arrivals = append(o.arrivals, number)
	index := uint64(len(o.arrivals))
	passed := uint64(slices.IndexFunc(o.arrivals, func(n uint64) bool { return n > number })) + 1
	// The kernel remembers the newest gaps only; of a number from an older one it knows a lower bound.
	if oldest := max(0, len(o.gaps)-gapsKept); number > o.f.First && passed < o.gaps[oldest] {
		passed = o.gaps[oldest]
		o.f.Floor++
	}
	extent, displacement := index-passed, o.f.Highest-number
	o.f.ExtentHist[bucket(extent)]++
	o.f.DisplacementHist[bucket(displacement)]++
	o.f.ExtentMax = max(o.f.ExtentMax, extent)
	o.f.DisplacementMax = max(o.f.DisplacementMax, displacement)
}

func bucket(n uint64) int { return min(bits.Len64(n)-1, buckets-1) }

func (o *oracle) again(seq uint32) {
	if !o.beginsAnew(seq) {
		o.f.Duplicates++
	}
}

// beginsAnew follows numbers below the highest from 1 on. Enough of them are a new sequence, and what the
// old one counted of them was never in it, but for their lateness.
func (o *oracle) beginsAnew(seq uint32) bool {
	if seq != 1 && o.inside.length == 0 {
		return false
	}
	length := o.inside.follow(seq, o.f.Highest)
	if length == 1 {
		o.anew = nil
		if seq != 1 {
			o.inside = run{}
		}
	}
	if length != confirmInside {
		return false
	}
	for _, n := range o.anew {
		delete(o.seen, n)
	}
	o.arrivals = o.arrivals[:len(o.arrivals)-len(o.anew)]
	o.f.Duplicates -= uint64(confirmInside - 1 - len(o.anew))
	o.restart(seq, confirmInside)
	return true
}

func (o *oracle) far(seq uint32, number uint64, distance int64) {
	if o.outside.follow(seq, o.f.Highest) != confirm {
		o.f.Stale++
		return
	}
	o.f.Stale -= confirm - 1
	if distance < 0 || number>>32 != o.f.Highest>>32 && distance >= leapMax {
		o.restart(seq, confirm)
		return
	}
	o.f.Jumps++
	for i := range uint64(confirm) {
		o.arrive(number - confirm + 1 + i)
	}
}

func (o *oracle) restart(seq uint32, length int) {
	o.f.Restarts++
	o.end()
	first := (o.f.Highest>>32+1)<<32 | uint64(seq-uint32(length)+1)
	o.begin(first)
	for i := range uint64(length) {
		o.arrive(first + i)
	}
}

// end adds the present sequence to what has ended.
func (o *oracle) end() {
	span, missing, early := o.sequence()
	o.ended.span += span
	o.ended.missing += missing
	o.ended.early += early
	o.before += uint64(len(o.arrivals))
}

func (o *oracle) sequence() (span, missing, early uint64) {
	span = o.f.Highest - o.f.First + 1
	missing = span
	for n := range o.seen {
		if n < o.f.First {
			early++
		} else {
			missing--
		}
	}
	return span, missing, early
}

func (o *oracle) figures() figures {
	f := o.f
	span, missing, early := o.sequence()
	f.Span, f.Missing, f.Early = o.ended.span+span, o.ended.missing+missing, o.ended.early+early
	f.Unique = o.before + uint64(len(o.arrivals))
	return f
}

// figures of what the kernel counted.
func (s sa) figures() figures {
	return figures{
		Packets: s.Packets, Span: s.span(), Unique: s.unique(), Missing: uint64(s.Holes), Early: s.Early,
		Duplicates: s.Duplicates, Late: s.Late, Stale: s.Stale, Restarts: s.Restarts, Jumps: s.Jumps,
		GapEvents: s.GapEvents, ExtentMax: s.ExtentMax, Floor: s.ExtentUnknown, DisplacementMax: s.DisplacementMax,
		First: s.First, Highest: s.Highest, ExtentHist: s.ExtentHist, DisplacementHist: s.DisplacementHist,
	}
}
