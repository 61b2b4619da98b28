// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// stream is what one sender's packets look like after a path that loses, copies, delays and more.
type stream struct {
	start                  uint64
	packets                int
	loss, dup, delay       float64
	far                    int     // how many packets a delayed one falls back, at most
	restart, leap, hostile float64 // the sender begins anew, leaps ahead; somebody else sends any number
}

func (s stream) String() string {
	return fmt.Sprintf("start %#x, loss %g, dup %g, delay %g by %d, restart %g, leap %g, hostile %g", s.start, s.loss, s.dup,
		s.delay, s.far, s.restart, s.leap, s.hostile)
}

// numbers are the low halves of the sequence numbers in order of arrival.
func (s stream) numbers(r *rand.Rand) []uint32 {
	type arrival struct {
		at  int
		seq uint32
	}
	var all []arrival
	next := s.start
	for i := range s.packets {
		if r.Float64() < s.restart {
			next = 1
		}
		if r.Float64() < s.leap {
			next += uint64(r.IntN(3 * horizon))
		}
		if r.Float64() < s.hostile {
			all = append(all, arrival{i, r.Uint32()})
		}
		seq := uint32(next)
		next++
		if r.Float64() < s.loss {
			continue
		}
		at := i
		if r.Float64() < s.delay {
			at += 1 + r.IntN(s.far)
		}
		all = append(all, arrival{at, seq})
		for r.Float64() < s.dup {
			all = append(all, arrival{at + r.IntN(s.far+1), seq})
		}
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	var seqs []uint32
	for _, a := range all {
		seqs = append(seqs, a.seq)
	}
	return seqs
}

var streams = []stream{
	{start: 1, packets: 500},
	{start: 1, packets: 3000, loss: 0.02, dup: 0.01, delay: 0.05, far: 40},
	{start: 5000, packets: 3000, loss: 0.2, dup: 0.2, delay: 0.5, far: 200},
	{start: 1, packets: 3000, delay: 1, far: 2000},
	{start: 1<<32 - 1000, packets: 3000, loss: 0.02, dup: 0.05, delay: 0.1, far: 300},
	{start: 1, packets: 12000, loss: 0.01, dup: 0.01, delay: 0.02, far: 9000},
	{start: 20000, packets: 4000, loss: 0.01, dup: 0.01, delay: 0.02, far: 20, restart: 0.002},
	{start: 1 << 31, packets: 4000, restart: 0.003, dup: 0.02, delay: 0.02, far: 10},
	{start: 1, packets: 4000, leap: 0.01, loss: 0.02, delay: 0.1, far: 50},
	{start: 100000, packets: 4000, hostile: 0.2, loss: 0.01, delay: 0.02, far: 20},
	{start: 1<<32 - 9000, packets: 4000, leap: 0.01, restart: 0.001, hostile: 0.02, dup: 0.05, delay: 0.05, far: 100},
}

// seed is printed when a test fails, and can be set to repeat it.
func seed(t *testing.T) uint64 {
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("WIRE_SEED"); v != "" {
		if _, err := fmt.Sscan(v, &s); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with WIRE_SEED=%d", s)
		}
	})
	return s
}

// Random streams: the kernel's figures are those of the definitions, for both builds.
func TestWindowAgainstDefinitions(t *testing.T) {
	s := seed(t)
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 256, func(spec *ebpf.CollectionSpec) {
				only("xdp_ingress")(spec)
				set(t, spec, "cfg_events_per_sec", uint32(1<<31))
			})
			r := rand.New(rand.NewPCG(s, 0))
			for i := range 4 * len(streams) {
				st := streams[i%len(streams)]
				seqs := st.numbers(r)
				got, events := w.feed(seqs, uint32(i))
				var o oracle
				for _, seq := range seqs {
					o.packet(seq)
				}
				want := o.figures()
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Fatalf("%v (-want +got):\n%s", st, diff)
				}
				wantEvents := counts{"sa_new": 1, "gap": want.GapEvents, "late": want.Late, "restart": want.Restarts, "jump": want.Jumps}
				for kind, n := range wantEvents {
					if events[kind] != n {
						t.Fatalf("%v: %d events %s, want %d", st, events[kind], kind, n)
					}
				}
				if got.Packets != got.Unique+got.Duplicates+got.Stale {
					t.Fatalf("%v: packets are not unique + duplicates + stale: %+v", st, got)
				}
			}
			if lost := w.lost(); len(lost) != 0 {
				t.Errorf("lost %v", lost)
			}
		})
	}
}

