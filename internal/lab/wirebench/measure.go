// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/lab/packet"
)

// subject is what is measured: a program in an object that also holds one that does nothing (HOOK_empty)
// and one that does nothing but number packets (HOOK_number).
type subject struct {
	name    string
	hook    string // prefix of the programs
	program string
	pass    uint32 // what each of them has to return
	load    func() (*ebpf.CollectionSpec, error)
	judged  bool // held to the limits, as the build is that newer kernels get
	cases   []benchCase
}

const (
	xdpPass = 2
	tcxNext = 0xffffffff
)

var subjects = []subject{
	{"wire at XDP, lock-free", "xdp", "xdp_wire", xdpPass, loadLockfree, true, append(wireCases, swapped, contended)},
	{"wire at XDP, spin lock", "xdp", "xdp_wire", xdpPass, loadLocked, false, append(wireCases, swapped, contended)},
	{"wire at TC, lock-free", "tc", "tc_wire", tcxNext, loadLockfree, false, wireCases},
	{"copies of packets, at TC", "packet", "packet_copy", tcxNext, loadPackets, false, copyCases},
}

// The values of enum order in number.h.
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
	target, must float64        // ns above empty; 0: none
	set          map[string]any // constants of the object
	ring         uint32         // bytes of the ring for copies
	events       uint32         // bytes of the ring for events; 0: as compiled
	copied       bool           // they are read after each round, so that there is room
}

var wireCases = []benchCase{
	{name: "not IPsec (TCP)", frame: tcpFrame(), sas: 1, cpus: 1, target: 5, must: 5},
	{name: "ESP in order, 1 SA", frame: espFrame(payload), sas: 1, cpus: 1, target: 30, must: 45},
	{name: "ESP in UDP, in order, 1 SA", frame: nattFrame(), sas: 1, cpus: 1},
	{name: "ESP in order, 1,000 SAs", frame: espFrame(payload), sas: 1000, cpus: 1},
	{name: "ESP in order, 16,384 SAs", frame: espFrame(payload), sas: 16384, cpus: 1, target: 50},
}

var (
	swapped   = benchCase{name: "every pair swapped, 1 SA", frame: espFrame(payload), order: orderSwapped, sas: 1, cpus: 1}
	contended = benchCase{name: "1 SA on two CPUs at once", frame: espFrame(payload), order: orderShared, sas: 1, cpus: 2, target: 100}
)

var copyCases = []benchCase{
	{name: "not IPsec (TCP)", frame: tcpFrame(), sas: 1, cpus: 1},
	{name: "ESP, judged but not chosen", frame: espFrame(large), sas: 1, cpus: 1, set: map[string]any{"cfg_by_spi": uint8(1)}},
	{name: "ESP, ring full", frame: espFrame(large), sas: 1, cpus: 1, ring: 64 << 10},
	{name: "ESP, headers copied", frame: espFrame(large), sas: 1, cpus: 1, ring: 128 << 20, copied: true},
	{name: "ESP, all 1,442 bytes copied", frame: espFrame(large), sas: 1, cpus: 1, set: map[string]any{"cfg_snaplen": uint32(16384)}, ring: 1 << 30, copied: true},
}

// espAt is where SPI and sequence number are written; 0: nowhere, the frame is repeated as it is.
func (c benchCase) espAt() uint32 {
	if !c.frame.Has(packet.ESP) {
		return 0
	}
	return uint32(c.frame.At(packet.ESP))
}

type result struct {
	empty, full, above []float64
}

// measure runs the program and its empty counterpart in turns, so that whatever else the machine
// does meanwhile falls on both.
func measure(s subject, c benchCase, rounds, repeat int) (*result, error) {
	coll, err := load(s, c)
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	empty, full := coll.Programs[s.hook+"_number"], coll.Programs[s.program]
	if c.espAt() == 0 {
		empty = coll.Programs[s.hook+"_empty"]
	}
	drain := func() error { return nil }
	if c.copied {
		copies, err := ringbuf.NewReader(coll.Maps["packets"])
		if err != nil {
			return nil, fmt.Errorf("read the copies: %w", err)
		}
		defer copies.Close()
		drain = func() error { return drainAll(copies) }
	}
	var r result
	for round := -1; round < rounds; round++ {
		e, err := perPacket(empty, c, s.pass, repeat)
		if err != nil {
			return nil, err
		}
		f, err := perPacket(full, c, s.pass, repeat)
		if err != nil {
			return nil, err
		}
		if err := drain(); err != nil {
			return nil, err
		}
		if round < 0 {
			continue // opens the SAs and warms the caches
		}
		r.empty = append(r.empty, e)
		r.full = append(r.full, f)
		r.above = append(r.above, f-e)
	}
	return &r, c.lossless(coll)
}

