// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"cmp"
	"slices"

	"xfrmscope/internal/ledger"
)

// account is what an end's ledger said of one SA at one snapshot.
type account struct {
	known  bool // the ledger had the SA
	in     ledger.Inbound
	out    ledger.Outbound
	causes map[ledger.Cause]int64
	drops  map[Drop]int64 // by place, without packets
	reqid  uint32
	window bool // packets that come twice are refused
	esn    bool
	notes  []string
}

// wanted are the snapshots at which accounts of SAs are asked for.
type wanted map[int]map[ledger.SAKey]*account

func (w wanted) add(snap int, k ledger.SAKey) {
	if w[snap] == nil {
		w[snap] = map[ledger.SAKey]*account{}
	}
	w[snap][k] = &account{}
}

// fill reads the recording once more, and asks the ledger at the snapshots that are wanted: a report of each
// would take long where there are many SAs.
func (s *Side) fill(w wanted) error {
	if s.capture || len(w) == 0 {
		return nil
	}
	i := -1
	_, err := s.feed(Visitor{Snapshot: func(_ ledger.Snapshot, l *ledger.Ledger) error {
		i++
		asked := w[i]
		if asked == nil {
			return nil
		}
		r := l.Report()
		for n := range r.SAs {
			sa := &r.SAs[n]
			a := asked[ledger.SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}]
			if a == nil {
				continue
			}
			a.known, a.causes, a.reqid, a.notes = true, sa.Xfrm, sa.ReqID, sa.Notes
			a.window = sa.ReplayWindow != nil && *sa.ReplayWindow > 0
			a.esn = sa.ESN != nil && *sa.ESN
			if sa.Ledger.In != nil {
				a.in = *sa.Ledger.In
			}
			if sa.Ledger.Out != nil {
				a.out = *sa.Ledger.Out
			}
			a.drops = map[Drop]int64{}
		}
		for _, d := range r.Drops {
			a := asked[ledger.SAKey{Dst: d.Dst, SPI: d.SPI, Proto: d.Proto, Direction: d.Direction}]
			if a == nil || !d.Lost || a.drops == nil {
				continue
			}
			a.drops[Drop{Stage: d.Stage, Place: d.Place, Function: d.Function, Reason: d.Reason, Hook: d.Hook}] += d.Packets
		}
		return nil
	}})
	return err
}

// moved is how far a bin moved. What the ledger did not have yet stood at 0.
func moved(before, after account, bin func(*account) *int64) *int64 {
	b, a := bin(&before), bin(&after)
	switch {
	case !before.known && a != nil:
		return new(*a)
	case a == nil || b == nil:
		return nil
	}
	return new(*a - *b)
}

// causesMoved are the causes of a direction's drops that moved.
func causesMoved(before, after account, outbound bool) map[ledger.Cause]int64 {
	var out map[ledger.Cause]int64
	for c, n := range after.causes {
		if d := n - before.causes[c]; d != 0 && c.Outbound() == outbound {
			if out == nil {
				out = map[ledger.Cause]int64{}
			}
			out[c] = d
		}
	}
	return out
}

// dropsMoved lists where an end dropped packets meanwhile, the most first.
func dropsMoved(end Label, before, after account) []Drop {
	out := []Drop{}
	for d, n := range after.drops {
		d.End, d.Packets = end, n-before.drops[d]
		if d.Packets != 0 {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Drop) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Place, b.Place),
			cmp.Compare(a.Function, b.Function), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Hook, b.Hook))
	})
	return out
}

// value is a bin's figure, 0 where it is not observed.
func value(bin *int64) int64 {
	if bin == nil {
		return 0
	}
	return *bin
}

// accounts are those of one SA's sender around both cuts, and its receiver at them.
type accounts struct {
	startLow, startHigh, endLow, endHigh account
	start, end                           account
}

// sender fills in the bins of the sending host. An edge that lies between two of its snapshots takes both:
// what was lost between them is counted into the range, and is uncertain.
func (sa *SA) sender(p pair, from, to cut, a accounts) {
	s, n := &sa.Sender, sa.Range.Numbers
	if p.from.seen != nil {
		s.OnWire = new(int64(len(within(p.from.seen.sorted, from.number, to.number))))
		if miss := n - *s.OnWire; miss > 0 {
			sa.note("of these numbers the capture of %s does not hold %d: its host did not send them, or the capture missed them", p.from.label, miss)
		}
		return
	}
	delta := func(bin func(*account) *int64) *int64 { return moved(a.startLow, a.endHigh, bin) }
	s.XfrmDropped = delta(func(a *account) *int64 { return a.out.XfrmOutDropped })
	s.EncryptFailed = delta(func(a *account) *int64 { return a.out.EncryptFailed })
	s.LostInHost = delta(func(a *account) *int64 { return a.out.LostInHostEgress })
	s.InFlight = delta(func(a *account) *int64 { return a.out.InFlight })
	s.Unattributed = delta(func(a *account) *int64 { return a.out.Unattributed })
	s.Causes = causesMoved(a.startLow, a.endHigh, true)
	numbered := delta(func(a *account) *int64 { return a.out.Encapsulated })
	wire := delta(func(a *account) *int64 { return a.out.OnWire })
	// What lies between the edges and the snapshots around them.
	outside := int64(from.number-p.from.sent(from.low)) + int64(p.from.sent(to.high)-to.number)
	if numbered != nil {
		s.Numbered = new(*numbered - outside)
		if s.XfrmDropped != nil {
			s.Offered = new(*s.Numbered + *s.XfrmDropped)
		}
		if *s.Numbered != n {
			// An SA may begin anywhere.
			sa.note("of these numbers %s used %d only", p.from.label, *s.Numbered)
		}
	}
	switch {
	case wire == nil:
		return
	case numbered == nil:
		s.OnWire = new(*wire - outside)
		if miss := n - *s.OnWire; miss > 0 {
			sa.note("the SA database of %s is not known: the %d numbers that its wire did not see were never sent or lost in its host", p.from.label, miss)
		}
	default:
		s.OnWire = new(*s.Numbered - value(s.EncryptFailed) - value(s.LostInHost) - value(s.InFlight) - value(s.Unattributed))
	}
	for _, edge := range []struct {
		between   bool
		low, high account
	}{{from.low != from.high, a.startLow, a.startHigh}, {to.low != to.high, a.endLow, a.endHigh}} {
		if !edge.between {
			continue
		}
		for _, bin := range []func(*account) *int64{
			func(a *account) *int64 { return a.out.EncryptFailed }, func(a *account) *int64 { return a.out.LostInHostEgress },
			func(a *account) *int64 { return a.out.InFlight }, func(a *account) *int64 { return a.out.Unattributed },
		} {
			d := value(moved(edge.low, edge.high, bin))
			sa.Range.Uncertainty += max(d, -d)
		}
	}
}

