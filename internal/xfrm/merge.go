// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// merger works out from the SAs known before, a dump, and the announcements around it, which SAs exist
// and which ended.
type merger struct {
	alive   map[ident]*SA
	present map[ident]bool      // in the dump, or announced since
	began   map[ident]time.Time // age of the SAs known before or announced so far
	ends    []end
	dumped  map[ident]*SA
	lead    map[ident]figures // of SAs in a further life
}

type end struct {
	sa  *SA
	at  time.Time
	why ledger.EndReason

	lead figures
}

// merge begins with the SAs known before, and the leads that they had, and a dump.
func merge(known map[ident]*SA, lead map[ident]figures, dumped []SA) *merger {
	m := &merger{alive: map[ident]*SA{}, present: map[ident]bool{}, began: map[ident]time.Time{},
		dumped: map[ident]*SA{}, lead: maps.Clone(lead)}
	if m.lead == nil {
		m.lead = map[ident]figures{}
	}
	for id, sa := range known {
		m.alive[id], m.began[id] = sa, sa.Added
	}
	for i := range dumped {
		sa := &dumped[i]
		id := sa.ident()
		m.present[id], m.dumped[id] = true, sa
		// The dump is newer than what was known. An SA that was replaced by another of the same name
		// is left to the announcements, which come in order; they are applied next.
		if had := m.alive[id]; had == nil || had.Added.Equal(sa.Added) {
			sa.remember(had)
			m.alive[id] = sa
		} else {
			m.replace(had, sa)
		}
	}
	return m
}

// replace notes that had made room for sa without saying what became of its counters yet: the
// deletion, if it was announced, fills them in.
func (m *merger) replace(had, sa *SA) {
	if !had.larval() {
		m.close(had, time.Time{}, ledger.EndVanished)
	}
	m.alive[sa.ident()] = sa
}

// apply goes through announcements in their order.
func (m *merger) apply(events []Event) {
	for _, ev := range events {
		switch ev.Kind {
		case SAAdded:
			m.add(ev.SA)
			m.announce(ev.SA, ev.At)
		case SAUpdated:
			m.update(ev.SA)
			m.announce(ev.SA, ev.At)
		case SASoftExpired:
			if had := m.alive[ev.SA.ident()]; had != nil && had.Added.Equal(ev.SA.Added) && had.SoftExpired.IsZero() {
				had.SoftExpired = ev.At
			}
		case SADeleted:
			m.finish(ev.SA, ev.At, ledger.EndDeleted)
		case SAHardExpired:
			m.finish(ev.SA, ev.At, ledger.EndExpired)
		case SAsFlushed:
			m.flush(ev.Proto, ev.At)
		}
	}
}

func (m *merger) add(sa *SA) {
	if sa.Key.SPI == 0 {
		return
	}
	id := sa.ident()
	switch had := m.alive[id]; {
	case had == nil && m.reborn(sa):
	case had == nil:
		m.alive[id] = sa
	case sa.Added.After(had.Added), had.larval() && !sa.larval() && sa.Added.Equal(had.Added):
		// A reservation is mostly filled within the second that it was made in.
		m.replace(had, sa)
	}
	// A known SA of the same age is the dump's, which is newer than the announcement.
	m.present[id], m.began[id] = true, sa.Added
}

// announcedWithin is how far the receipt of an announcement may be from the whole second that the kernel
// keeps as the SA's age; what is further away announces a change of an older SA.
const announcedWithin = 3 * time.Second

// announce notes when an SA was announced, which is finer than the age that the kernel keeps.
func (m *merger) announce(sa *SA, at time.Time) {
	had := m.alive[sa.ident()]
	if had == nil || had.larval() || !had.Announced.IsZero() {
		return
	}
	if d := at.Sub(had.Added); d >= 0 && d < announcedWithin {
		had.Announced = at
	}
}

// remember takes over what only announcements tell.
func (sa *SA) remember(had *SA) {
	if had != nil {
		sa.Announced, sa.SoftExpired = had.Announced, had.SoftExpired
	}
}

// update takes notice of an SA that filled a reservation. An update of a complete SA happens in place,
// and its announcement describes the request, not the SA with its age and counters
// (xfrm_state_update); the next dump shows the truth.
func (m *merger) update(sa *SA) {
	had := m.alive[sa.ident()]
	if had == nil || had.larval() {
		m.add(sa)
	}
}

// finish notes the end of an SA with the counters it ended with.
func (m *merger) finish(last *SA, at time.Time, why ledger.EndReason) {
	id := last.ident()
	// The SA may have been replaced in the meantime; then its end is already noted, without details.
	for i := range m.ends {
		e := &m.ends[i]
		if e.why == ledger.EndVanished && e.sa.ident() == id && e.sa.Added.Equal(last.Added) {
			*e = end{sa: complete(last, e.sa, why), at: at, why: why, lead: e.lead}
			return
		}
	}
	had := m.alive[id]
	if had != nil && had.Added.After(last.Added) {
		had = nil // a newer SA of the same name lives on
	} else {
		delete(m.alive, id)
		delete(m.present, id)
	}
	// The end of a reservation is no news. An expiry names no algorithms, so an SA that nothing else is
	// known of counts as one if it never saw a packet.
	whole := complete(last, had, why)
	if last.Key.SPI == 0 || whole.larval() && (had != nil || last.Packets == 0) {
		return
	}
	m.close(whole, at, why)
}

