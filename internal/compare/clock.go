// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Clock says how the ends' clocks stand to each other: what B's shows minus what A's shows at the same
// moment.
type Clock struct {
	From         ClockSource `json:"from"`
	At           time.Time   `json:"at,omitzero"` // by A's clock: when the offset was what it says
	OffsetS      *float64    `json:"offset_s"`
	UncertaintyS *float64    `json:"uncertainty_s"` // either way
	AtLeastS     *float64    `json:"at_least_s"`    // with packets of one direction, one bound is known
	AtMostS      *float64    `json:"at_most_s"`
	DriftPPM     *float64    `json:"drift_ppm"` // how much faster B's goes; null: too short a time to tell
	DriftWithin  *float64    `json:"drift_uncertainty_ppm"`
	AtoB         int         `json:"packets_a_to_b"` // that both ends stamped
	BtoA         int         `json:"packets_b_to_a"`
	RoundTripS   *float64    `json:"round_trip_min_s"` // the shortest ways there and back together
	Stepped      bool        `json:"stepped"`          // a clock was set during the run
	SameMachine  bool        `json:"same_machine"`     // both recordings were made on one machine, with one clock

	zero  time.Time // where the drift is counted from
	rate  float64   // seconds a second
	valid bool      // there is an offset
}

// ClockSource is what the clocks were compared by.
type ClockSource string

// The sources.
const (
	ClockMarks     ClockSource = "packets"   // packets that both ends stamped
	ClockSnapshots ClockSource = "snapshots" // which numbers each end had seen when
	ClockNone      ClockSource = "none"
)

// Delay is how long packets were under way from the sender's wire to the receiver's (RFC 7679), by
// the packets that both ends stamped. Without a clock offset only their differences are known (RFC 3393).
type Delay struct {
	Packets       int      `json:"packets"`
	MinS          *float64 `json:"min_s"`
	MedianS       *float64 `json:"median_s"`
	P95S          *float64 `json:"p95_s"`
	MaxS          *float64 `json:"max_s"`
	UncertaintyS  *float64 `json:"uncertainty_s"`   // of all four, and the same for all
	VariationS    float64  `json:"variation_s"`     // 95th percentile minus minimum
	VariationMaxS float64  `json:"variation_max_s"` // maximum minus minimum
}

// sight is a packet that both ends stamped: when A stamped it, in seconds of A's clock, and what the
// receiver's clock showed more when it came than the sender's when it left.
type sight struct{ at, more float64 }

// maxRate is how much faster a clock can go than another: what NTP may slew a clock by (RFC 5905 section
// 12), which is more than crystals are apart.
const maxRate = 500e-6

// enough sights bound the drift; each of so many stretches of the run gives its best.
const enough = 256

// fit finds the offset from the packets of both directions. A packet is never received before it is sent:
// with o the offset and r the drift, every packet from A to B says o + r t <= more, and every packet from B
// to A says -(o + r t) <= more. What all of them leave open is the uncertainty; without drift that is half
// of the shortest round trip, as in NTP (RFC 5905 section 8).
func (c *Clock) fit(there, back []sight) {
	c.AtoB, c.BtoA = len(there), len(back)
	if len(there) == 0 && len(back) == 0 {
		return
	}
	zero := middle(there, back)
	c.At = seconds(zero)
	c.zero = c.At
	relative := func(list []sight) []sight {
		out := make([]sight, len(list))
		for i, s := range list {
			out[i] = sight{s.at - zero, s.more}
		}
		return out
	}
	there, back = relative(there), relative(back)
	if len(there) == 0 || len(back) == 0 {
		// Delays are not negative, and nothing more is known. The longest possible drift is not in it.
		if len(there) > 0 {
			c.AtMostS = nanos(least(there, 0))
		} else {
			c.AtLeastS = nanos(-least(back, 0))
		}
		return
	}
	low, high := rates(thin(there), thin(back))
	c.valid = true
	if low > high {
		// No steady pair of clocks shows this: one of them was set.
		c.Stepped = true
		o, within := (least(there, 0)-least(back, 0))/2, math.Abs(least(there, 0)+least(back, 0))/2
		c.OffsetS, c.UncertaintyS = nanos(o), nanos(within)
		return
	}
	const steps = 64
	top, bottom := math.Inf(-1), math.Inf(1)
	for i := range steps + 1 {
		r := low + (high-low)*float64(i)/steps
		up, down := least(there, r), -least(back, -r)
		if up < down {
			continue
		}
		top, bottom = max(top, up), min(bottom, down)
	}
	c.rate = (low + high) / 2
	if top < bottom { // what is feasible lies between two of the steps
		top = least(there, c.rate)
		bottom = -least(back, -c.rate)
	}
	o, within := (top+bottom)/2, math.Abs(top-bottom)/2
	// Rounding may not make it surer than it is.
	c.OffsetS, c.UncertaintyS = nanos(o), nanos(within+1e-9)
	trip := least(there, c.rate) + least(back, -c.rate)
	c.RoundTripS = nanos(trip)
	if low > -maxRate || high < maxRate {
		c.DriftPPM, c.DriftWithin = new(math.Round(c.rate*1e9)/1e3), new(math.Ceil((high-low)/2*1e9)/1e3)
	} else {
		c.rate = 0
	}
}

