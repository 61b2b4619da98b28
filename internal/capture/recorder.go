// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// Recorder takes packets from the ring and writes files. Run does the work; the other methods may be called
// meanwhile, from any goroutine.
type Recorder struct {
	source     Source
	opts       Options
	wallAtZero time.Time
	ring       *ringbuf.Reader
	places     map[bpfobj.PacketPlace]int // index of the interface

	mu         sync.Mutex
	sas        map[ledger.SAKey]saInfo
	chains     *chains
	held       []*packet // waiting for their fate
	heldBytes  int
	memory     []*packet // with Options.Last: what is kept
	memBytes   int
	evicted    uint64
	evictedTo  time.Time // of the newest packet that made room for others
	suppressed uint64
	out        output
	total      uint64
	trigger    []string
	triggered  time.Time
	err        error // of writing: ends Run
	full       chan struct{}
}

// tick is how often held packets are looked through; with Hold it bounds how late a packet is on disk.
const tick = 100 * time.Millisecond

// Open makes a recorder and, unless packets are kept in memory first, its first file.
func Open(src Source, o Options) (*Recorder, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil, fmt.Errorf("read monotonic clock: %w", err)
	}
	r := &Recorder{source: src, opts: o, wallAtZero: time.Now().Add(-time.Duration(ts.Nano())),
		places: map[bpfobj.PacketPlace]int{}, sas: map[ledger.SAKey]saInfo{}, chains: newChains(), full: make(chan struct{})}
	ifs := interfaces(&r.source, &r.opts)
	for i, in := range ifs {
		r.places[in.place] = i
	}
	r.out = output{opts: &r.opts, ifs: ifs, written: make([]uint64, len(ifs))}
	if src.Ring != nil {
		var err error
		if r.ring, err = ringbuf.NewReader(src.Ring); err != nil {
			return nil, fmt.Errorf("open packet ring: %w", err)
		}
	}
	if o.Last == 0 {
		if err := r.open(time.Now(), ""); err != nil {
			return nil, errors.Join(err, r.closeRing())
		}
	}
	return r, nil
}

func (r *Recorder) closeRing() error {
	if r.ring == nil {
		return nil
	}
	return r.ring.Close()
}

// Choose tells the kernel which SPIs are wanted, where the packet programs were asked to look at them
// (probe.PacketOptions.BySPI). SPIs that were chosen before stay so until Unchoose.
func (r *Recorder) Choose(spis []ledger.SPI) error {
	for _, spi := range spis {
		if err := r.source.Chosen.Put(uint32(spi), uint8(1)); err != nil {
			return fmt.Errorf("choose SPI %s: %w", spi, err)
		}
	}
	return nil
}

// Unchoose undoes Choose.
func (r *Recorder) Unchoose(spi ledger.SPI) error {
	if err := r.source.Chosen.Delete(uint32(spi)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("give up SPI %s: %w", spi, err)
	}
	return nil
}

// Trigger has what is in memory written to a file, once Options.After and the hold have passed. Triggers
// until then are one. Without Options.Last everything is written anyhow, and nothing is done.
func (r *Recorder) Trigger(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pull(why, time.Now())
}

func (r *Recorder) pull(why string, now time.Time) {
	if r.opts.Last == 0 {
		return
	}
	if len(r.trigger) == 0 {
		r.triggered = now
	}
	if !slices.Contains(r.trigger, why) {
		r.trigger = append(r.trigger, why)
	}
}

// Run takes packets until the context ends or Options.Packets have been written, then what is owed, and
// closes the last file. To have no packet added meanwhile, detach first: before is called between the two;
// it may be nil. Run returns only once.
func (r *Recorder) Run(ctx context.Context, before func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(tick)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.full:
				cancel()
				return
			case now := <-t.C:
				if err := r.advance(now, false); err != nil {
					cancel()
					return
				}
			}
		}
	})
	var detachErr error
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(stopped)
		if before != nil {
			detachErr = before()
		}
		if err := r.ring.Flush(); err != nil && !errors.Is(err, ringbuf.ErrClosed) {
			detachErr = errors.Join(detachErr, fmt.Errorf("flush packet ring: %w", err))
		}
	})
	err := r.drain()
	cancel()
	<-stopped
	wg.Wait()
	return errors.Join(err, detachErr, r.finish(), r.closeRing())
}

func (r *Recorder) drain() error {
	var rec ringbuf.Record
	for {
		switch err := r.ring.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read packet ring: %w", err)
		}
		if err := r.take(rec.RawSample); err != nil {
			return err
		}
	}
}