// drainAll empties the ring.
func drainAll(copies *ringbuf.Reader) error {
	copies.SetDeadline(time.Unix(1, 0))
	var record ringbuf.Record
	for {
		switch err := copies.ReadInto(&record); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("read a copy: %w", err)
		}
	}
}

// lossless fails when copies were to be made and some were not: then it was not their cost that was measured.
func (c benchCase) lossless(coll *ebpf.Collection) error {
	if !c.copied {
		return nil
	}
	var place bpfobj.PacketPlace
	var counts []bpfobj.PacketCount
	all := coll.Maps["packet_counts"].Iterate()
	for all.Next(&place, &counts) {
		for _, n := range counts {
			if n.Lost > 0 {
				return fmt.Errorf("%d of %d packets found no room in the ring", n.Lost, n.Seen)
			}
		}
	}
	return all.Err()
}

func load(s subject, c benchCase) (*ebpf.Collection, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("remove the memlock limit (needs root): %w", err)
	}
	spec, err := s.load()
	if err != nil {
		return nil, err
	}
	for name := range spec.Programs {
		if !strings.HasPrefix(name, s.hook+"_") {
			delete(spec.Programs, name)
		}
	}
	set := map[string]any{
		"cfg_esp_at": c.espAt(), "cfg_order": c.order, "cfg_sas": c.sas, "cfg_stride": stride(c.sas),
	}
	maps.Copy(set, c.set)
	wire := spec.Maps["sa_states"] != nil
	if wire {
		set["cfg_hints"] = hints()
		if err := bpfobj.SetSAMax(spec, max(c.sas, 16)); err != nil {
			return nil, err
		}
	}
	if c.events > 0 {
		spec.Maps["events"].MaxEntries = c.events
	}
	if c.ring > 0 {
		spec.Maps["packets"].MaxEntries = c.ring
	}
	for name, value := range set {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	if wire {
		if err := bpfobj.FillSlots(coll); err != nil {
			coll.Close()
			return nil, err
		}
	}
	return coll, nil
}

// stride spreads the SAs' turns over the tables, so that no prefetcher guesses the next. Neither
// 1,000 nor 16,384 shares a divisor with 617.
func stride(sas uint32) uint32 {
	if sas == 1 {
		return 1
	}
	return 617
}

// perPacket is the mean time of one run in ns; of all CPUs if several run.
func perPacket(prog *ebpf.Program, c benchCase, pass uint32, repeat int) (float64, error) {
	times := make([]time.Duration, c.cpus)
	var g errgroup.Group
	for cpu := range c.cpus {
		g.Go(func() (err error) {
			// Never unlocked: the thread, with its mask and its CPU, ends with the goroutine.
			runtime.LockOSThread()
			if err := pin(cpu); err != nil {
				return err
			}
			times[cpu], err = timed(prog, c.frame.Data, pass, repeat)
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
	if err := pinTo(cpu); err != nil {
		return err
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

// pinTo ties the thread to a CPU, which it shares.
func pinTo(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return nil
}

// timed repeats the program in the kernel and returns the CPU time that the thread spent on it. The
// kernel has a figure of its own, but in whole nanoseconds; the cost of the call itself is the same
// for both programs and a thousandth of the whole.
func timed(prog *ebpf.Program, frame []byte, pass uint32, repeat int) (time.Duration, error) {
	start, err := threadTime()
	if err != nil {
		return 0, err
	}
	ret, err := prog.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(repeat)})
	if err != nil {
		return 0, fmt.Errorf("run the program: %w", err)
	}
	if ret != pass {
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

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func lowest(v []float64) float64  { return slices.Min(v) }
func highest(v []float64) float64 { return slices.Max(v) }