// The same streams, one packet after the other, each on whichever CPU: what a CPU remembers of an SA may
// be from before a restart or a leap that another one saw, and the figures are the same nevertheless.
func TestWindowAgainstDefinitionsOnManyCPUs(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	if allowed.Count() < 2 {
		t.Skip("needs two CPUs")
	}
	var cpus []int
	for cpu := range 1024 {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	s := seed(t)
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			runtime.LockOSThread() // never unlocked: the thread, with its mask, ends with the subtest
			w := loadWire(t, build.lockfree, 256, only("xdp_ingress"))
			r := rand.New(rand.NewPCG(s, 1))
			for i, st := range streams {
				seqs := st.numbers(r)
				// Every other stream stays on a CPU for long, so that the others fall far behind.
				stay := 3
				if i%2 == 1 {
					stay = 500
				}
				w.before = func() {
					if r.IntN(stay) > 0 {
						return
					}
					var one unix.CPUSet
					one.Set(cpus[r.IntN(len(cpus))])
					if err := unix.SchedSetaffinity(0, &one); err != nil {
						t.Fatal(err)
					}
				}
				got, _ := w.feed(seqs, uint32(i))
				var o oracle
				for _, seq := range seqs {
					o.packet(seq)
				}
				if diff := gocmp.Diff(o.figures(), got); diff != "" {
					t.Fatalf("%v (-want +got):\n%s", st, diff)
				}
			}
		})
	}
}

// feed sends the numbers as one SA and returns what the kernel made of them, and its events by kind.
func (w *wire) feed(seqs []uint32, spi uint32) (figures, counts) {
	w.t.Helper()
	f := eth4().ESP(0x1000+spi, 0, 16).Frame()
	rd, err := ringbuf.NewReader(w.Maps["events"])
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := rd.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	events := counts{}
	drain := func() {
		for {
			rd.SetDeadline(time.Unix(1, 0))
			rec, err := rd.Read()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err != nil {
				w.t.Fatal(err)
			}
			kind := rec.RawSample[unsafe.Offsetof(Event{}.Kind)]
			events[w.names["event_kind"][kind]]++
		}
	}
	for i, seq := range seqs {
		if w.before != nil {
			w.before()
		}
		w.run("xdp_ingress", f.Seq(seq).Data)
		if i%5000 == 4999 {
			drain()
		}
	}
	drain()
	for _, s := range w.sas() {
		if s.Spi == 0x1000+spi {
			return s.figures(), events
		}
	}
	w.t.Fatalf("no SA with SPI %#x", 0x1000+spi)
	return figures{}, nil
}

func sequence(from, n uint32) []uint32 {
	var s []uint32
	for i := range n {
		s = append(s, from+i)
	}
	return s
}

