// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"errors"
	"math"
	"net/netip"

	"xfrmscope/internal/ledger"
)

// settleCaptures finds out who sends what where both ends are captures, which do not say. Pairs come with A
// as the sender, and leave with whoever it is.
func (d *Document) settleCaptures(pairs []pair) error {
	groups := map[[2]netip.Addr][]int{} // by the two addresses in their order
	var order [][2]netip.Addr
	for i, p := range pairs {
		if p.from.key.Direction != ledger.Unknown || p.to.key.Direction != ledger.Unknown {
			continue
		}
		ends := [2]netip.Addr{p.from.src, p.from.key.Dst}
		if ends[1].Less(ends[0]) {
			ends[0], ends[1] = ends[1], ends[0]
		}
		if groups[ends] == nil {
			order = append(order, ends)
		}
		groups[ends] = append(groups[ends], i)
	}
	for _, ends := range order {
		list := groups[ends]
		// The one way is that of the packets that the lesser address sends.
		var one, other []int
		for _, i := range list {
			if pairs[i].from.src == ends[0] {
				one = append(one, i)
			} else {
				other = append(other, i)
			}
		}
		swapOne, why := whoSends(pairs, one, other)
		if why == sameTimes {
			return errors.New("both captures hold the same packets at the same times: compare needs one from each end of the tunnel")
		}
		if why != "" {
			d.note("between %s and %s: %s", ends[0], ends[1], why)
		}
		turn := other
		if swapOne {
			turn = one
		}
		for _, i := range turn {
			pairs[i].from, pairs[i].to = pairs[i].to, pairs[i].from
		}
	}
	return nil
}

const sameTimes = "the same"

// bounds are the least and the greatest difference of B's stamps and A's.
type bounds struct {
	low, high float64
	n         int
}

func stamps(pairs []pair, of []int) bounds {
	b := bounds{math.Inf(1), math.Inf(-1), 0}
	for _, i := range of {
		for _, s := range pairs[i].sights() {
			b.low, b.high, b.n = min(b.low, s.more), max(b.high, s.more), b.n+1
		}
	}
	return b
}

// whoSends says whether A is not the sender of the first packets, those of the one way, and then it is that
// of the others. No packet is received before it is sent: for one of the two answers there is an offset of
// the clocks with which none is, and mostly for one alone.
func whoSends(pairs []pair, one, other []int) (swap bool, why string) {
	x, y := stamps(pairs, one), stamps(pairs, other)
	if x.n+y.n > 0 && min(x.low, y.low) == 0 && max(x.high, y.high) == 0 {
		return false, sameTimes
	}
	if x.n > 0 && y.n > 0 {
		fromA, fromB := y.high <= x.low, x.high <= y.low
		if fromA != fromB {
			return fromB, ""
		}
	}
	// Packets are lost on the way and not found: the sender's side has all that the receiver's has.
	onlyA, onlyB := int64(0), int64(0)
	for sign, list := range map[bool][]int{true: one, false: other} {
		for _, i := range list {
			a, b := pairs[i].from.seen.sorted, pairs[i].to.seen.sorted
			if sign {
				onlyA, onlyB = onlyA+missing(a, b), onlyB+missing(b, a)
			} else {
				onlyA, onlyB = onlyA+missing(b, a), onlyB+missing(a, b)
			}
		}
	}
	switch {
	case onlyA > 0 && onlyB == 0:
		return false, "which end sends is taken from the packets that only one of the captures holds"
	case onlyB > 0 && onlyA == 0:
		return true, "which end sends is taken from the packets that only one of the captures holds"
	case x.n > 0 && x.low*x.high > 0:
		return x.low < 0, "which end sends is taken from the captures' times: it is right if the clocks are"
	case y.n > 0 && y.low*y.high > 0:
		return y.low > 0, "which end sends is taken from the captures' times: it is right if the clocks are"
	}
	return false, "the captures do not tell which end sends: A is taken for the end of the first address"
}
