// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"errors"
	"math"
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

type build struct {
	name     string
	lockfree bool
}

// builds are the two objects made from one source. Every test runs on both, but where the kernel has
// no compare-and-exchange (before 5.12) there is only one that it can load.
func builds(t *testing.T) []build {
	t.Helper()
	locked, lockfree := build{"locked", false}, build{"lockfree", true}
	needBPF(t)
	exchange := asm.CmpXchg.Mem(asm.RFP, asm.R0, asm.DWord, -8)
	exchange.Constant = 0xf1 // BPF_CMPXCHG, which v0.22.0 of the library leaves out
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			exchange,
			asm.Mov.Imm(asm.R0, 2),
			asm.Return(),
		},
	})
	if err != nil {
		t.Logf("without the lock-free build: this kernel has no compare-and-exchange: %v", err)
		return []build{locked}
	}
	if err := prog.Close(); err != nil {
		t.Fatal(err)
	}
	return []build{lockfree, locked}
}

// wire is one loaded build, with what the tests ask of it.
type wire struct {
	*ebpf.Collection
	t      testing.TB
	names  map[string][]string // enum values by enum
	ring   *ringbuf.Reader     // once somebody has asked for events
	before func()              // what is done before each packet of feed; nil: nothing
}

// needBPF skips where programs cannot be loaded, but never under CI.
func needBPF(t testing.TB) {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("load BPF programs: need root (remove memlock limit: %v)", err)
		}
		t.Skip("loading BPF programs needs root")
	}
}

// onOneCPU keeps the rest of a test on one CPU, for what the programs keep for each of them.
func onOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if before.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}

// loadWire loads one build with room for n SAs, after configure has had its way with the spec.
func loadWire(t testing.TB, lockfree bool, n uint32, configure func(*ebpf.CollectionSpec)) *wire {
	t.Helper()
	needBPF(t)
	spec, err := LoadWire(lockfree)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetSAMax(spec, n); err != nil {
		t.Fatal(err)
	}
	set(t, spec, "cfg_hints", uint8(1))
	if configure != nil {
		configure(spec)
	}
	w := &wire{t: t, names: map[string][]string{}}
	for _, enum := range []string{"why", "aside", "lost", "event_kind", "direction"} {
		if w.names[enum], err = EnumNames(spec, enum); err != nil {
			t.Fatal(err)
		}
	}
	w.Collection, err = ebpf.NewCollection(spec)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		t.Fatalf("%v", verifier)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.ring != nil {
			w.ring.Close()
		}
		w.Close()
	})
	if err := FillSlots(w.Collection); err != nil {
		t.Fatal(err)
	}
	return w
}

// only keeps one program, because each costs the verifier some tenths of a second.
func only(name string) func(*ebpf.CollectionSpec) {
	return func(spec *ebpf.CollectionSpec) {
		for n := range spec.Programs {
			if n != name {
				delete(spec.Programs, n)
			}
		}
	}
}

// set gives a constant of lib/config.h its value.
func set(t testing.TB, spec *ebpf.CollectionSpec, name string, value any) {
	t.Helper()
	if err := spec.Variables[name].Set(value); err != nil {
		t.Fatal(err)
	}
}

// run sends one frame through a program, which must let it pass.
func (w *wire) run(program string, frame []byte) {
	w.t.Helper()
	want := uint32(2) // XDP_PASS
	if program != "xdp_ingress" {
		want = math.MaxUint32 // TCX_NEXT
	}
	ret, err := w.Programs[program].Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		w.t.Fatal(err)
	}
	if ret != want {
		w.t.Fatalf("%s returned %d, want %d", program, ret, want)
	}
}

// counts reads a map of struct by_direction for one direction, without what is zero.
func (w *wire) counts(name, enum string, dir int) map[string]uint64 {
	w.t.Helper()
	got := map[string]uint64{}
	for value, label := range w.names[enum] {
		var perCPU []ByDirection
		if err := w.Maps[name].Lookup(uint32(value), &perCPU); err != nil {
			w.t.Fatal(err)
		}
		for _, c := range perCPU {
			if n := c.Packets[dir]; n > 0 {
				got[label] += n
			}
		}
	}
	return got
}

// lost reads what the programs could not do, without what is zero.
func (w *wire) lost() map[string]uint64 {
	w.t.Helper()
	got := map[string]uint64{}
	for value, label := range w.names["lost"] {
		var perCPU []uint64
		if err := w.Maps["lost_counts"].Lookup(uint32(value), &perCPU); err != nil {
			w.t.Fatal(err)
		}
		for _, n := range perCPU {
			if n > 0 {
				got[label] += n
			}
		}
	}
	return got
}

// sa is an SA's state with the sum of its counts.
type sa struct {
	SAState
	SACount
}

// sas reads all SAs that are in use.
func (w *wire) sas() []sa {
	w.t.Helper()
	var got []sa
	for slot := range w.Maps["sa_states"].MaxEntries() {
		var s sa
		if err := w.Maps["sa_states"].Lookup(slot, &s.SAState); err != nil {
			w.t.Fatal(err)
		}
		if s.Used == 0 {
			continue
		}
		var perCPU []SACount
		if err := w.Maps["sa_counts"].Lookup(slot, &perCPU); err != nil {
			w.t.Fatal(err)
		}
		for _, c := range perCPU {
			s.Packets += c.Packets
			s.Bytes += c.Bytes
			s.Dscps |= c.Dscps
			s.Largest = max(s.Largest, c.Largest)
		}
		got = append(got, s)
	}
	return got
}

func (s sa) span() uint64   { return s.ClosedSpan + s.Highest - s.First + 1 }
func (s sa) unique() uint64 { return s.span() - uint64(s.Holes) + s.Early }

func TestLoad(t *testing.T) {
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 64, nil)
			for name, prog := range w.Programs {
				info, err := prog.Info()
				if err != nil {
					t.Fatal(err)
				}
				followed(t, name, info, 90_000)
			}
		})
	}
}

// followed demands that the verifier followed no more instructions than that: a load of a million fails, and long before that
// it is slow. Kernels before 5.16 do not tell.
func followed(t *testing.T, name string, info *ebpf.ProgramInfo, limit uint32) {
	t.Helper()
	n, _ := info.VerifiedInstructions()
	t.Logf("%s: %d instructions", name, n)
	if n > limit {
		t.Errorf("%s: the verifier followed %d instructions, want at most %d", name, n, limit)
	}
}

func TestEnumNames(t *testing.T) {
	spec, err := LoadWire(true)
	if err != nil {
		t.Fatal(err)
	}
	got, err := EnumNames(spec, "event_kind")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"sa_new", "gap", "duplicate", "late", "stale", "restart", "jump", "xfrm_drop", "ike", "rebind", "mark", "host_drop", "pmtu"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("event kinds (-want +got):\n" + diff)
	}
	if _, err := EnumNames(spec, "no_such_enum"); err == nil {
		t.Error("an enum that does not exist has names")
	}
}