// Cases that random streams meet too seldom, with the figures that they must give by themselves.
func TestWindowCases(t *testing.T) {
	cases := []struct {
		name string
		seqs []uint32
		want func(f figures) bool
	}{
		{"one forward leap poisons nothing", slices.Concat(sequence(1, 100), []uint32{1 << 30}, sequence(101, 100)),
			func(f figures) bool { return f.Unique == 200 && f.Stale == 1 && f.Missing == 0 && f.Jumps == 0 }},
		{"seven in a row prove nothing", slices.Concat(sequence(1, 100), sequence(1<<30, 7), sequence(101, 100)),
			func(f figures) bool { return f.Unique == 200 && f.Stale == 7 && f.Missing == 0 }},
		{"a run while the sequence goes on proves nothing", interleave(sequence(1, 100), sequence(1<<30, 100)),
			func(f figures) bool { return f.Unique == 100 && f.Stale == 100 && f.Jumps == 0 }},
		{"a jump", slices.Concat(sequence(1, 100), sequence(20001, 100)),
			func(f figures) bool { return f.Unique == 200 && f.Missing == 19900 && f.Jumps == 1 && f.Stale == 0 }},
		{"a restart", slices.Concat(sequence(50001, 100), sequence(1, 100)),
			func(f figures) bool { return f.Unique == 200 && f.Restarts == 1 && f.Missing == 0 && f.Stale == 0 }},
		{"a restart from beyond half of the numbers", slices.Concat(sequence(0xc0000001, 100), sequence(1, 100)),
			func(f figures) bool { return f.Unique == 200 && f.Restarts == 1 && f.Missing == 0 }},
		{"a restart inside the window", slices.Concat(sequence(1, 100), sequence(1, 200)),
			func(f figures) bool { return f.Unique == 300 && f.Restarts == 1 && f.Duplicates == 0 }},
		{"a restart inside the window, first numbers not seen before", slices.Concat(sequence(101, 100), sequence(1, 250)),
			func(f figures) bool {
				return f.Unique == 350 && f.Restarts == 1 && f.Duplicates == 0 && f.Early == 0 && f.Late == 31
			}},
		{"a restart inside the window, some numbers missing before",
			slices.Concat([]uint32{11, 12, 15, 16, 20}, sequence(40, 20), sequence(1, 100)),
			func(f figures) bool {
				return f.Unique == 125 && f.Restarts == 1 && f.Duplicates == 0 && f.Early == 0 && f.Missing == 24
			}},
		{"numbers before the first, not in a row, are no restart", slices.Concat(sequence(101, 10), []uint32{1, 2, 3, 5}, sequence(6, 40)),
			func(f figures) bool { return f.Restarts == 0 && f.Early == 44 }},
		{"every packet twice is no restart", interleave(sequence(1, 100), sequence(1, 100)),
			func(f figures) bool { return f.Unique == 100 && f.Duplicates == 100 && f.Restarts == 0 }},
		{"a wrap", sequence(0xffffff00, 512),
			func(f figures) bool { return f.Unique == 512 && f.Missing == 0 && f.Highest == 2*SeqBias+255 }},
		{"forty restarts, so that block tags come round", slices.Repeat(sequence(30000, 50), 1), nil},
		{"numbers before the first", []uint32{10, 9, 8, 11, 5},
			func(f figures) bool {
				return f.Unique == 5 && f.Early == 3 && f.Late == 3 && f.Missing == 0 && f.ExtentMax == 4
			}},
		{"extent counts packets, not numbers", []uint32{1, 2, 1000, 1001, 1002, 3},
			func(f figures) bool { return f.ExtentMax == 3 && f.DisplacementMax == 999 && f.Missing == 996 }},
		{"extent does not count copies", []uint32{1, 3, 3, 3, 3, 2},
			func(f figures) bool { return f.ExtentMax == 1 && f.Duplicates == 3 }},
	}
	for i := range cases {
		if cases[i].want == nil {
			cases[i].seqs = nil
			for n := range uint32(40) {
				// Down by more than the window each time, so each is a restart; the last ends in new numbers.
				cases[i].seqs = append(cases[i].seqs, sequence(1_000_000-20_000*n, 64)...)
			}
			cases[i].want = func(f figures) bool {
				return f.Unique == 40*64 && f.Restarts == 39 && f.Missing == 0 && f.Duplicates == 0 && f.Stale == 0
			}
		}
	}
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 64, only("xdp_ingress"))
		for i, tt := range cases {
			t.Run(build.name+"/"+tt.name, func(t *testing.T) {
				w.t = t
				got, _ := w.feed(tt.seqs, uint32(i))
				if !tt.want(got) {
					t.Errorf("%+v", got)
				}
				var o oracle
				for _, seq := range tt.seqs {
					o.packet(seq)
				}
				if diff := gocmp.Diff(o.figures(), got); diff != "" {
					t.Error("against the definitions (-want +got):\n" + diff)
				}
			})
		}
	}
}

func interleave(a, b []uint32) []uint32 {
	var s []uint32
	for i := range a {
		s = append(s, a[i], b[i])
	}
	return s
}