// take adds one record to what is held.
func (r *Recorder) take(b []byte) error {
	p, err := r.decode(b)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil // told by finish
	}
	if p.head.Point == bpfobj.PacketLink {
		r.chains.link(p)
		return nil
	}
	var known bool
	place := bpfobj.PacketPlace{Point: p.head.Point}
	if p.head.Point == bpfobj.PacketWireIn || p.head.Point == bpfobj.PacketWireOut {
		place.Ifindex = p.head.Ifindex
	}
	if p.iface, known = r.places[place]; !known {
		return nil // no device of ours
	}
	if p.dropped() && !r.explain(p) {
		r.suppressed++
		return nil
	}
	p.mend()
	p.readNumber()
	r.chains.join(p)
	r.held = append(r.held, p)
	r.heldBytes += p.size()
	switch {
	case r.opts.OnDrop && p.dropped():
		r.pull("drop", p.at)
	case r.opts.OnLate && p.head.Order == bpfobj.OrderLate:
		r.pull("late", p.at)
	}
	if int64(r.heldBytes) > r.opts.MemoryBytes {
		// A flood: rather a comment that does not know the end than no packet, or more memory than is allowed.
		r.err = r.release(p.at)
		r.chains.forget(p.at)
	}
	return nil
}

// advance writes, or moves into memory, what has been held long enough.
func (r *Recorder) advance(now time.Time, all bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	before := now.Add(-r.opts.Hold)
	if all {
		before = now.Add(time.Hour)
	}
	r.err = r.step(now, before, all)
	return r.err
}

func (r *Recorder) step(now, before time.Time, all bool) error {
	if err := r.release(before); err != nil {
		return err
	}
	over := now.Add(-2*r.opts.Hold - r.opts.Last)
	if r.evictedTo.After(over) {
		over = r.evictedTo
	}
	r.chains.forget(over)
	if r.opts.Last > 0 {
		r.expire(now.Add(-r.opts.Last))
		if len(r.trigger) > 0 && (all || now.Sub(r.triggered) >= r.opts.After+r.opts.Hold) {
			return r.dump(now)
		}
		return nil
	}
	if r.out.full(now) {
		if err := r.out.close(now, r.counts()); err != nil {
			return err
		}
		return r.open(now, "")
	}
	return r.out.w.Flush()
}

// release hands on packets from before a moment, in the order of their times.
func (r *Recorder) release(before time.Time) error {
	slices.SortStableFunc(r.held, func(a, b *packet) int { return a.at.Compare(b.at) })
	n := 0
	for n < len(r.held) && r.held[n].at.Before(before) {
		p := r.held[n]
		n++
		r.heldBytes -= p.size()
		if err := r.handOn(p); err != nil {
			return err
		}
	}
	r.held = slices.Delete(r.held, 0, n)
	return nil
}

func (r *Recorder) handOn(p *packet) error {
	if r.opts.Last > 0 {
		r.memory = append(r.memory, p)
		r.memBytes += p.size()
		for int64(r.memBytes) > r.opts.MemoryBytes && len(r.memory) > 1 {
			r.evictedTo = r.memory[0].at
			r.evict()
			r.evicted++
		}
		return nil
	}
	if r.opts.Packets > 0 && r.total >= r.opts.Packets {
		return nil
	}
	if r.out.full(p.at) {
		if err := r.out.close(p.at, r.counts()); err != nil {
			return err
		}
		if err := r.open(p.at, ""); err != nil {
			return err
		}
	}
	if err := r.out.write(p, r.comment); err != nil {
		return err
	}
	r.count()
	return nil
}

// count ends Run when enough has been written.
func (r *Recorder) count() {
	r.total++
	if r.opts.Packets > 0 && r.total == r.opts.Packets {
		close(r.full)
	}
}

// finish writes what is still owed and closes the file.
func (r *Recorder) finish() error {
	now := time.Now()
	err := r.advance(now, true)
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(err, r.out.close(now, r.counts()))
}

func (r *Recorder) open(now time.Time, comment string) error {
	return r.out.open(now, comment, r.counts())
}

// places are one interface's counts.
type places struct {
	bpfobj.PacketCount
	missed    uint64
	hasMissed bool
}

// counts reads what was seen and lost, for each interface. Where the table cannot be read there is nothing
// to tell, which is no reason to lose the packets.
func (r *Recorder) counts() []places {
	out := make([]places, len(r.out.ifs))
	for i, in := range r.out.ifs {
		if r.source.Counts != nil {
			var perCPU []bpfobj.PacketCount
			if err := r.source.Counts.Lookup(in.place, &perCPU); err == nil {
				for _, c := range perCPU {
					out[i].Seen += c.Seen
					out[i].Matched += c.Matched
					out[i].Lost += c.Lost
				}
			}
		}
		if in.place.Point == bpfobj.PacketWireIn && r.source.Missed != nil {
			out[i].missed, out[i].hasMissed = r.source.Missed(int(in.place.Ifindex))
		}
	}
	return out
}

// Stats are the sums so far.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Schema: StatsSchema, Files: slices.Clone(r.out.done), Ended: r.out.ended, Evicted: r.evicted, Suppressed: r.suppressed, Interfaces: []InterfaceStats{}}
	if s.Files == nil {
		s.Files = []File{}
	}
	counts := r.counts()
	for i, in := range r.out.ifs {
		s.Interfaces = append(s.Interfaces, InterfaceStats{Name: in.about.Name, Seen: counts[i].Seen, Matched: counts[i].Matched,
			Lost: counts[i].Lost, Written: r.out.written[i]})
	}
	return s
}
