// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/reader"
)

// Every packet of a stream of swapped pairs is an event: a gap or a late one. The rates are events a second.
var (
	ringSizes = []uint32{1 << 20, 16 << 20}
	ringRates = []int{250_000, 500_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000}
)

const (
	ringFor   = 500 * time.Millisecond
	ringSlice = time.Millisecond // so long is the steadiest that a rate can be had
)

// runRing prints what becomes of events at growing rates: one CPU writes them, another one reads and
// decodes them as every command does.
func runRing() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "events a second\tring\twritten\tread\tlost\treader's CPU, ns an event\t\n")
	for _, size := range ringSizes {
		for _, rate := range ringRates {
			r, err := ring(size, rate)
			if err != nil {
				return fmt.Errorf("measure the ring of %d bytes at %d events a second: %w", size, rate, err)
			}
			fmt.Fprintf(w, "%d\t%d KiB\t%d\t%d\t%.2f %%\t%.0f\t\n", int(float64(r.written)/r.took.Seconds()), size>>10, r.written, r.read,
				100*float64(r.lost)/float64(r.written), float64(r.cpu.Nanoseconds())/float64(max(r.read, 1)))
		}
	}
	return w.Flush()
}

type ringResult struct {
	written, read, lost uint64
	took, cpu           time.Duration
}

// ring writes at one rate for a while. It fails where an event is neither read nor counted as lost, and
// where the SA's figures are not exact in spite of it all.
func ring(size uint32, rate int) (r ringResult, err error) {
	c := benchCase{frame: espFrame(payload), order: orderSwapped, sas: 1, cpus: 1,
		set: map[string]any{"cfg_events_per_sec": uint32(math.MaxUint32)}, events: size}
	coll, err := load(subjects[2], c) // at TC: each run at XDP begins with a grace period
	if err != nil {
		return r, err
	}
	defer coll.Close()
	events, err := reader.OpenEvents(coll.Maps["events"], reader.Translate{})
	if err != nil {
		return r, err
	}
	defer events.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, with its mask, ends with the goroutine
		if err := pinTo(1); err != nil {
			done <- err
			return
		}
		before, err := threadTime()
		if err == nil {
			err = events.Run(ctx, nil, func(reader.Event) error { r.read++; return nil })
		}
		after, late := threadTime()
		r.cpu = after - before
		if err == nil {
			err = late
		}
		done <- err
	}()
	packets, took, err := writeEvents(coll.Programs["tc_wire"], c.frame.Data, rate)
	stop()
	if late := <-done; err == nil {
		err = late
	}
	if err != nil {
		return r, err
	}
	r.written, r.took = uint64(packets), took
	return r, r.account(coll)
}

// writeEvents has the program write the events, as evenly as it can.
func writeEvents(prog *ebpf.Program, frame []byte, rate int) (packets int, took time.Duration, err error) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := pin(0); err != nil {
			done <- err
			return
		}
		slice := int(float64(rate)*ringSlice.Seconds()) &^ 1 // whole pairs
		began := time.Now()
		for next := began; time.Since(began) < ringFor; next = next.Add(ringSlice) {
			for time.Now().Before(next) { // busy, or the timer would be late
			}
			if _, err := prog.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(slice)}); err != nil {
				done <- err
				return
			}
			packets += slice
		}
		took = time.Since(began)
		done <- nil
	}()
	err = <-done
	return packets, took, err
}

func (r *ringResult) account(coll *ebpf.Collection) error {
	var state bpfobj.SAState
	if err := coll.Maps["sa_states"].Lookup(uint32(0), &state); err != nil {
		return err
	}
	var err error
	if r.lost, err = lostEvents(coll); err != nil {
		return err
	}
	if r.read+r.lost != r.written {
		return fmt.Errorf("%d events written, %d read, %d counted as lost", r.written, r.read, r.lost)
	}
	// The first number, 2, is passed over by the first packet, and comes with the second.
	if unique := state.Highest - state.First + 1 - uint64(state.Holes) + state.Early; unique != r.written || state.Holes != 0 {
		return fmt.Errorf("%d packets, %d of them unique, %d holes", r.written, unique, state.Holes)
	}
	return nil
}

func lostEvents(coll *ebpf.Collection) (sum uint64, err error) {
	var perCPU []uint64
	err = coll.Maps["lost_counts"].Lookup(bpfobj.LockfreeLostLOST_RING_FULL, &perCPU)
	for _, n := range perCPU {
		sum += n
	}
	return sum, err
}
