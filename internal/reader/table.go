// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// WireMaps are the maps of the wire object that carry its counts, under the names of bpf/lib/maps.h.
type WireMaps struct {
	SASlots     *ebpf.Map // sa_slots: hash of struct sa_key to slot
	SAStates    *ebpf.Map // sa_states: array of struct sa_state by slot, mmapable
	SACounts    *ebpf.Map // sa_counts: per-CPU array of struct sa_count by slot
	FreeSlots   *ebpf.Map // free_slots: queue of slots that no SA has
	KeptSlots   *ebpf.Map // kept_slots: those of them that only SAs in KnownSAs may have
	KnownSAs    *ebpf.Map // known_sas
	WhyCounts   *ebpf.Map // why_counts
	AsideCounts *ebpf.Map // aside_counts
	LostCounts  *ebpf.Map // lost_counts, shared with the stack object
	Keepalives  *ebpf.Map // keepalives

	Keeps bool // slots were set aside (bpfobj.KeepSlots)
}

// WireMapsOf picks the wire maps out of a loaded collection's maps.
func WireMapsOf(maps map[string]*ebpf.Map) (WireMaps, error) {
	var m WireMaps
	var missing []error
	for name, dst := range map[string]**ebpf.Map{
		"sa_slots": &m.SASlots, "sa_states": &m.SAStates, "sa_counts": &m.SACounts,
		"free_slots": &m.FreeSlots, "why_counts": &m.WhyCounts, "aside_counts": &m.AsideCounts,
		"lost_counts": &m.LostCounts, "keepalives": &m.Keepalives, "kept_slots": &m.KeptSlots, "known_sas": &m.KnownSAs,
	} {
		if *dst = maps[name]; *dst == nil {
			missing = append(missing, fmt.Errorf("the wire object has no map %s", name))
		}
	}
	return m, errors.Join(missing...)
}

// Slot is one used entry of the SA table.
type Slot struct {
	Key   slotKey
	Index uint32
}

type slotKey = bpfobj.SAKey

// Table reads the wire programs' SA table while they write it, and never changes what they count.
// It is not safe for concurrent use.
type Table struct {
	maps    WireMaps
	mem     *ebpf.Memory // nil where the map could not be mapped
	states  [2]State     // scratch: what was read last, and before
	cpus    int
	noBatch bool
	keys    []slotKey // scratch of Slots
	values  []uint32
	counts  counts
}

// OpenTable prepares to read the maps; they stay the caller's.
func OpenTable(m WireMaps) (*Table, error) {
	if size, want := int(m.SACounts.ValueSize()), int(unsafe.Sizeof(Count{})); size != want {
		return nil, fmt.Errorf("open SA table: sa_counts holds %d bytes, this build reads %d: "+
			"the objects and the Go side are of different builds", size, want)
	}
	if size := int(m.SAStates.ValueSize()); size != StateSize {
		return nil, fmt.Errorf("open SA table: sa_states holds %d bytes an SA, this build reads %d: "+
			"the objects and the Go side are of different builds", size, StateSize)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("open SA table: %w", err)
	}
	t := &Table{maps: m, cpus: cpus, counts: newCounts(m.SACounts, cpus)}
	// Mapping saves a system call an SA. Where it is refused, look-ups do the same more slowly.
	if mem, err := m.SAStates.Memory(); err == nil {
		t.mem = mem
	}
	return t, nil
}

// Cap is how many SAs the table can hold.
func (t *Table) Cap() int { return int(t.maps.SAStates.MaxEntries()) }

// open is how many SAs can be in the table that the kernel's database does not have.
func (t *Table) open() int {
	if !t.maps.Keeps {
		return t.Cap()
	}
	return t.Cap() - int(t.maps.KeptSlots.MaxEntries())
}

// Slots lists the slots in use, appending to dst[:0].
func (t *Table) Slots(dst []Slot) ([]Slot, error) {
	dst = dst[:0]
	if !t.noBatch {
		out, err := t.slotsBatch(dst)
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return out, err
		}
		t.noBatch = true
	}
	var key slotKey
	var slot uint32
	it := t.maps.SASlots.Iterate()
	for it.Next(&key, &slot) {
		dst = append(dst, Slot{key, slot})
	}
	// A hash that changes while it is walked may show entries twice or start again; the caller
	// keeps slots apart by their number.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return dst, fmt.Errorf("list sa_slots: %w", err)
	}
	return dst, nil
}

func (t *Table) slotsBatch(dst []Slot) ([]Slot, error) {
	// The kernel refuses a buffer smaller than one hash bucket; the whole table always fits.
	n := int(t.maps.SASlots.MaxEntries())
	if t.keys == nil {
		t.keys, t.values = make([]slotKey, n), make([]uint32, n)
	}
	keys, slots := t.keys, t.values
	var cursor ebpf.MapBatchCursor
	for {
		got, err := t.maps.SASlots.BatchLookup(&cursor, keys, slots, nil)
		for i := range got {
			dst = append(dst, Slot{keys[i], slots[i]})
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist): // the end
			return dst, nil
		case err != nil:
			return dst, fmt.Errorf("list sa_slots: %w", err)
		}
	}
}

// stateTries bounds the reads of one state until two in a row agree.
const stateTries = 4