// least is the smallest difference, with a drift taken out.
func least(list []sight, rate float64) float64 {
	out := math.Inf(1)
	for _, s := range list {
		out = min(out, s.more-rate*s.at)
	}
	return out
}

// rates bounds the drift: for a packet there and one back, o drops out of the two conditions above.
func rates(there, back []sight) (low, high float64) {
	low, high = -maxRate, maxRate
	for _, x := range there {
		for _, y := range back {
			switch both, dt := x.more+y.more, x.at-y.at; {
			case dt > 0:
				high = min(high, both/dt)
			case dt < 0:
				low = max(low, both/dt)
			case both < 0:
				return 1, -1
			}
		}
	}
	return low, high
}

// thin keeps the best of each stretch.
func thin(list []sight) []sight {
	if len(list) <= enough {
		return list
	}
	first, last := math.Inf(1), math.Inf(-1)
	for _, s := range list {
		first, last = min(first, s.at), max(last, s.at)
	}
	best := map[int]sight{}
	for _, s := range list {
		i := int(float64(enough-1) * (s.at - first) / max(last-first, 1e-9))
		if b, ok := best[i]; !ok || s.more < b.more {
			best[i] = s
		}
	}
	out := make([]sight, 0, len(best))
	for _, s := range best {
		out = append(out, s)
	}
	return out
}

func middle(lists ...[]sight) float64 {
	first, last := math.Inf(1), math.Inf(-1)
	for _, list := range lists {
		for _, s := range list {
			first, last = min(first, s.at), max(last, s.at)
		}
	}
	return (first + last) / 2
}

// offset is B's clock minus A's at a moment, and how far it may be off.
func (c *Clock) offset(at time.Time) (offset, within time.Duration, ok bool) {
	if !c.valid {
		return 0, 0, c.SameMachine
	}
	s := *c.OffsetS + c.rate*at.Sub(c.zero).Seconds()
	return time.Duration(s * 1e9), time.Duration(*c.UncertaintyS * 1e9), true
}

// ahead is by how much the receiver's clock is ahead of the sender's.
func (c *Clock) ahead(from Label, at time.Time) (offset, within time.Duration, ok bool) {
	offset, within, ok = c.offset(at)
	if from == B {
		offset = -offset
	}
	return offset, within, ok
}

// aheadAtMost is by how much the receiver's clock is ahead of the sender's at most, which packets from the
// sender alone tell.
func (c *Clock) aheadAtMost(from Label, at time.Time) (time.Duration, bool) {
	if offset, within, ok := c.ahead(from, at); ok {
		return offset + within, true
	}
	switch {
	case from == A && c.AtMostS != nil:
		return time.Duration(*c.AtMostS * 1e9), true
	case from == B && c.AtLeastS != nil:
		return time.Duration(-*c.AtLeastS * 1e9), true
	}
	return 0, false
}

