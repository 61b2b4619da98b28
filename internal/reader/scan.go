// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"slices"
	"time"
)

// scanSlots is up to how many slots a table is looked through rather than its list of SAs: that is done in no time.
const scanSlots = 8192

// stir lists the slots of SAs that are not at rest, in the order in which their states lie in memory. kept, if not nil,
// says of a slot at rest whether it may be left out.
//
// Where states are mapped, one cache line of each tells, and the slots that are in use as well: those of the others are
// zero. The kernel's list of SAs, which costs more for each of them, is asked only while most slots are free.
func (r *Reader) stir(kept func(slot uint32) bool) ([]uint32, error) {
	r.awake = r.awake[:0]
	if slots := len(r.live); r.table.mem != nil && (slots <= scanSlots || r.used*8 >= slots) {
		for slot := range uint32(slots) {
			p, err := r.table.progress(slot)
			if err != nil {
				return nil, err
			}
			if p != r.rest[slot] || kept != nil && r.live[slot] != nil && !kept(slot) {
				r.awake = append(r.awake, slot)
			}
		}
		return r.awake, nil
	}
	var err error
	if r.slots, err = r.table.Slots(r.slots); err != nil {
		return nil, err
	}
	for _, s := range r.slots {
		if r.live[s.Index] == nil {
			r.awake = append(r.awake, s.Index)
		}
	}
	for i, rec := range r.live {
		if rec == nil {
			continue
		}
		slot := uint32(i)
		if r.rest[slot] != (progress{}) {
			p, err := r.table.progress(slot)
			if err != nil {
				return nil, err
			}
			if p == r.rest[slot] && (kept == nil || kept(slot)) {
				continue
			}
		}
		r.awake = append(r.awake, slot)
	}
	slices.Sort(r.awake)
	r.awake = slices.Compact(r.awake) // a hash that changes while it is walked may show entries twice
	return r.awake, nil
}

// eachState reads the head of the state of every slot whose SA is not at rest.
func (r *Reader) eachState(now time.Time, fn func(*slotRecord, *State)) error {
	slots, err := r.stir(nil)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		s, err := r.table.Head(slot)
		if err != nil {
			return err
		}
		if rec := r.note(slot, s, now); rec != nil {
			fn(rec, s)
		}
	}
	return nil
}

// note keeps how far the SA in a slot has come. Nil: its first packet is being written down this moment.
func (r *Reader) note(slot uint32, s *State, now time.Time) *slotRecord {
	rec := r.live[slot]
	if s.Used == 0 && (rec == nil || rec.retired.IsZero()) {
		return nil
	}
	if rec == nil {
		rec = r.open(slot, s, now)
	}
	if p := s.progress(); p != rec.last {
		rec.last, rec.moved = p, now
		if r.rest[slot] != (progress{}) {
			r.rest[slot], r.parts[slot] = progress{}, nil
			rec.pace.wake(r.ticked)
		}
	}
	if p := s.packets(); p != rec.packets {
		if p > rec.packets {
			r.heard(s, p-rec.packets)
		}
		rec.packets, rec.changed = p, now
	}
	return rec
}

// settle lays an SA to rest that has stood still for the grace period, so that no program can still be about to write
// down a packet that it had in hand when the SA last moved. What was read now is then all there is to know of it until
// it moves again. The caller has added to its history.
func (r *Reader) settle(rec *slotRecord, s *State, now time.Time) {
	if r.table.mem != nil && now.Sub(rec.moved) >= r.opts.Grace && rec.pace.current(s) {
		r.rest[rec.slot] = rec.last
	}
}

// recordsAtOnce is how many records are made in one piece, which lie side by side as the slots do.
const recordsAtOnce = 64

// open begins the record of a slot.
func (r *Reader) open(slot uint32, s *State, now time.Time) *slotRecord {
	if len(r.spare) == 0 {
		piece := make([]slotRecord, recordsAtOnce)
		for i := range piece {
			r.spare = append(r.spare, &piece[len(piece)-1-i])
		}
	}
	n := len(r.spare) - 1
	rec := r.spare[n]
	r.spare = r.spare[:n]
	*rec = slotRecord{slot: slot, key: s.Key(), changed: now, moved: now}
	r.live[slot] = rec
	r.arrive(place{key: rec.key, slot: slot})
	r.used++
	return rec
}

// close ends the record of a slot that was given back.
func (r *Reader) close(rec *slotRecord) {
	r.live[rec.slot], r.rest[rec.slot], r.parts[rec.slot] = nil, progress{}, nil
	r.places.gone = true
	r.used--
	r.spare = append(r.spare, rec)
}

// counted is what there is to know of one SA: its state, up to which number what it misses is lost, and the counts.
type counted struct {
	*State
	settled uint64
	before  uint64 // packets as of the reading before
	count   Count
	cpus    map[int]uint64
}

// eachCounted reads the state and the counts of every SA of which no part is kept. The counts are read for a row of slots at once, between
// two looks at how far each SA has come: if that is the same, the counts belong to the state. Otherwise they are
// read once more, right after the state.
func (r *Reader) eachCounted(now time.Time, fn func(*slotRecord, counted)) error {
	slots, err := r.stir(func(slot uint32) bool { return r.parts[slot] != nil })
	if err != nil {
		return err
	}
	for len(slots) > 0 {
		n := 1
		for n < len(slots) && int(slots[n]-slots[0]) < len(r.table.counts.slots) {
			n++
		}
		if err := r.countRow(slots[:n], now, fn); err != nil {
			return err
		}
		slots = slots[n:]
	}
	return nil
}

// countRow does so for slots that one call can read.
func (r *Reader) countRow(slots []uint32, now time.Time, fn func(*slotRecord, counted)) error {
	first, span := slots[0], int(slots[len(slots)-1]-slots[0])+1
	// A slot read in vain costs a tenth of a call.
	together := r.table.mem != nil && len(slots) > 1 && len(slots)*8 >= span
	if together {
		r.begun = r.begun[:0]
		for _, slot := range slots {
			p, err := r.table.progress(slot)
			if err != nil {
				return err
			}
			r.begun = append(r.begun, p)
		}
		together = r.table.counts.readRow(first, span)
	}
	for i, slot := range slots {
		c := counted{}
		if rec := r.live[slot]; rec != nil {
			c.settled, c.before = rec.history.settled(now, r.opts.Horizon), rec.packets
		}
		s, err := r.table.Above(slot, c.settled)
		if err != nil {
			return err
		}
		rec := r.note(slot, s, now)
		if rec == nil {
			continue
		}
		c.State = s
		if together && s.progress() == r.begun[i] {
			c.count, c.cpus = total(r.table.counts.ofRow(int(slot - first)))
		} else if c.count, c.cpus, err = r.table.Count(slot); err != nil {
			return err
		}
		fn(rec, c)
	}
	return nil
}
