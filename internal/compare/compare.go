// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"fmt"
	"math"
	"slices"

	"xfrmscope/internal/ledger"
)

// New joins two ends. The order of the arguments names them and changes nothing else.
func New(a, b *Side) (*Document, error) {
	pairs, rest, err := match(a, b)
	if err != nil {
		return nil, err
	}
	d := &Document{Schema: Schema, Directions: []Direction{}, SAs: []SA{}, Unmatched: []Unmatched{}, Findings: []Finding{}}
	if err := d.settleCaptures(pairs); err != nil {
		return nil, err
	}
	for i := range pairs {
		pairs[i].both = pairs[i].sights()
	}
	d.Ends = []End{a.describe(A, pairs), b.describe(B, pairs)}
	d.compareClocks(a, b, pairs)
	if err := d.join(a, b, pairs); err != nil {
		return nil, err
	}
	for _, x := range rest {
		d.Unmatched = append(d.Unmatched, Unmatched{End: x.label, SPI: x.key.SPI, Proto: x.key.Proto, Src: x.src, Dst: x.key.Dst,
			Direction: x.key.Direction, Packets: x.packets()})
	}
	d.sum(pairs)
	d.findings(a, b)
	return d, nil
}

func (d *Document) note(format string, args ...any) {
	d.Notes = append(d.Notes, fmt.Sprintf(format, args...))
}

func (sa *SA) note(format string, args ...any) {
	sa.Notes = append(sa.Notes, fmt.Sprintf(format, args...))
}

func (s *Side) describe(l Label, pairs []pair) End {
	src := s.whole.Report.Source
	e := End{Label: l, File: s.file, Kind: src.Kind, Host: src.Name, Kernel: src.Kernel, Netns: src.Netns, Start: src.Start,
		DurationS: src.DurationS, Snapshots: len(s.times), Marks: s.marks, SAs: len(pairs), Damage: s.whole.Damage, Blind: []ledger.Hook{}}
	if s.capture {
		e.Kind, e.Host, e.Kernel = ledger.KindCapture, "", ""
	}
	for _, h := range s.whole.Report.Hooks {
		if !h.Attached {
			e.Blind = append(e.Blind, h)
		}
	}
	return e
}

// compareClocks estimates the offset from the packets that both ends stamped, and where a direction has
// none, from the snapshots.
func (d *Document) compareClocks(a, b *Side, pairs []pair) {
	ways := map[Label][]sight{}
	for _, p := range pairs {
		ways[p.from.label] = append(ways[p.from.label], p.both...)
	}
	c := &d.Clock
	c.From = ClockMarks
	c.SameMachine = a.whole.Boot != "" && a.whole.Boot == b.whole.Boot
	marks := map[Label]int{A: len(ways[A]), B: len(ways[B])}
	for _, p := range pairs {
		if marks[p.from.label] > 0 {
			continue
		}
		if guesses := p.guesses(); len(guesses) > 0 {
			ways[p.from.label] = append(ways[p.from.label], guesses...)
			c.From = ClockSnapshots
		}
	}
	c.fit(ways[A], ways[B])
	c.AtoB, c.BtoA = marks[A], marks[B]
	switch {
	case len(ways[A])+len(ways[B]) == 0:
		c.From = ClockNone
		d.note("no packet was stamped at both ends: how the clocks stand to each other is not known, and the ends are joined by sequence numbers alone")
	case !c.valid:
		d.note("only one direction has packets that both ends stamped: of the clocks' offset only a bound is known, and of delays only how they vary")
	}
	if c.Stepped {
		d.note("the clocks did not go steadily against each other: one of them was set during the run, and delays are not to be relied on")
	}
	if c.SameMachine {
		d.note("both recordings were made on one machine: the true offset of its clock is 0")
	}
}

// join draws up the account of each SA.
func (d *Document) join(a, b *Side, pairs []pair) error {
	type cuts struct {
		from, to cut
		ok       bool
		why      string
	}
	at := make([]cuts, len(pairs))
	ask := map[*Side]wanted{a: {}, b: {}}
	for i, p := range pairs {
		x := &at[i]
		if x.why = p.unjoinable(); x.why != "" {
			continue
		}
		if x.from, x.to, x.ok = p.edges(&d.Clock); !x.ok {
			x.why = p.apart()
			continue
		}
		for _, snap := range []int{x.from.low, x.from.high, x.to.low, x.to.high} {
			ask[p.from.side].add(snap, p.from.key)
		}
		for _, snap := range []int{x.from.snap, x.to.snap} {
			ask[p.to.side].add(snap, p.to.key)
		}
	}
	for s, w := range ask {
		if err := s.fill(w); err != nil {
			return err
		}
	}
	for i, p := range pairs {
		sa, x := p.identify(), at[i]
		if x.ok {
			get := func(e *end, snap int) account {
				if a := ask[e.side][snap][e.key]; a != nil {
					return *a
				}
				return account{}
			}
			acc := accounts{
				startLow: get(p.from, x.from.low), startHigh: get(p.from, x.from.high), endLow: get(p.from, x.to.low), endHigh: get(p.from, x.to.high),
				start: get(p.to, x.from.snap), end: get(p.to, x.to.snap),
			}
			sa.account(p, x.from, x.to, acc)
		} else {
			sa.Why = x.why
		}
		sa.Delay = d.Clock.delay(p.from.label, p.both)
		d.SAs = append(d.SAs, sa)
	}
	slices.SortStableFunc(d.SAs, func(a, b SA) int { return compareLabels(a.From, b.From) })
	return nil
}