// delay sums up one direction's packets.
func (c *Clock) delay(from Label, list []sight) *Delay {
	if len(list) == 0 {
		return nil
	}
	sign := 1.0
	if from == B {
		sign = -1
	}
	rest := make([]float64, len(list))
	for i, s := range list {
		rest[i] = s.more
		if c.valid {
			rest[i] -= sign * (*c.OffsetS + c.rate*seconds(s.at).Sub(c.zero).Seconds())
		}
	}
	slices.Sort(rest)
	at := func(q float64) float64 { return rest[min(len(rest)-1, int(q*float64(len(rest))))] }
	d := &Delay{Packets: len(list), VariationS: *nanos(at(0.95) - rest[0]), VariationMaxS: *nanos(rest[len(rest)-1] - rest[0])}
	if c.valid {
		d.MinS, d.MedianS, d.P95S, d.MaxS = nanos(rest[0]), nanos(at(0.5)), nanos(at(0.95)), nanos(rest[len(rest)-1])
		d.UncertaintyS = new(*c.UncertaintyS)
	}
	return d
}

// sights are the packets of one SA that both ends stamped, each at its first sight.
func (p pair) sights() []sight {
	if p.from.restarted() || p.to.restarted() {
		return nil
	}
	sent := firsts(p.from.marks)
	came := firsts(p.to.marks)
	shift := epoch(p.from.marks, p.to.marks)
	var out []sight
	for seq, at := range sent {
		if arrived, ok := came[seq-shift]; ok {
			out = append(out, p.sight(at, arrived))
		}
	}
	slices.SortFunc(out, func(a, b sight) int { return cmp.Compare(a.at, b.at) })
	return out
}

func (p pair) sight(sent, came int64) sight {
	s := sight{float64(sent) / 1e9, float64(came-sent) / 1e9}
	if p.from.label == B {
		s.at = float64(came) / 1e9
	}
	return s
}

func firsts(marks []mark) map[uint64]int64 {
	out := make(map[uint64]int64, len(marks))
	for _, m := range marks {
		if _, ok := out[m.seq]; !ok {
			out[m.seq] = m.ns
		}
	}
	return out
}

// epoch is what has to be added to the receiver's numbers where one end saw the 32 bits wrap and the other
// one only began after that.
func epoch(from, to []mark) uint64 {
	if len(from) == 0 || len(to) == 0 {
		return 0
	}
	return nearestEpoch(from[len(from)-1].seq, to[len(to)-1].seq)
}

func nearestEpoch(a, b uint64) uint64 {
	return uint64((int64(a-b)+1<<31)>>32) << 32
}

// guesses are what snapshots tell of the clocks: a number that the sender had not used at one of its
// snapshots, and that the receiver had seen at one of its own. Each is a bound like that of a packet, only
// wider.
func (p pair) guesses() []sight {
	if p.from.restarted() || p.to.restarted() || len(p.from.points) == 0 || len(p.to.points) == 0 {
		return nil
	}
	var out []sight
	s, shift := 0, nearestEpoch(p.from.points[len(p.from.points)-1].oseq, p.to.points[len(p.to.points)-1].highest)
	for j := 1; j < len(p.to.points); j++ {
		now, before := p.to.points[j], p.to.points[j-1]
		if !now.wire || now.highest == before.highest {
			continue
		}
		n := now.highest + shift
		for s+1 < len(p.from.points) && p.from.points[s+1].oseq < n {
			s++
		}
		if p.from.points[s].oseq >= n || !p.from.points[s].known {
			continue
		}
		// What holds from one point on holds until the snapshot before the next one.
		if s+1 == len(p.from.points) {
			continue
		}
		sent := p.from.side.times[p.from.points[s+1].snap-1]
		out = append(out, p.sight(sent.UnixNano(), p.to.side.times[now.snap].UnixNano()))
	}
	return out
}

// nanos rounds to what the clocks tell.
func nanos(s float64) *float64 { return new(math.Round(s*1e9) / 1e9) }

func seconds(s float64) time.Time { return time.Unix(0, int64(s*1e9)) }
