// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"cmp"
	"errors"
	"maps"
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
	folded  map[ledger.SAKey]ledger.WireSA
	order   []ledger.SAKey // of folding, oldest first
	evicted uint64         // slots given up
	known   map[ledger.SAKey]bool
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
		before := r.reap.known
		r.reap.known = make(map[ledger.SAKey]bool, len(sad))
		var came []ledger.SAKey
		for i := range sad {
			key := sad[i].Key
			r.reap.known[key] = true
			if !before[key] {
				came = append(came, key)
			}
		}
		r.learn(before, r.reap.known, came)
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
	for _, rec := range r.silent(now, idle) {
		if !force && used*2 <= size {
			break
		}
		if err := r.table.remove(rec.slot); err != nil {
			errs = append(errs, err)
			continue
		}
		rec.retired = now
		used--
	}
	return errors.Join(errs...)
}

// silent lists the slots that may be given up, the longest silent first.
func (r *Reader) silent(now time.Time, idle time.Duration) []*slotRecord {
	var out []*slotRecord
	for _, rec := range r.live {
		if rec != nil && rec.retired.IsZero() && rec.valid && now.Sub(rec.changed) >= idle && !r.reap.known[rec.key] {
			out = append(out, rec)
		}
	}
	slices.SortFunc(out, func(a, b *slotRecord) int {
		return cmp.Or(a.changed.Compare(b.changed), cmp.Compare(a.slot.Index, b.slot.Index))
	})
	return out
}

// finish folds the slots whose grace is over and puts them back.
func (r *Reader) finish(now time.Time) error {
	var errs []error
	for _, rec := range r.live {
		if rec == nil || rec.retired.IsZero() || now.Sub(rec.retired) < r.opts.Grace {
			continue
		}
		index := rec.slot.Index
		s, err := r.table.State(index)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		count, cpus, err := r.table.Count(index)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := r.table.recycle(index); err != nil {
			errs = append(errs, err)
			continue
		}
		r.live[index] = nil
		r.used--
		if rec.over && s.packets() == rec.packets {
			continue // it was silent to the end
		}
		w := s.WireSA(count, 0)
		w.CPUs, w.LastSeen = cpus, r.lastSeen(rec, s)
		rec.pace.fill(&w)
		r.fold(w)
	}
	return errors.Join(errs...)
}

func (r *Reader) fold(w ledger.WireSA) {
	r.reap.evicted++
	old, ok := r.reap.folded[w.Key]
	if ok {
		r.reap.folded[w.Key] = merge(old, w)
		return
	}
	r.reap.folded[w.Key] = w
	r.reap.order = append(r.reap.order, w.Key)
	if len(r.reap.order) > foldedPerSlot*r.table.Cap() {
		delete(r.reap.folded, r.reap.order[0])
		r.reap.order = r.reap.order[1:] // append copies what is left when there is no room behind it
	}
}

func sortedWire(byKey map[ledger.SAKey]ledger.WireSA) []ledger.WireSA {
	// The keys are sorted and not the SAs, which are some ten times as long to move.
	keys := slices.SortedFunc(maps.Keys(byKey), compareKeys)
	out := make([]ledger.WireSA, len(keys))
	for i, key := range keys {
		out[i] = byKey[key]
	}
	return out
}