func compareLabels(a, b Label) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// unjoinable says why the numbers of an SA cannot be joined at all.
func (p pair) unjoinable() string {
	for _, e := range []*end{p.from, p.to} {
		for _, sa := range e.side.whole.Report.SAs {
			if sa.SPI == e.key.SPI && sa.Dst == e.key.Dst && sa.Direction == e.key.Direction && sa.SharedBy > 1 {
				return fmt.Sprintf("at %s several SAs share SPI and destination, told apart by mark: their numbers mix on the wire", e.label)
			}
		}
		if e.restarted() {
			return fmt.Sprintf("at %s the sequence began anew: which packets belong to which of the two sequences is not known", e.label)
		}
	}
	return ""
}

// apart says that the ends have no number in common.
func (p pair) apart() string {
	span := func(e *end) string {
		first, last, ok := e.span()
		if !ok {
			return "none"
		}
		return fmt.Sprintf("%d to %d", first, last)
	}
	return fmt.Sprintf("the ends account for no number in common: %s for %s, %s for %s", p.from.label, span(p.from), p.to.label, span(p.to))
}

// identify fills in who the SA is.
func (p pair) identify() SA {
	sa := SA{SPI: p.from.key.SPI, Proto: p.from.key.Proto, Src: p.from.src, Dst: p.from.key.Dst, From: p.from.label, To: p.to.label,
		MatchedBy: p.by, Drops: []Drop{}}
	if p.to.src.IsValid() && p.to.src != p.from.src {
		sa.ReceivedFrom = p.to.src
	}
	if p.to.key.Dst != p.from.key.Dst {
		sa.ReceivedAt = p.to.key.Dst
	}
	if sa.ReceivedFrom.IsValid() || sa.ReceivedAt.IsValid() {
		sa.note("addresses are translated between the ends (NAT)")
	}
	return sa
}

// account fills in all bins.
func (sa *SA) account(p pair, from, to cut, a accounts) {
	sa.Joined = true
	sa.Range = &Range{First: from.number + 1, Last: to.number, Numbers: int64(to.number - from.number),
		Uncertainty: from.doubt, StartEdge: from.edge, EndEdge: to.edge}
	if from.low != from.high { // what its doubt said by the wire, the ledger says better
		sa.Range.Uncertainty -= p.from.unseen(from.low, from.high)
	}
	if p.from.seen == nil {
		sa.ReqID, sa.ESN = a.endHigh.reqid, a.endHigh.esn
	}
	sa.sender(p, from, to, a)
	sa.receiver(p, from, to, a)
	sa.path(p, from, to)
	sa.lost(p, a)
	if p.from.seen == nil {
		sa.Drops = append(sa.Drops, dropsMoved(p.from.label, a.startLow, a.endHigh)...)
	}
	if p.to.seen == nil {
		sa.Drops = append(sa.Drops, dropsMoved(p.to.label, a.start, a.end)...)
	}
	for _, e := range []struct {
		label Label
		notes []string
	}{{p.from.label, a.endHigh.notes}, {p.to.label, a.end.notes}} {
		for _, n := range e.notes {
			sa.note("%s: %s", e.label, n)
		}
	}
	if p.from.seen != nil {
		sa.note("%s is a capture: what its host did with the packets is not in it", p.from.label)
	}
	if p.to.seen != nil {
		sa.note("%s is a capture: what its host did with the packets is not in it", p.to.label)
	}
}

// sum adds up each direction.
func (d *Document) sum(pairs []pair) {
	for _, from := range []Label{A, B} {
		dir := Direction{From: from, To: from.other()}
		add := func(to **int64, n *int64) {
			if n == nil {
				return
			}
			if *to == nil {
				*to = new(int64(0))
			}
			**to += *n
		}
		for i := range d.SAs {
			sa := &d.SAs[i]
			if sa.From != from {
				continue
			}
			dir.SAs++
			if !sa.Joined {
				continue
			}
			dir.Joined++
			dir.Numbers += sa.Range.Numbers
			dir.Uncertainty += sa.Range.Uncertainty
			add(&dir.Delivered, sa.Receiver.Delivered)
			add(&dir.Lost.SenderHost, sa.Lost.SenderHost)
			add(&dir.Lost.Path, sa.Lost.Path)
			add(&dir.Lost.ReceiverHost, sa.Lost.ReceiverHost)
			if u := sa.Lost.Unattributed; u != nil {
				add(&dir.Lost.Unattributed, new(int64(math.Abs(float64(*u)))))
			}
		}
		if dir.SAs == 0 {
			continue
		}
		var sights []sight
		for _, p := range pairs {
			if p.from.label == from {
				sights = append(sights, p.both...)
			}
		}
		dir.Delay = d.Clock.delay(from, sights)
		d.Directions = append(d.Directions, dir)
	}
}
