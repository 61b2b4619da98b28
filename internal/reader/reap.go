// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// Slots are bounded, and anyone can send packets with invented SPIs. When they run short, those of
// SAs that the kernel does not have and that have been silent are given up, the longest silent
// first. Nothing of what they counted is lost: it stays in the snapshots, folded.

// foldedPerSlot bounds how many given-up SAs are remembered one by one.
const foldedPerSlot = 4

// reaper is what the reader keeps of slots that it gave up.
type reaper struct {
	folded  map[ledger.SAKey]*ledger.WireSA // never changed, but replaced
	order   []ledger.SAKey                  // of folding, oldest first
	evicted uint64                          // slots given up
	known   map[ledger.SAKey]bool
	dumped  []ledger.SAKey // the same in the order of the database
	quiet   time.Time      // no SA that may go was silent for longer; zero: not known
}

// Reclaim gives up the slots of SAs that are silent and not in the list, whether or not slots are
// short. They are free after the grace period, at a later Reclaim, Snapshot or Sample.
func (r *Reader) Reclaim(sad []ledger.SADEntry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table == nil {
		return nil
	}
	now := r.opts.Now()
	if err := r.eachState(now, func(*slotRecord, *State) {}); err != nil {
		return err
	}
	return r.reclaim(now, sad, true)
}

// reclaim finishes what earlier calls began, then begins anew if slots are short. A nil list of SAs
// means that it is not known; then the last one that was holds.
func (r *Reader) reclaim(now time.Time, sad []ledger.SADEntry, force bool) error {
	if r.table == nil {
		return nil
	}
	if sad != nil {
		r.know(sad)
	}
	errs := []error{r.finish(now)}
	used, size := r.used, r.table.open()
	idle := r.opts.Idle
	switch {
	case force:
	case used >= size:
		idle /= 10 // new SAs are being turned away
	case used*4 <= size*3:
		return errors.Join(errs...)
	}
	if !force && now.Sub(r.reap.quiet) < idle {
		return errors.Join(errs...)
	}
	silent := r.silent(now, idle)
	if !force {
		silent = silent[:min(len(silent), max(0, used-size/2))]
	}
	return errors.Join(append(errs, r.retire(silent, now))...)
}

// know takes down which SAs the kernel has. Mostly they are those that it had.
func (r *Reader) know(sad []ledger.SADEntry) {
	same := len(sad) == len(r.reap.dumped) && r.reap.known != nil
	for i := 0; same && i < len(sad); i++ {
		same = sad[i].Key == r.reap.dumped[i]
	}
	if same {
		r.learn(r.reap.known, r.reap.known, nil)
		return
	}
	before := r.reap.known
	r.reap.known, r.reap.dumped = make(map[ledger.SAKey]bool, len(sad)), r.reap.dumped[:0]
	var came []ledger.SAKey
	for i := range sad {
		key := sad[i].Key
		r.reap.known[key] = true
		r.reap.dumped = append(r.reap.dumped, key)
		if !before[key] {
			came = append(came, key)
		}
	}
	r.reap.quiet = time.Time{}
	r.learn(before, r.reap.known, came)
}

// retire takes SAs out of the table. What a program has in hand at this moment may still be counted in their slots.
func (r *Reader) retire(recs []*slotRecord, now time.Time) error {
	if len(recs) == 0 {
		return nil
	}
	var err error
	if r.slots, err = r.table.Slots(r.slots); err != nil {
		return err
	}
	keys := make(map[uint32]slotKey, len(recs))
	for _, rec := range recs {
		keys[rec.slot] = slotKey{}
	}
	for _, s := range r.slots {
		if _, asked := keys[s.Index]; asked {
			keys[s.Index] = s.Key
		}
	}
	var errs []error
	for _, rec := range recs {
		key := keys[rec.slot]
		if key == (slotKey{}) {
			continue // it was missed in a list that changed meanwhile; there will be others
		}
		if err := r.table.remove(Slot{key, rec.slot}); err != nil {
			errs = append(errs, err)
			continue
		}
		rec.retired = now
		r.retired = append(r.retired, rec)
	}
	return errors.Join(errs...)
}

// silent lists the slots that may be given up, the longest silent first.
func (r *Reader) silent(now time.Time, idle time.Duration) []*slotRecord {
	var out []*slotRecord
	r.reap.quiet = now
	for _, rec := range r.live {
		if rec == nil || !rec.retired.IsZero() {
			continue
		}
		long := now.Sub(rec.changed) >= idle
		if !long && !rec.changed.Before(r.reap.quiet) || r.reap.known[rec.key] {
			continue
		}
		if long {
			out = append(out, rec)
		}
		if rec.changed.Before(r.reap.quiet) {
			r.reap.quiet = rec.changed
		}
	}
	slices.SortFunc(out, func(a, b *slotRecord) int {
		return cmp.Or(a.changed.Compare(b.changed), cmp.Compare(a.slot, b.slot))
	})
	return out
}

// finish folds the slots whose grace is over and puts them back.
func (r *Reader) finish(now time.Time) error {
	var errs []error
	resting := r.retired[:0]
	for _, rec := range r.retired {
		done := false
		if now.Sub(rec.retired) >= r.opts.Grace {
			var err error
			done, err = r.giveBack(rec)
			errs = append(errs, err)
		}
		if !done {
			resting = append(resting, rec)
		}
	}
	clear(r.retired[len(resting):])
	r.retired = resting
	return errors.Join(errs...)
}

// giveBack folds one slot and puts it back. False: it is to be tried again.
func (r *Reader) giveBack(rec *slotRecord) (bool, error) {
	s, err := r.table.State(rec.slot)
	if err != nil {
		return false, err
	}
	count, cpus, err := r.table.Count(rec.slot)
	if err != nil {
		return false, err
	}
	if err := r.table.recycle(rec.slot); err != nil {
		return false, err
	}
	if !rec.over || s.packets() != rec.packets { // else it was silent to the end
		w := s.WireSA(count, 0)
		w.CPUs, w.LastSeen = cpus, r.lastSeen(rec, s)
		rec.pace.fill(&w)
		r.fold(w)
	}
	r.close(rec)
	return true, nil
}

func (r *Reader) fold(w ledger.WireSA) {
	r.reap.evicted++
	old, ok := r.reap.folded[w.Key]
	if ok {
		w = merge(*old, w)
		r.reap.folded[w.Key] = &w
		return
	}
	r.reap.folded[w.Key] = &w
	r.reap.order = append(r.reap.order, w.Key)
	r.arrive(place{key: w.Key, folded: true})
	if len(r.reap.order) > foldedPerSlot*r.table.Cap() {
		delete(r.reap.folded, r.reap.order[0])
		r.places.gone = true
		r.reap.order = r.reap.order[1:] // append copies what is left when there is no room behind it
	}
}
