// SPDX-License-Identifier: Apache-2.0

// Package reader turns what the kernel programs wrote into what the ledger reads: maps into
// snapshots, ring records into events. It resets no counter; totals are absolute.
package reader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/ledger"
)

// Source is what has been loaded. Whatever is nil is not observed.
type Source struct {
	Wire     *WireMaps
	Stack    *StackMaps
	Events   *ebpf.Map
	Lost     *ebpf.Map
	Programs map[string]*ebpf.Program
	Maps     []*ebpf.Map // every map of the objects, each once
	// Sync brings the stack programs' view of the kernel's counters up to date; nil without them.
	Sync func() error
	// Parts fill in what other objects and sources know, after wire and stack were read.
	Parts []Part
	// Aging are the tables of other objects that make room in a run without end (Prune).
	Aging []Aging
}

// Part fills in one source's share of a snapshot, in absolutes.
type Part func(context.Context, *ledger.Snapshot) error

// Options of a Reader. Zero values mean the defaults below.
type Options struct {
	// Horizon is how long a missing number may still be on its way. A reader that is not sampled
	// several times within it (Run, or Snapshot) takes recent losses for pending.
	Horizon time.Duration
	// Idle is how long an SA must have been silent before its slot may be reclaimed.
	Idle time.Duration
	// Grace is how long a slot rests between leaving the table and being used again, so that a
	// program that found it before is done with it. Programs run for microseconds.
	Grace time.Duration
	// Now is the clock, for tests.
	Now func() time.Time
}

// Defaults of Options.
const (
	DefaultHorizon = time.Second
	DefaultIdle    = time.Minute
	DefaultGrace   = time.Second
)

// Dump is what is to be read between the two readings of the wire: the SAs as the kernel has them.
type Dump struct {
	SAD      []ledger.SADEntry // nil: not readable
	Ended    []ledger.EndedSA
	XfrmStat map[string]uint64 // nil: not readable
}

// Reader reads one source. It is safe for concurrent use.
type Reader struct {
	src   Source
	opts  Options
	names *Names

	mu       sync.Mutex
	table    *Table // nil: wire not observed
	slots    []Slot // scratch, as the next two
	awake    []uint32
	begun    []progress
	live     []*slotRecord    // by slot, in whose order their states lie in memory; nil: unused
	used     int              // how many are not
	rest     []progress       // by slot: how far its SA has come that is at rest; zero: it is not, or there is none
	parts    []*ledger.WireSA // by slot: what a snapshot says of an SA at rest, once one was taken; never changed
	places   places
	spare    []*slotRecord // that no slot has
	retired  []*slotRecord // whose slots are on their way out of the table
	ticked   time.Time     // the last sample that tells the rate of an SA at rest: none
	reap     reaper
	tables   []Aging // that make room
	peers    map[peerKey]*peerTrack
	expected expected
	beats    []ledger.KeepaliveReading          // as of the last sample
	beaten   map[ledger.KeepaliveReading]uint64 // by binding, as of the sample before

	synced     time.Time // when Sync last ran, by the real clock
	started    time.Time
	usedBefore time.Duration // CPU time at the start
	monoStart  time.Duration // CLOCK_MONOTONIC at the start
}

// slotRecord is what the reader remembers of a slot between readings.
type slotRecord struct {
	slot    uint32
	key     ledger.SAKey
	history history
	pace    pace
	packets uint64
	changed time.Time // when packets last grew
	last    progress  // as of the last reading
	moved   time.Time // when that last changed
	retired time.Time // when it left the table; zero: it is in it
	over    bool      // what it counted need not be kept
}

// New prepares to read a source, which stays the caller's.
func New(src Source, opts Options) (*Reader, error) {
	names, err := LoadNames()
	if err != nil {
		return nil, err
	}
	if opts.Horizon == 0 {
		opts.Horizon = DefaultHorizon
	}
	if opts.Idle == 0 {
		opts.Idle = DefaultIdle
	}
	if opts.Grace == 0 {
		opts.Grace = DefaultGrace
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := &Reader{src: src, opts: opts, names: names}
	r.peers, r.beaten = make(map[peerKey]*peerTrack), make(map[ledger.KeepaliveReading]uint64)
	r.reap.folded = make(map[ledger.SAKey]*ledger.WireSA)
	r.tables = r.aging()
	r.started = opts.Now()
	mono, err := monoNow()
	if err != nil {
		return nil, err
	}
	r.monoStart = time.Duration(mono)
	if r.usedBefore, err = cpuTime(); err != nil {
		return nil, err
	}
	if src.Wire != nil {
		if r.table, err = OpenTable(*src.Wire); err != nil {
			return nil, err
		}
		slots := r.table.Cap()
		r.live, r.rest, r.parts = make([]*slotRecord, slots), make([]progress, slots), make([]*ledger.WireSA, slots)
	}
	return r, nil
}

// Run samples the SAs' highest numbers often enough to tell lost from pending, and reclaims idle
// slots when they run short, until the context ends. It returns nil then.
func (r *Reader) Run(ctx context.Context) error {
	tick := time.NewTicker(r.opts.Horizon / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.Sample(); err != nil {
			return err
		}
	}
}

// Sample notes how far each SA has come.
func (r *Reader) Sample() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table == nil {
		return nil
	}
	now := r.opts.Now()
	err := r.eachState(now, func(rec *slotRecord, s *State) {
		rec.history.add(now, s.Highest, r.opts.Horizon)
		rec.pace.sample(now, s)
		r.settle(rec, s, now)
	})
	if now.Sub(r.ticked) >= paceMin {
		r.ticked = now
	}
	err = errors.Join(err, r.settlePeers(now))
	return errors.Join(err, r.reclaim(now, nil, false))
}