// receiver fills in the bins of the receiving host.
func (sa *SA) receiver(p pair, from, to cut, a accounts) {
	r := &sa.Receiver
	if seen := p.to.seen; seen != nil {
		shift := p.shift()
		r.Unique = new(int64(len(within(seen.sorted, from.number-shift, to.number-shift))))
		r.Duplicates = new(int64(len(within(seen.copies, from.number-shift, to.number-shift))))
		r.Arrivals = new(*r.Unique + *r.Duplicates)
		r.Stale, r.Unsorted = new(int64(0)), new(int64(0))
		return
	}
	delta := func(bin func(*ledger.Inbound) *int64) *int64 {
		return moved(a.start, a.end, func(a *account) *int64 { return bin(&a.in) })
	}
	r.Unique = delta(func(b *ledger.Inbound) *int64 { return b.Unique })
	r.Duplicates = delta(func(b *ledger.Inbound) *int64 { return b.Duplicates })
	r.Stale = delta(func(b *ledger.Inbound) *int64 { return b.Stale })
	r.Unsorted = delta(func(b *ledger.Inbound) *int64 { return b.Unsorted })
	r.Arrivals = delta(func(b *ledger.Inbound) *int64 { return b.Arrivals })
	r.LostInHost = delta(func(b *ledger.Inbound) *int64 { return b.LostInHost })
	r.XfrmDropped = delta(func(b *ledger.Inbound) *int64 { return b.XfrmDropped })
	r.InFlight = delta(func(b *ledger.Inbound) *int64 { return b.InFlight })
	r.Unattributed = delta(func(b *ledger.Inbound) *int64 { return b.Unattributed })
	r.Decapsulated = delta(func(b *ledger.Inbound) *int64 { return b.Decapsulated })
	r.PolicyDropped = delta(func(b *ledger.Inbound) *int64 { return b.PolicyDropped })
	r.InnerDropped = delta(func(b *ledger.Inbound) *int64 { return b.InnerDropped })
	r.Delivered = delta(func(b *ledger.Inbound) *int64 { return b.Delivered })
	r.Causes = causesMoved(a.start, a.end, false)
}

// path fills in what became of the packets between the wires.
func (sa *SA) path(p pair, from, to cut) {
	left, came := sa.Sender.OnWire, sa.Receiver.Unique
	if left == nil || came == nil {
		if came != nil {
			sa.note("%s's wire was not observed: %d packets were lost in its host or on the path, it is not known where",
				p.from.label, sa.Range.Numbers-*came-value(sa.Sender.EncryptFailed)-value(sa.Sender.LostInHost))
		}
		return
	}
	pending, surplus := int64(0), int64(0)
	if s, r := p.from.seen, p.to.seen; s != nil && r != nil {
		shift := p.shift()
		sent := within(s.sorted, from.number, to.number)
		got := slices.Clone(within(r.sorted, from.number-shift, to.number-shift))
		for i := range got {
			got[i] += shift
		}
		surplus = missing(got, sent)
	} else if to.edge == EdgeNumber {
		if last, ok := p.to.at(to.snap); ok {
			pending = int64(last.pending)
		}
	}
	lost := *left - *came - pending + surplus
	if lost < 0 {
		surplus -= lost
		lost = 0
	}
	sa.Path = Path{Lost: &lost, Pending: &pending, Unattributed: new(-surplus)}
	if surplus > 0 {
		sa.note("%d packets arrived at %s that were not seen to leave %s", surplus, p.to.label, p.from.label)
	}
}

// lost says where packets were lost.
func (sa *SA) lost(p pair, a accounts) {
	s, r := sa.Sender, sa.Receiver
	if s.Numbered != nil {
		sa.Lost.SenderHost = new(value(s.XfrmDropped) + value(s.EncryptFailed) + value(s.LostInHost))
	}
	sa.Lost.Path = sa.Path.Lost
	if p.to.seen == nil && r.Decapsulated != nil {
		dropped := value(r.LostInHost) + value(r.XfrmDropped) + value(r.PolicyDropped) + value(r.InnerDropped)
		if a.end.window {
			// Of a packet that came twice, one copy had to go.
			dropped = max(0, dropped-value(r.Duplicates))
		}
		sa.Lost.ReceiverHost = &dropped
	}
	if s.Unattributed != nil || r.Unattributed != nil || sa.Path.Unattributed != nil {
		sa.Lost.Unattributed = new(value(s.Unattributed) + value(sa.Path.Unattributed) + value(r.Unattributed))
	}
}
