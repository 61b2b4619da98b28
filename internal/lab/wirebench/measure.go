// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/lab/packet"
)

// build is one of the two objects. Only the one that newer kernels get is held to the limits.
type build struct {
	name   string
	load   func() (*ebpf.CollectionSpec, error)
	judged bool
}

var builds = []build{
	{"lock-free", loadLockfree, true},
	{"spin lock", loadLocked, false},
}

// The values of enum order in bench.bpf.c.
const (
	orderStraight = iota
	orderSwapped
	orderShared
	orderTwice
)

// benchCase is a row of the table.
type benchCase struct {
	name         string
	frame        *packet.Frame
	order        uint32
	sas          uint32
	cpus         int
	target, must float64 // ns above empty; 0: none
}

var cases = []benchCase{
	{name: "not IPsec (TCP)", frame: tcpFrame(), sas: 1, cpus: 1, target: 5, must: 5},
	{name: "ESP in order, 1 SA", frame: espFrame(), sas: 1, cpus: 1, target: 30, must: 45},
	{name: "ESP in UDP, in order, 1 SA", frame: nattFrame(), sas: 1, cpus: 1},
	{name: "ESP in order, 1,000 SAs", frame: espFrame(), sas: 1000, cpus: 1},
	{name: "ESP in order, 16,000 SAs", frame: espFrame(), sas: 16000, cpus: 1, target: 50},
	{name: "every pair swapped, 1 SA", frame: espFrame(), order: orderSwapped, sas: 1, cpus: 1},
	{name: "1 SA on two CPUs at once", frame: espFrame(), order: orderShared, sas: 1, cpus: 2, target: 120},
}

// espAt is where SPI and sequence number are written; 0: nowhere, the frame is repeated as it is.
func (c benchCase) espAt() uint32 {
	if !c.frame.Has(packet.ESP) {
		return 0
	}
	return uint32(c.frame.At(packet.ESP))
}

type result struct {
	empty, wire, above []float64
}

// measure runs the program and its empty counterpart in turns, so that whatever else the machine
// does meanwhile falls on both.
func measure(b build, c benchCase, rounds, repeat int) (*result, error) {
	coll, err := load(b, c)
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	empty, wire := coll.Programs["bench_number"], coll.Programs["bench_wire"]
	if c.espAt() == 0 {
		empty = coll.Programs["bench_empty"]
	}
	var r result
	for round := -1; round < rounds; round++ {
		e, err := perPacket(empty, c, repeat)
		if err != nil {
			return nil, err
		}
		w, err := perPacket(wire, c, repeat)
		if err != nil {
			return nil, err
		}
		if round < 0 {
			continue // opens the SAs and warms the caches
		}
		r.empty = append(r.empty, e)
		r.wire = append(r.wire, w)
		r.above = append(r.above, w-e)
	}
	return &r, nil
}

func load(b build, c benchCase) (*ebpf.Collection, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("remove the memlock limit (needs root): %w", err)
	}
	spec, err := b.load()
	if err != nil {
		return nil, err
	}
	if err := bpfobj.SetSAMax(spec, max(c.sas, 16)); err != nil {
		return nil, err
	}
	for name, value := range map[string]uint32{
		"cfg_esp_at": c.espAt(), "cfg_order": c.order, "cfg_sas": c.sas, "cfg_stride": stride(c.sas),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := spec.Variables["cfg_hints"].Set(hints()); err != nil {
		return nil, fmt.Errorf("set cfg_hints: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	if err := bpfobj.FillSlots(coll); err != nil {
		coll.Close()
		return nil, err
	}
	return coll, nil
}

// stride spreads the SAs' turns over the tables, so that no prefetcher guesses the next. Neither
// 1,000 nor 16,000 shares a divisor with 617.
func stride(sas uint32) uint32 {
	if sas == 1 {
		return 1
	}
	return 617
}

// perPacket is the mean time of one run in ns; of all CPUs if several run.
func perPacket(prog *ebpf.Program, c benchCase, repeat int) (float64, error) {
	times := make([]time.Duration, c.cpus)
	var g errgroup.Group
	for cpu := range c.cpus {
		g.Go(func() (err error) {
			// Never unlocked: the thread, with its mask and its CPU, ends with the goroutine.
			runtime.LockOSThread()
			if err := pin(cpu); err != nil {
				return err
			}
			times[cpu], err = timed(prog, c.frame.Data, repeat)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	var sum float64
	for _, t := range times {
		sum += float64(t)
	}
	return sum / float64(len(times)) / float64(repeat), nil
}

// pin ties the thread to a CPU and keeps others and signals from it: the kernel ends a run when a
// signal arrives.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	// Ahead of everything else, or on a busy machine the thread is interrupted in mid-run and pays for
	// cold caches. A run lasts some milliseconds.
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		return fmt.Errorf("ask for real-time priority: %w", err)
	}
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	return nil
}

// timed repeats the program in the kernel and returns the CPU time that the thread spent on it. The
// kernel has a figure of its own, but in whole nanoseconds; the cost of the call itself is the same
// for both programs and a thousandth of the whole.
func timed(prog *ebpf.Program, frame []byte, repeat int) (time.Duration, error) {
	start, err := threadTime()
	if err != nil {
		return 0, err
	}
	ret, err := prog.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(repeat)})
	if err != nil {
		return 0, fmt.Errorf("run the program: %w", err)
	}
	if ret != xdpPass {
		return 0, errors.New("the program did not let the packet pass")
	}
	end, err := threadTime()
	return end - start, err
}

func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read the thread's CPU time: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

const xdpPass = 2

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func lowest(v []float64) float64  { return slices.Min(v) }
func highest(v []float64) float64 { return slices.Max(v) }