// State reads the state of one slot, which holds until the next is read. Its counters change in several
// steps, so it is read until two reads agree. A read that meets a packet between two of its own updates can
// still be off by that packet; once packets rest, every read is exact.
func (t *Table) State(slot uint32) (*State, error) {
	return t.agreed(slot, func(s *State) error { return t.readState(slot, s, 0, StateSize) })
}

// Head is State without what lies behind the counters, which stays as it was and means nothing: the window
// above all. It costs a twentieth.
func (t *Table) Head(slot uint32) (*State, error) {
	return t.agreed(slot, func(s *State) error { return t.readState(slot, s, 0, headSize) })
}

// Above is State without the gaps, and with so much of the window as missingAbove asks for with the number given.
func (t *Table) Above(slot uint32, settled uint64) (*State, error) {
	return t.agreed(slot, func(s *State) error {
		if err := t.readState(slot, s, 0, gapsAt); err != nil {
			return err
		}
		if err := t.readState(slot, s, windowEnd, StateSize); err != nil {
			return err
		}
		if s.holes() == 0 {
			return nil // so nothing of it is pending
		}
		for _, r := range s.wordsAbove(settled) {
			if err := t.readState(slot, s, windowAt+r[0]*8, windowAt+r[1]*8); err != nil {
				return err
			}
		}
		return nil
	})
}

// progress reads how far an SA has come. Only a table that is mapped has it for less than all the rest.
func (t *Table) progress(slot uint32) (p progress, err error) {
	if _, err := t.mem.ReadAt((*[unsafe.Sizeof(p)]byte)(unsafe.Pointer(&p))[:], int64(slot)*int64(StateSize)+int64(progressAt)); err != nil {
		return p, fmt.Errorf("read sa_states slot %d: %w", slot, err)
	}
	return p, nil
}

func (t *Table) agreed(slot uint32, read func(*State) error) (*State, error) {
	s, again := &t.states[0], &t.states[1]
	for range stateTries {
		if err := read(s); err != nil {
			return nil, err
		}
		// The counters alone are compared, so they alone are read again.
		if err := t.readState(slot, again, 0, headSize); err != nil {
			return nil, err
		}
		if sameCounts(s, again) {
			break
		}
	}
	return s, nil
}

func sameCounts(a, b *State) bool {
	return a.First == b.First && a.Highest == b.Highest && a.Holes == b.Holes && a.Early == b.Early &&
		a.ClosedSpan == b.ClosedSpan && a.Duplicates == b.Duplicates && a.Stale == b.Stale
}

// readState reads the bytes of a state from one offset to another.
func (t *Table) readState(slot uint32, into *State, from, to int) error {
	if from == to {
		return nil
	}
	if t.mem == nil {
		b, err := t.maps.SAStates.LookupBytes(slot)
		if err != nil {
			return fmt.Errorf("read sa_states slot %d: %w", slot, err)
		}
		copy(into.bytes()[from:to], b[from:])
		return nil
	}
	if _, err := t.mem.ReadAt(into.bytes()[from:to], int64(slot)*int64(StateSize)+int64(from)); err != nil {
		return fmt.Errorf("read sa_states slot %d: %w", slot, err)
	}
	return nil
}

// remove takes an SA out of the table: its next packet opens a new slot. Hints lead to a slot as long
// as it is marked as used, so the mark goes as well, after the key (bpf/lib/maps.h).
func (t *Table) remove(s Slot) error {
	if t.mem == nil {
		return fmt.Errorf("delete SA %s: sa_states is not mapped, and its mark cannot be changed otherwise "+
			"without losing packets", ledger.SPI(s.Key.Spi))
	}
	err := t.maps.SASlots.Delete(s.Key)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete SA %s from sa_slots: %w", ledger.SPI(s.Key.Spi), err)
	}
	used := int64(s.Index)*int64(StateSize) + int64(unsafe.Offsetof(State{}.Used))
	if _, err := t.mem.WriteAt([]byte{0}, used); err != nil {
		return fmt.Errorf("mark slot %d of SA %s as unused: %w", s.Index, ledger.SPI(s.Key.Spi), err)
	}
	return nil
}

// recycle empties a slot that no program can reach any more and offers it again (bpf/lib/maps.h).
func (t *Table) recycle(slot uint32) error {
	empty := (&State{}).bytes()
	if t.mem != nil {
		if _, err := t.mem.WriteAt(empty, int64(slot)*int64(StateSize)); err != nil {
			return fmt.Errorf("empty sa_states slot %d: %w", slot, err)
		}
	} else if err := t.maps.SAStates.Put(slot, empty); err != nil {
		return fmt.Errorf("empty sa_states slot %d: %w", slot, err)
	}
	if err := t.maps.SACounts.Put(slot, make([]Count, t.cpus)); err != nil {
		return fmt.Errorf("empty sa_counts slot %d: %w", slot, err)
	}
	// What was set aside and given out comes first; once it is complete, the kernel takes no more.
	if t.maps.Keeps && t.maps.KeptSlots.Put(nil, slot) == nil {
		return nil
	}
	if err := t.maps.FreeSlots.Put(nil, slot); err != nil {
		return fmt.Errorf("give back slot %d: %w", slot, err)
	}
	return nil
}