// lastSeen is the time of an SA's newest packet. The straight path reads no clock, so on a live
// interface it is when a sample first saw the packet; a capture tells it exactly.
func (r *Reader) lastSeen(rec *slotRecord, s *State) time.Duration {
	// A capture tells its own time, even where that is 0 because its file has none.
	if s.LastNs != 0 || direction(s.Dir) == ledger.Unknown {
		return time.Duration(s.LastNs)
	}
	return r.monoStart + rec.changed.Sub(r.started)
}

// Snapshot reads everything at one moment: each SA's packets, then what dump reads, then the stack,
// then all the rest. What the kernel did between the two readings of the wire is what the ledger
// allows for as in flight.
func (r *Reader) Snapshot(ctx context.Context, dump func(context.Context) (Dump, error)) (ledger.Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	snap := ledger.Snapshot{}
	if err := r.sync(); err != nil {
		return snap, err
	}
	if r.table != nil {
		if err := r.eachState(r.opts.Now(), func(*slotRecord, *State) {}); err != nil {
			return snap, err
		}
	}
	var sad []ledger.SADEntry
	if dump != nil {
		d, err := dump(ctx)
		if err != nil {
			return snap, err
		}
		snap.SAD, snap.Ended, snap.XfrmStat = d.SAD, d.Ended, d.XfrmStat
		sad = d.SAD
	}
	snap.At = r.opts.Now()
	snap.Mono = r.monoStart + snap.At.Sub(r.started)
	// Drops and decapsulated packets both lie between the two readings of the wire.
	errs := []error{r.readStack(ctx, &snap)}
	for _, part := range r.src.Parts {
		errs = append(errs, part(ctx, &snap))
	}
	return snap, errors.Join(append(errs,
		r.readWire(&snap),
		r.reclaim(snap.At, sad, false),
		r.readSelf(&snap),
	)...)
}

// readWire fills in the wire's side of a snapshot.
func (r *Reader) readWire(snap *ledger.Snapshot) error {
	if r.table == nil {
		return nil
	}
	var errs []error
	var passing []uint32
	err := r.eachCounted(snap.At, func(rec *slotRecord, c counted) {
		rec.history.add(snap.At, c.Highest, r.opts.Horizon)
		w := new(c.WireSA(c.count, c.missingAbove(c.settled)))
		w.CPUs, w.LastSeen = c.cpus, r.lastSeen(rec, c.State)
		rec.pace.fill(w)
		// Counts and state are written one after the other; the earlier reading is never
		// ahead of the later one but for a lost race, which is counted as contention.
		w.PacketsBefore = min(c.before, w.Packets)
		r.parts[rec.slot] = w
		if r.settle(rec, c.State, snap.At); r.rest[rec.slot] == (progress{}) || w.Pending > 0 {
			passing = append(passing, rec.slot)
		}
	})
	errs = append(errs, err, r.settlePeers(snap.At))
	r.readNAT(snap)
	snap.Wire = r.wire()
	for _, slot := range passing {
		r.parts[slot] = nil
	}
	snap.Packets, err = r.totals()
	return errors.Join(append(errs, err)...)
}

// totals reads the classes and asides.
func (r *Reader) totals() (*ledger.WireTotals, error) {
	classes, err := r.table.byDirection(r.table.maps.WhyCounts, r.names.Why)
	if err != nil {
		return nil, fmt.Errorf("read why_counts: %w", err)
	}
	asides, err := r.table.byDirection(r.table.maps.AsideCounts, r.names.Aside)
	if err != nil {
		return nil, fmt.Errorf("read aside_counts: %w", err)
	}
	return &ledger.WireTotals{Classes: classes, Asides: asides}, nil
}
