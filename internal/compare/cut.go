// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"time"
)

// horizon is how long a packet may be under way before it counts as lost, as in the ledger.
const horizon = time.Second

// cut is a number up to which both ends have counted everything, and neither anything after it.
type cut struct {
	number uint64
	edge   Edge
	// The sender's snapshots around the number: the same one where the number was its last. Of a capture
	// there are none: what lies within a range is counted when the range is known.
	low, high int
	snap      int   // the receiver's
	doubt     int64 // packets that may be on the wrong side of it
}

// edges finds the widest range of numbers that both ends account for. Of equally wide ones the surest is
// taken, and a sure edge is worth a little of the range.
func (p pair) edges(c *Clock) (from, to cut, ok bool) {
	all := p.cuts(c)
	if len(all) == 0 {
		return cut{}, cut{}, false
	}
	from, to = all[0], all[0]
	for _, x := range all {
		if x.number < from.number || x.number == from.number && before(x, from) {
			from = x
		}
		if x.number > to.number || x.number == to.number && (x.doubt < to.doubt || x.doubt == to.doubt && after(x, to)) {
			to = x
		}
	}
	margin := (to.number - from.number) / 20
	for _, x := range all {
		if x.doubt < from.doubt && x.number <= from.number+margin && x.snap <= to.snap {
			from = x
		}
		if x.doubt < to.doubt && x.number+margin >= to.number && x.snap >= from.snap {
			to = x
		}
	}
	return from, to, from.snap <= to.snap && from.number <= to.number
}

func before(x, y cut) bool {
	return x.doubt < y.doubt || x.doubt == y.doubt && (x.snap < y.snap || x.snap == y.snap && x.low < y.low)
}

func after(x, y cut) bool { return x.snap > y.snap || x.snap == y.snap && x.high > y.high }

// cuts lists all there are.
func (p pair) cuts(c *Clock) []cut {
	if p.to.side.capture {
		return p.captureCuts()
	}
	var out []cut
	last := len(p.to.side.times) - 1
	for j := range p.to.side.times {
		if j > 0 && j < last && !p.to.stirs(j) {
			continue
		}
		r, seen := p.to.at(j)
		n, known := p.reached(r, seen, j)
		if known {
			if x, ok := p.sentUpTo(n); ok {
				x.edge, x.snap = EdgeNumber, j
				x.doubt += int64(r.pending)
				out = append(out, x)
				if later, ok := p.sentUpToLatest(x); ok {
					out = append(out, later)
				}
			}
		}
		if x, ok := p.idle(c, j, n, known); ok {
			out = append(out, x)
		}
		if !known {
			if x, ok := p.first(j); ok {
				out = append(out, x)
			}
		}
	}
	return out
}

// reached is the highest number that the receiver had seen at one of its snapshots, as the sender counts.
func (p pair) reached(r point, seen bool, snap int) (uint64, bool) {
	switch {
	case !seen:
		// An SA that the database does not list has received nothing yet.
		return 0, p.to.came(snap)
	case r.wire:
		return r.highest + p.shift(), true
	case r.known && r.window:
		return r.seq, true
	}
	return 0, false
}

// came says that the SA was not in the database at a snapshot and that it came later.
func (t *track) came(snap int) bool {
	return len(t.points) > 0 && t.points[0].listed && t.points[0].snap > snap
}

// stirs says whether a snapshot is near one that changed something. In long silences all are alike, and one
// at their end stands for them.
func (t *track) stirs(snap int) bool {
	const near = 4
	i := firstWith(len(t.points), func(i int) bool { return t.points[i].snap > snap+1 }) - 1
	return i >= 0 && t.points[i].snap >= snap-near
}

// shift is added to the receiver's numbers, which know of as many wraps as it saw.
func (p pair) shift() uint64 {
	last := func(t *track, of func(point) uint64) uint64 {
		if t.seen != nil {
			return t.seen.last()
		}
		if n := len(t.points); n > 0 {
			return of(t.points[n-1])
		}
		return 0
	}
	return nearestEpoch(last(p.from.track, func(q point) uint64 { return max(q.oseq, q.highest) }),
		last(p.to.track, func(q point) uint64 { return q.highest }))
}

// sentUpTo is where the sender was at a number.
func (p pair) sentUpTo(n uint64) (cut, bool) {
	if s := p.from.seen; s != nil {
		return cut{number: n}, len(s.sorted) > 0 && n+1 >= s.first() && n <= s.last()
	}
	snaps := len(p.from.side.times)
	number := func(snap int) uint64 { return p.from.sent(snap) }
	// The first snapshot that had sent as much.
	i := firstWith(snaps, func(snap int) bool { return number(snap) >= n })
	switch {
	case i == snaps:
		return cut{}, false
	case number(i) == n:
		return cut{number: n, low: i, high: i}, true
	case i == 0:
		return cut{}, false
	}
	return cut{number: n, low: i - 1, high: i, doubt: p.from.unseen(i-1, i)}, true
}

