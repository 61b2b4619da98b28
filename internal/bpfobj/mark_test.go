// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/packet"
)

// Packets with round numbers are marked, whatever became of them and whichever way they came, while other
// events are off.
func TestMarks(t *testing.T) {
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, func(spec *ebpf.CollectionSpec) {
			set(t, spec, "cfg_events_per_sec", uint32(0))
			set(t, spec, "cfg_marks", uint32(8))
		})
		for name, prog := range w.Programs {
			info, err := prog.Info()
			if err != nil {
				t.Fatal(err)
			}
			followed(t, build.name+" "+name, info, 90_000)
		}
		v4, v6 := [2]string{a4, b4}, [2]string{a6, b6}
		for i, tt := range []struct {
			program     string
			frame       *packet.Builder
			ends        [2]string
			family, dir uint8
			dport       uint16
		}{
			{"xdp_ingress", eth4(), v4, 4, 0, 0},
			{"xdp_ingress", eth6().UDP(4500, 4500), v6, 6, 0, 4500},
			{"tc_ingress", eth6(), v6, 6, 0, 0},
			{"tc_egress", eth4().UDP(4500, 4500), v4, 4, 1, 4500},
			{"tc_egress_l3", packet.L3().IPv4(a4, b4), v4, 4, 1, 0},
		} {
			if err := w.Maps["event_budgets"].Put(uint32(LockfreeEventKindEVENT_MARK), make([]LockfreeEventBudget, ebpf.MustPossibleCPU())); err != nil {
				t.Fatal(err)
			}
			spi := uint32(0x7000 + i)
			frame := tt.frame.ESP(spi, 0, 40).Frame()
			// The first of the SA, one in order, one late, a copy of it, one beyond a gap, and one far outside.
			for _, seq := range []uint32{16, 17, 18, 24, 23, 8, 8, 40, 0xfffffff8} {
				w.run(tt.program, frame.Seq(seq).Data)
			}
			var want, got []Event
			for _, seq := range []uint64{16, 24, 8, 8, 40, 0xfffffff8} {
				want = append(want, Event{Seq: seq, Spi: spi, Src: netip.MustParseAddr(tt.ends[0]).As16(), Dst: netip.MustParseAddr(tt.ends[1]).As16(),
					Sport: tt.dport, Dport: tt.dport, Family: tt.family, Dir: tt.dir, Kind: uint8(LockfreeEventKindEVENT_MARK)})
			}
			last := uint64(0)
			for _, e := range w.events() {
				if e.TimeNs < last || e.TimeNs == 0 {
					t.Errorf("%s %s: time %d after %d", build.name, tt.program, e.TimeNs, last)
				}
				last, e.TimeNs, e.Cpu, e.Ifindex = e.TimeNs, 0, 0, 0
				got = append(got, e)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Event{})); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", build.name, tt.program, diff)
			}
		}
	}
}

// Without marks the programs send none.
func TestMarksOff(t *testing.T) {
	w := loadWire(t, false, 16, only("xdp_ingress"))
	frame := eth4().ESP(0x7000, 0, 40).Frame()
	for seq := range uint32(64) {
		w.run("xdp_ingress", frame.Seq(seq+1).Data)
	}
	for _, e := range w.events() {
		if e.Kind == uint8(LockfreeEventKindEVENT_MARK) {
			t.Errorf("a mark: %+v", e)
		}
	}
}

// A fast tunnel is marked more and more seldom within a second, and then by rounder numbers, so that two ends
// whose seconds begin at different packets still mark some alike.
func TestMarksThin(t *testing.T) {
	w := loadWire(t, false, 16, func(spec *ebpf.CollectionSpec) {
		only("xdp_ingress")(spec)
		set(t, spec, "cfg_marks", uint32(16))
	})
	frame := eth4().ESP(0x7000, 0, 40).Frame()
	key := uint32(LockfreeEventKindEVENT_MARK)
	// marked says whether a number is marked that has so many marks before it in its second.
	marked := func(used uint64, seq uint32) bool {
		for {
			budget := make([]LockfreeEventBudget, ebpf.MustPossibleCPU())
			began := now(t)
			for i := range budget {
				budget[i] = LockfreeEventBudget{SecondNs: began, Used: used}
			}
			if err := w.Maps["event_budgets"].Put(key, budget); err != nil {
				t.Fatal(err)
			}
			w.events()
			w.run("xdp_ingress", frame.Seq(seq).Data)
			// On a machine that stood still meanwhile another second has begun.
			if now(t)-began < 1_000_000_000 {
				break
			}
		}
		for _, e := range w.events() {
			if e.Kind == uint8(LockfreeEventKindEVENT_MARK) {
				return true
			}
		}
		return false
	}
	for _, tt := range []struct {
		used uint64
		bits int // zero bits that the number needs; 33: none is marked
	}{{0, 4}, {15, 4}, {16, 8}, {31, 8}, {32, 12}, {48, 16}, {63, 16}, {64, 33}, {1000, 33}} {
		for bits := range 32 {
			if got, want := marked(tt.used, 1<<bits), bits >= tt.bits; got != want {
				t.Errorf("a number with %d zero bits after %d marks: marked %v, want %v", bits, tt.used, got, want)
			}
		}
	}
}

func now(t *testing.T) uint64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return uint64(ts.Nano())
}
