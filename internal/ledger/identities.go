// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"slices"
)

// causes says why xfrm dropped packets of this SA, from the best source there is.
func (l *Ledger) causes(sa *SA, r row) {
	switch {
	case l.stackSeen:
		sa.Xfrm, sa.XfrmFrom = map[Cause]int64{}, FromStack
		if r.stack != nil {
			for c, n := range r.stack.total() {
				sa.Xfrm[c] += n
			}
			hist := make(counts, histBuckets)
			for b, n := range r.stack.late.total() {
				hist[min(b, histBuckets-1)] += n
			}
			sa.XfrmLateMax = maxDuring(r.stack.now.LateMax, hist)
			if sa.XfrmLateMax > 0 {
				sa.XfrmLate = hist
			}
		}
		l.tellIntegrity(sa)
	case sa.Own != nil && sa.Direction == In:
		// Without hooks the SA's own three counters remain. They see neither state nor policy
		// drops, and under ESN integrity_failed holds the mis-epochs too.
		sa.Xfrm, sa.XfrmFrom = map[Cause]int64{}, FromSAD
		for c, n := range map[Cause]int64{
			ReplayLate: sa.Own.ReplayWindow, ReplayDuplicate: sa.Own.Replay, IntegrityFailed: sa.Own.IntegrityFailed,
		} {
			if n != 0 {
				sa.Xfrm[c] = n
			}
		}
		sa.note("the stack hooks are not attached: causes are the SA's own counters, which know no state, policy or format errors")
	}
	if r.unknown != 0 {
		if sa.Xfrm == nil {
			sa.Xfrm = map[Cause]int64{}
		}
		sa.Xfrm[NoState] += r.unknown
	}
}

// integrityHook is where xfrm says of a packet that it was the integrity check that failed.
const integrityHook = "xfrm_audit_state_icvfail"

// IntegrityUntold says that the kernel does not have the function that tells integrity failures one by one.
func IntegrityUntold(hooks []Hook) bool {
	return slices.ContainsFunc(hooks, func(h Hook) bool { return h.Name == integrityHook && !h.Attached })
}

// tellIntegrity has the SA's own counter say how many of the packets with a fault in them failed their integrity check, where
// no hook says it of each.
func (l *Ledger) tellIntegrity(sa *SA) {
	if sa.Own == nil || sa.Direction != In || !IntegrityUntold(l.hooks) {
		return
	}
	n := min(sa.Xfrm[ProtoError], sa.Own.IntegrityFailed-sa.Xfrm[IntegrityFailed]-sa.Xfrm[ESNMisEpoch])
	if n <= 0 {
		return
	}
	sa.Xfrm[IntegrityFailed] += n
	if sa.Xfrm[ProtoError] -= n; sa.Xfrm[ProtoError] == 0 {
		delete(sa.Xfrm, ProtoError)
	}
	sa.note("integrity failures are told from malformed packets by the SA's own counter: the hook on %s is missing", integrityHook)
}

func (sa *SA) note(format string, args ...any) {
	sa.Notes = append(sa.Notes, fmt.Sprintf(format, args...))
}

// inbound sorts what arrived into bins.
func (l *Ledger) inbound(sa *SA, r row) *Inbound {
	b := &Inbound{}
	if w := sa.Wire; w != nil {
		b.Arrivals = new(w.Packets)
		if sa.SharedBy > 1 {
			sa.note("%d SAs share this SPI and destination, told apart by mark: their sequence numbers mix on the wire and say nothing", sa.SharedBy)
		} else {
			b.Unique, b.Duplicates, b.Stale = new(w.Unique), new(w.Duplicates), new(w.Stale)
			b.Missing, b.Pending = new(w.Missing), new(w.Pending)
			b.LostOnPath = new(w.Missing - w.Pending)
			b.Sent = new(w.Unique + w.Missing)
			b.Unsorted = new(w.Packets - w.Unique - w.Duplicates - w.Stale)
		}
	} else {
		l.noteUnwatched(sa)
	}
	if sa.Direction == Unknown {
		if l.source.Kind == KindCapture {
			sa.note("a capture shows the wire only: what the host did with the packets is not in it")
		} else {
			sa.note("neither address of this SA is this host's: what it did with the packets cannot be told")
		}
		return b
	}
	switch {
	case !l.sadSeen:
		sa.note("the SA database was not readable: packets cannot be followed past the wire")
		return b
	case r.sad == nil && len(sa.Xfrm) == 0:
		sa.note("this host has no SA for these packets: they pass through")
		return b
	case r.sad == nil && (len(sa.Xfrm) == 1 && sa.Xfrm[NoState] != 0 || allRefused(sa.Xfrm, b.Arrivals, r.drops.before)):
		b.Decapsulated = new(int64(0))
	case r.sad == nil:
		sa.note("this SA came and went between two looks at the SA database: what it decapsulated is unknown")
		return b
	case r.sad.unbased:
		sa.note("the SA database became readable only after the start: what this SA had decapsulated until then is unknown")
		return b
	default:
		b.Decapsulated = new(sa.Own.Packets)
	}
	if sa.Offload == "packet" {
		sa.note("the hardware decrypts this SA whole: wire and hooks do not see its packets")
	}

	dropped, after := int64(0), int64(0)
	for c, n := range sa.Xfrm {
		switch {
		case c.Outbound():
		case c.AfterDecap():
			after += n
		default:
			dropped += n
		}
	}
	b.XfrmDropped = new(dropped)
	if sa.XfrmFrom == FromStack {
		b.PolicyDropped = new(after)
		b.Delivered = new(*b.Decapsulated - after - r.drops.inner)
		if !l.dropsSeen {
			sa.note("drops outside xfrm are not observed: delivered holds what the inner path dropped (inner_dropped)")
		}
	}
	if l.dropsSeen {
		b.LostInHost, b.InnerDropped = new(r.drops.before+r.drops.early), new(r.drops.inner)
	}
	if b.Arrivals == nil {
		return b
	}
	if *b.Arrivals == 0 && *b.Decapsulated > 0 {
		sa.note("xfrm decapsulated packets that the wire programs never saw: another interface, or GRO took them before the hook")
	}
	explained := dropped + *b.Decapsulated + r.drops.before
	inFlight, unattributed := settle(r.wire, *b.Arrivals, explained)
	if l.dropsSeen {
		// What may have been dropped in front of the wire hook is only lost behind it as far as the
		// hook counted it.
		counted := min(max(unattributed, 0), r.drops.early)
		unattributed -= counted
		b.LostInHost = new(r.drops.before + counted)
		if before := r.drops.early - counted; before > 0 {
			sa.note("%d packets were dropped before the wire hook, where nothing is counted as arrived", before)
		}
	}
	b.InFlight, b.Unattributed = new(inFlight), new(unattributed)
	return b
}