// sentUpToLatest is the same number at the last snapshot at which the sender had sent no more.
func (p pair) sentUpToLatest(x cut) (cut, bool) {
	if p.from.seen != nil || x.low != x.high {
		return cut{}, false
	}
	snaps := len(p.from.side.times)
	i := firstWith(snaps, func(snap int) bool { return p.from.sent(snap) > x.number }) - 1
	if i <= x.high {
		return cut{}, false
	}
	x.low, x.high = i, i
	return x, true
}

// firstWith is the first of n that has a property that all after it have as well.
func firstWith(n int, has func(int) bool) int {
	low, high := 0, n
	for low < high {
		if mid := (low + high) / 2; has(mid) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// sent is the last number that the sender had assigned at a snapshot. Of an SA that no database lists, only
// the wire tells.
func (t *track) sent(snap int) uint64 {
	p, ok := t.at(snap)
	switch {
	case p.listed:
		return p.oseq
	case p.wire:
		return p.highest
	case ok || t.came(snap):
		return 0
	}
	for _, p := range t.points {
		if p.wire {
			return below(p.first)
		}
	}
	return 0
}

// unseen is how many numbers between two snapshots the sender's wire did not see, or saw twice: where within
// the stretch that was is not known.
func (t *track) unseen(low, high int) int64 {
	a, _ := t.at(low)
	b, _ := t.at(high)
	d := int64(t.sent(high)-t.sent(low)) - int64(b.packets-a.packets)
	return max(d, -d)
}

// idle is a cut at a moment when nothing was under way: everything that the sender had numbered a horizon
// before the receiver's snapshot had come by then or never will, and nothing later had come.
func (p pair) idle(c *Clock, snap int, reached uint64, known bool) (cut, bool) {
	if p.from.side.capture {
		return cut{}, false
	}
	times := p.from.side.times
	ahead, ok := c.aheadAtMost(p.from.label, times[0])
	if !ok {
		return cut{}, false
	}
	// By the sender's clock, and not later than it was.
	at := p.to.side.times[snap].Add(-ahead)
	i := firstWith(len(times), func(i int) bool { return times[i].After(at.Add(-horizon)) }) - 1
	if i < 0 {
		return cut{}, false
	}
	n := p.from.sent(i)
	if !known {
		// That nothing later has come is only sure if nothing later was sent.
		offset, within, ok := c.ahead(p.from.label, times[0])
		latest := p.to.side.times[snap].Add(-offset + within)
		j := firstWith(len(times), func(i int) bool { return times[i].After(latest) })
		if !ok || j == len(times) || p.from.sent(j) != n {
			return cut{}, false
		}
	}
	return cut{number: n, edge: EdgeIdle, low: i, high: i, snap: snap}, !known || reached <= n
}

// first is a cut before the first packet that the receiver saw.
func (p pair) first(snap int) (cut, bool) {
	next, ok := p.to.at(snap + 1)
	if snap+1 >= len(p.to.side.times) || !ok || !next.wire || next.first == 0 {
		return cut{}, false
	}
	x, ok := p.sentUpTo(next.first + p.shift() - 1)
	x.edge, x.snap = EdgeFirst, snap
	return x, ok
}

// below is the number before one; a sender begins with 1.
func below(n uint64) uint64 { return max(n, 1) - 1 }

// captureCuts are the ends of what a receiving capture and its sender both have.
func (p pair) captureCuts() []cut {
	r := p.to.seen
	if len(r.sorted) == 0 {
		return nil
	}
	var out []cut
	first, last := below(r.first())+p.shift(), r.last()+p.shift()
	if s := p.from.seen; s != nil {
		if len(s.sorted) == 0 {
			return nil
		}
		first, last = max(first, below(s.first())), min(last, s.last())
	} else if n := len(p.from.side.times); n > 0 {
		first, last = max(first, p.from.sent(0)), min(last, p.from.sent(n-1))
	}
	if first > last {
		return nil
	}
	for _, n := range []uint64{first, last} {
		if x, ok := p.sentUpTo(n); ok {
			x.edge = EdgeCapture
			out = append(out, x)
			if later, ok := p.sentUpToLatest(x); ok {
				out = append(out, later)
			}
		}
	}
	return out
}
