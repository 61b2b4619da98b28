// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"time"

	"xfrmscope/internal/ledger"
)

// An IKE daemon that learns of a new address or port of its peer (RFC 4555, RFC 7296 section 2.23)
// cannot change an SA's encapsulation in place. It deletes the SA and adds it again under the same
// name, with the age and the counters that it read a moment before (strongSwan does so). That is one SA
// with several lives. Packets that came between reading and deleting are in the first life's last
// counters only, and the counters of sa.stats begin again at zero: what the lives before counted beyond
// what the present one began with is its lead, and added to every reading.

// figures are the counters of an SA that only rise.
type figures struct {
	packets, bytes, oseq, late, duplicate, integrity uint64
}

func figuresOf(e *ledger.SADEntry) figures {
	return figures{e.Packets, e.Bytes, e.OSeq, e.ReplayLate, e.ReplayDuplicate, e.IntegrityFailed}
}

// plus and minus wrap around, so that a lead may also be negative.
func (f figures) plus(o figures) figures {
	return figures{f.packets + o.packets, f.bytes + o.bytes, f.oseq + o.oseq,
		f.late + o.late, f.duplicate + o.duplicate, f.integrity + o.integrity}
}

func (f figures) minus(o figures) figures {
	return figures{f.packets - o.packets, f.bytes - o.bytes, f.oseq - o.oseq,
		f.late - o.late, f.duplicate - o.duplicate, f.integrity - o.integrity}
}

// led is the entry with the lead of its lives before.
func led(e ledger.SADEntry, lead figures) ledger.SADEntry {
	f := figuresOf(&e).plus(lead)
	e.Packets, e.Bytes, e.OSeq = f.packets, f.bytes, f.oseq
	e.ReplayLate, e.ReplayDuplicate, e.IntegrityFailed = f.late, f.duplicate, f.integrity
	return e
}

// close notes an end, with the lead that the SA had.
func (m *merger) close(sa *SA, at time.Time, why ledger.EndReason) {
	m.ends = append(m.ends, end{sa: sa, at: at, why: why, lead: m.lead[sa.ident()]})
	delete(m.lead, sa.ident())
}

// reborn begins another life of an SA that was just deleted; false means that there was none.
func (m *merger) reborn(sa *SA) bool {
	id := sa.ident()
	for i := len(m.ends) - 1; i >= 0; i-- {
		e := &m.ends[i]
		if e.why != ledger.EndDeleted || e.sa.ident() != id || !e.sa.Added.Equal(sa.Added) {
			continue
		}
		before := figuresOf(&e.sa.SADEntry)
		lead := before.minus(figuresOf(&sa.SADEntry))
		sa.Key.Direction = e.sa.Key.Direction
		sa.remember(e.sa)
		m.lead[id] = e.lead.plus(lead)
		m.alive[id] = sa
		// A dump that is ahead of the first life's end can only be the second's. One that is not may be
		// either's, and then the announcement is what is certain, unless the two lives meet exactly.
		d := m.dumped[id]
		if d == nil || !d.Added.Equal(sa.Added) {
			return true
		}
		if d.Packets > before.packets || d.OSeq > before.oseq ||
			lead == (figures{}) && d.Packets >= before.packets && d.OSeq >= before.oseq {
			m.alive[id] = d
		}
		return true
	}
	return false
}
