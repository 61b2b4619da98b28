// SPDX-License-Identifier: Apache-2.0

package reader

import "time"

// list lists the slots in the table and on their way out of it, in the order in which their states lie in memory.
func (r *Reader) list(now time.Time) ([]uint32, error) {
	var err error
	if r.slots, err = r.table.Slots(r.slots); err != nil {
		return nil, err
	}
	for _, slot := range r.slots {
		rec := r.live[slot.Index]
		if rec == nil {
			rec = &slotRecord{slot: slot, changed: now}
			r.live[slot.Index] = rec
			r.used++
		}
	}
	r.listed = r.listed[:0]
	for slot, rec := range r.live {
		if rec != nil {
			r.listed = append(r.listed, uint32(slot))
		}
	}
	return r.listed, nil
}

// eachState reads the head of every slot's state.
func (r *Reader) eachState(now time.Time, fn func(*slotRecord, *State)) error {
	slots, err := r.list(now)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		s, err := r.table.Head(slot)
		if err != nil {
			return err
		}
		if rec := r.live[slot]; r.note(rec, s, now) {
			fn(rec, s)
		}
	}
	return nil
}

// note keeps how far an SA has come. False: its first packet is being written down this moment.
func (r *Reader) note(rec *slotRecord, s *State, now time.Time) bool {
	if s.Used == 0 && rec.retired.IsZero() {
		return false
	}
	rec.key, rec.valid = s.Key(), true
	if p := s.packets(); p != rec.packets {
		if p > rec.packets {
			r.heard(s, p-rec.packets)
		}
		rec.packets, rec.changed = p, now
	}
	return true
}

// counted is what there is to know of one SA: its state, up to which number what it misses is lost, and the counts.
type counted struct {
	*State
	settled uint64
	count   Count
	cpus    map[int]uint64
}

// eachCounted reads the state and the counts of every slot. The counts are read for a row of slots at once, between
// two looks at how far each SA has come: if that is the same, the counts belong to the state. Otherwise they are
// read once more, right after the state.
func (r *Reader) eachCounted(now time.Time, fn func(*slotRecord, counted)) error {
	slots, err := r.list(now)
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
		rec, c := r.live[slot], counted{}
		c.settled = rec.history.settled(now, r.opts.Horizon)
		s, err := r.table.Above(slot, c.settled)
		if err != nil {
			return err
		}
		if !r.note(rec, s, now) {
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