// allRefused says whether all that arrived was dropped before decryption, so that nothing is left that can
// have been decapsulated: an SA that is only reserved, or that IKE has given up, is not listed.
func allRefused(causes map[Cause]int64, arrivals *int64, before int64) bool {
	for c, n := range causes {
		if c.Outbound() || c.AfterDecap() {
			return false
		}
		before += n
	}
	return arrivals != nil && *arrivals == before
}

// outbound sorts what left into bins.
func (l *Ledger) outbound(sa *SA, r row) *Outbound {
	b := &Outbound{}
	if sa.Wire != nil {
		b.OnWire = new(sa.Wire.Packets - r.drops.queue)
	} else {
		l.noteUnwatched(sa)
	}
	if l.dropsSeen {
		b.LostInHostEgress = new(r.drops.out + r.drops.queue + r.drops.either)
	}
	if sa.XfrmFrom == FromStack {
		dropped, numbered := int64(0), int64(0)
		for c, n := range sa.Xfrm {
			switch {
			case !c.Outbound():
			case c.AfterNumbering():
				numbered += n
			default:
				dropped += n
			}
		}
		b.XfrmOutDropped, b.EncryptFailed = new(dropped), new(numbered)
	} else {
		sa.note("the stack hooks are not attached: outbound drops are not observed")
	}
	switch {
	case !l.sadSeen:
		sa.note("the SA database was not readable: numbers assigned are unknown")
		return b
	case r.sad == nil:
		sa.note("this host has no SA for these packets: they pass through")
		return b
	case r.sad.unbased:
		sa.note("the SA database became readable only after the start: numbers assigned until then are unknown")
		return b
	case sa.Proto != ESP && sa.Proto != AH:
		sa.note("%s carries no sequence numbers", sa.Proto)
		return b
	}
	b.Encapsulated = new(sa.Own.OSeq)
	if b.XfrmOutDropped != nil {
		b.Offered = new(*b.Encapsulated + *b.XfrmOutDropped)
	}
	if b.OnWire == nil {
		return b
	}
	failed := int64(0)
	if b.EncryptFailed != nil {
		failed = *b.EncryptFailed
	}
	// Seen from the numbers, the wire is what explains them, so both remainders change sign.
	inFlight, unattributed := settle(r.wire, sa.Wire.Packets, *b.Encapsulated-failed-r.drops.out)
	inFlight, unattributed = -inFlight, -unattributed
	// A traffic control filter may stand before or behind the wire hook: as far as numbers are missing
	// there, it stands before.
	before := min(max(unattributed, 0), r.drops.either)
	unattributed -= before
	*b.OnWire -= r.drops.either - before
	b.InFlight, b.Unattributed = new(inFlight), new(unattributed)
	return b
}

func (l *Ledger) noteUnwatched(sa *SA) {
	if !l.wireSeen {
		sa.note("the wire programs are not attached: sent, lost and arrived are not observed")
		return
	}
	sa.note("the wire programs account ESP only: sent, lost and arrived are not observed for %s", sa.Proto)
}

// settle holds what the wire counted against what the kernel explains. The SAD was dumped between two
// readings of the wire, so the number on the wire at that moment lies in an interval, at the start of
// the run as at its end. Inside it the difference is packets under way; the distance to its nearer
// end is unattributed: positive where packets vanished, negative where more came out than went in.
func settle(w *wireSA, wire, explained int64) (inFlight, unattributed int64) {
	lo, hi := wire, wire
	if w != nil {
		lo -= skew(w.now)
		hi += w.skewStart
	}
	nearest := min(max(explained, lo), hi)
	return wire - nearest, nearest - explained
}