// complete adds to an announced end what only an earlier reading knows. An expiry comes without
// algorithms and replay state. Of the sender's last number it is known at least that each packet since
// had one; with segmentation left to the device a packet has several, then this is a lower bound.
func complete(last, had *SA, why ledger.EndReason) *SA {
	if had == nil {
		return last
	}
	last.Key.Direction = had.Key.Direction
	last.remember(had)
	if why != ledger.EndExpired {
		return last
	}
	whole := *had
	whole.SADEntry = clone(had.SADEntry)
	if last.Packets > had.Packets && had.OSeq != 0 {
		whole.OSeq += last.Packets - had.Packets
	}
	whole.Packets, whole.Bytes = last.Packets, last.Bytes
	whole.ReplayLate, whole.ReplayDuplicate, whole.IntegrityFailed = last.ReplayLate, last.ReplayDuplicate, last.IntegrityFailed
	return &whole
}

// flush ends all SAs of a protocol that were there at that time: those known before or announced
// before the flush. The kernel gives no counters (xfrm_state_flush), so the last known ones must do.
func (m *merger) flush(proto uint8, at time.Time) {
	for i := range m.ends {
		if e := &m.ends[i]; e.why == ledger.EndVanished && e.sa.matches(proto) {
			e.why, e.at = ledger.EndFlushed, at
		}
	}
	for id, sa := range m.alive {
		began, older := m.began[id]
		if !sa.matches(proto) || !older || !began.Equal(sa.Added) {
			continue
		}
		if !sa.larval() {
			m.close(sa, at, ledger.EndFlushed)
		}
		delete(m.alive, id)
		delete(m.present, id)
		delete(m.began, id)
	}
}

// missing lists SAs that are gone without a word.
func (m *merger) missing() []ident {
	var ids []ident
	for id, sa := range m.alive {
		if !m.present[id] && !sa.larval() {
			ids = append(ids, id)
		}
	}
	return ids
}

// vanish ends them.
func (m *merger) vanish(now time.Time) {
	for _, id := range m.missing() {
		m.close(m.alive[id], time.Time{}, ledger.EndVanished)
	}
	maps.DeleteFunc(m.alive, func(id ident, _ *SA) bool { return !m.present[id] })
	for i := range m.ends {
		if m.ends[i].at.IsZero() {
			m.ends[i].at = now
		}
	}
}

// entries are the SAs that exist, in the order of their names, without mere reservations.
func (m *merger) entries() []ledger.SADEntry {
	out := make([]ledger.SADEntry, 0, len(m.alive))
	for id, sa := range m.alive {
		if !sa.larval() {
			out = append(out, led(clone(sa.SADEntry), m.lead[id]))
		}
	}
	slices.SortFunc(out, compare)
	return out
}

func (m *merger) ended() []ledger.EndedSA {
	out := make([]ledger.EndedSA, 0, len(m.ends))
	for _, e := range m.ends {
		out = append(out, ledger.EndedSA{Last: led(clone(e.sa.SADEntry), e.lead), At: e.at, Why: e.why})
	}
	slices.SortStableFunc(out, func(a, b ledger.EndedSA) int {
		return cmp.Or(a.At.Compare(b.At), compare(a.Last, b.Last))
	})
	return out
}

func compare(a, b ledger.SADEntry) int {
	return cmp.Or(a.Key.Dst.Compare(b.Key.Dst), cmp.Compare(a.Key.SPI, b.Key.SPI),
		cmp.Compare(a.Key.Proto, b.Key.Proto), cmp.Compare(a.MarkValue, b.MarkValue),
		cmp.Compare(a.MarkMask, b.MarkMask), a.Added.Compare(b.Added))
}

// orientEnded gives a direction to SAs that came by announcement and were never dumped.
func (c *Client) orientEnded(ctx context.Context, m *merger) error {
	var open []*SA
	for _, sa := range m.alive {
		if sa.Key.Direction == ledger.Unknown {
			open = append(open, sa)
		}
	}
	for _, e := range m.ends {
		if e.sa.Key.Direction == ledger.Unknown {
			open = append(open, e.sa)
		}
	}
	sas := make([]SA, len(open))
	for i, sa := range open {
		sas[i] = *sa
	}
	if err := c.orient(ctx, sas); err != nil {
		return err
	}
	for i := range sas {
		open[i].Key.Direction = sas[i].Key.Direction
	}
	return nil
}
