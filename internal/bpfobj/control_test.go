// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/packet"
)

// events takes what is in the ring now.
func (w *wire) events() []Event {
	w.t.Helper()
	if w.ring == nil {
		var err error
		if w.ring, err = ringbuf.NewReader(w.Maps["events"]); err != nil {
			w.t.Fatal(err)
		}
		w.ring.SetDeadline(time.Unix(1, 0))
	}
	var out []Event
	for {
		rec, err := w.ring.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		if err != nil {
			w.t.Fatal(err)
		}
		var e Event
		if err := binary.Read(bytes.NewReader(rec.RawSample), binary.NativeEndian, &e); err != nil {
			w.t.Fatal(err)
		}
		out = append(out, e)
	}
}

// ikeFrame is an IKE message with a value of its own in each field.
func ikeFrame(b *packet.Builder, id uint32) *packet.Frame {
	return b.IKE(2).Frame().
		Set32(packet.IKE, 0, 0x01020304).Set32(packet.IKE, 4, 0x05060708).
		Set32(packet.IKE, 8, 0x11121314).Set32(packet.IKE, 12, 0x15161718).
		Set8(packet.IKE, 16, 46).Set8(packet.IKE, 17, 0x20).Set8(packet.IKE, 18, 37).Set8(packet.IKE, 19, 0x28).
		Set32(packet.IKE, 20, id).Set32(packet.IKE, 24, 80)
}

// Every IKE header reaches user space as it stands, whichever way it came, while other events are off.
func TestIKEEvents(t *testing.T) {
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, func(spec *ebpf.CollectionSpec) { set(t, spec, "cfg_events_per_sec", uint32(0)) })
		v4, v6 := [2]string{a4, b4}, [2]string{a6, b6}
		for i, tt := range []struct {
			program      string
			frame        *packet.Builder
			ends         [2]string
			family, dir  uint8
			sport, dport uint16
		}{
			{"xdp_ingress", eth4().UDP(500, 500), v4, 4, 0, 500, 500},
			{"xdp_ingress", packet.Eth().QinQ(1).VLAN(2).IPv4Options(a4, b4, 10).UDP(40000, 4500).NonESPMarker(), v4, 4, 0, 40000, 4500},
			{"tc_ingress", eth6().HopByHop(0).DstOpts(3).UDP(500, 500), v6, 6, 0, 500, 500},
			{"tc_egress", eth6().UDP(4500, 4500).NonESPMarker(), v6, 6, 1, 4500, 4500},
			{"tc_egress_l3", packet.L3().IPv4(a4, b4).UDP(500, 4000), v4, 4, 1, 500, 4000},
		} {
			w.run(tt.program, ikeFrame(tt.frame, uint32(i)).Data)
			got := w.events()
			want := []Event{{
				Seq: 0x0102030405060708, Top: 0x1112131415161718, Value: int64(i), Extent: 0x20<<24 | 37<<16 | 0x28<<8 | 46,
				ReplayWindow: 80, Src: netip.MustParseAddr(tt.ends[0]).As16(), Dst: netip.MustParseAddr(tt.ends[1]).As16(),
				Sport: tt.sport, Dport: tt.dport, Family: tt.family, Dir: tt.dir, Kind: uint8(LockfreeEventKindEVENT_IKE),
			}}
			for i := range got {
				if got[i].TimeNs == 0 {
					t.Errorf("%s %s: no time", build.name, tt.program)
				}
				got[i].TimeNs, got[i].Cpu, got[i].Ifindex = 0, 0, 0
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Event{})); diff != "" {
				t.Errorf("%s %s %d (-want +got):\n%s", build.name, tt.program, i, diff)
			}
		}
		if lost := w.lost(); len(lost) != 0 {
			t.Errorf("%s: lost %v", build.name, lost)
		}
	}
}

// The budget of IKE is its own, and what is beyond it is counted.
func TestIKEBudget(t *testing.T) {
	onOneCPU(t)
	w := loadWire(t, false, 16, func(spec *ebpf.CollectionSpec) {
		only("xdp_ingress")(spec)
		set(t, spec, "cfg_ike_per_sec", uint32(3))
		set(t, spec, "cfg_offline", uint8(1)) // one clock reading for all: a capture without times
	})
	frame := ikeFrame(eth4().UDP(500, 500), 1).Data
	for range 10 {
		w.run("xdp_ingress", frame)
	}
	if got := len(w.events()); got != 3 {
		t.Errorf("%d headers reported, want 3", got)
	}
	if diff := cmp.Diff(map[string]uint64{"ike_suppressed": 7}, w.lost()); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}
}

// Keepalives are counted by binding, not by peer.
func TestKeepalives(t *testing.T) {
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, nil)
		for range 3 {
			w.run("tc_ingress", eth4().UDP(40000, 4500).Keepalive().Frame().Data)
		}
		w.run("tc_ingress", eth4().UDP(40001, 4500).Keepalive().Frame().Data)
		w.run("tc_egress", eth4().UDP(40000, 4500).Keepalive().Frame().Data)
		got := map[[2]uint16]uint64{}
		var key LockfreeKeepaliveKey
		var k LockfreeKeepalive
		for it := w.Maps["keepalives"].Iterate(); it.Next(&key, &k); {
			got[[2]uint16{key.Sport, uint16(key.Dir)}] = k.Packets
			if k.FirstNs == 0 || k.LastNs < k.FirstNs || k.IntervalMinNs > k.IntervalMaxNs {
				t.Errorf("%s: times %+v", build.name, k)
			}
			if k.Packets > 1 != (k.IntervalMinNs > 0) {
				t.Errorf("%s: %d keepalives, shortest interval %d", build.name, k.Packets, k.IntervalMinNs)
			}
		}
		if diff := cmp.Diff(map[[2]uint16]uint64{{40000, 0}: 3, {40001, 0}: 1, {40000, 1}: 1}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", build.name, diff)
		}
	}
}

// A binding that changes is followed by the newest packet, and late packets of the old one change nothing.
func TestRebind(t *testing.T) {
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, only("xdp_ingress"))
		from := func(src string, port uint16, seq uint32) {
			w.run("xdp_ingress", packet.Eth().IPv4(src, b4).UDP(port, 4500).ESP(7, seq, 32).Frame().Data)
		}
		from(a4, 1000, 1)
		from(a4, 1000, 2)
		from(a4, 2000, 5) // a new port, and a gap with it
		from(a4, 1000, 3) // late, from the old one
		from(a4, 2000, 6)
		from("192.0.2.77", 2000, 7)
		w.run("xdp_ingress", packet.Eth().IPv4("192.0.2.77", b4).ESP(7, 8, 32).Frame().Data) // without UDP
		all := w.sas()
		if len(all) != 1 {
			t.Fatalf("%s: %d SAs, want 1", build.name, len(all))
		}
		s := all[0]
		got := []any{s.Rebinds, netip.AddrFrom16(s.Src).Unmap().String(), s.Sport, s.Dport, s.Encap, s.Used,
			netip.AddrFrom16(s.OldSrc).Unmap().String(), s.OldPorts, s.RebindNs > 0, s.Late, s.GapEvents, s.Packets}
		want := []any{uint64(3), "192.0.2.77", uint16(0), uint16(0), uint8(0), uint8(1),
			"192.0.2.77", uint64(1<<32 | 4500<<16 | 2000), true, uint64(1), uint64(1), uint64(7)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", build.name, diff)
		}
		var ports []int64
		for _, e := range w.events() {
			if e.Kind == uint8(LockfreeEventKindEVENT_REBIND) {
				ports = append(ports, e.Value)
			}
		}
		if diff := cmp.Diff([]int64{1<<32 | 4500<<16 | 1000, 1<<32 | 4500<<16 | 2000, 1<<32 | 4500<<16 | 2000}, ports); diff != "" {
			t.Errorf("%s events (-want +got):\n%s", build.name, diff)
		}
	}
}

// Marks and sizes of the outer header.
func TestOuterHeader(t *testing.T) {
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, only("xdp_ingress"))
		for i, tos := range []uint8{0x00, 0xb8 | 2, 0xb8 | 3, 3} { // CS0; EF with ECT(0); EF with CE; CE
			w.run("xdp_ingress", eth4().ESP(7, uint32(i+1), 32+100*(i%2)).Frame().Set8(packet.IPv4, 1, tos).Data)
		}
		w.run("xdp_ingress", eth6().ESP(8, 1, 32).Frame().Set16(packet.IPv6, 0, 0x6000|0xbb0).Data)
		all := w.sas()
		if len(all) != 2 {
			t.Fatalf("%s: %d SAs, want 2", build.name, len(all))
		}
		got := []uint64{all[0].Ce, all[0].Dscps, uint64(all[0].Largest), all[1].Ce, all[1].Dscps, uint64(all[1].Largest)}
		if diff := cmp.Diff([]uint64{2, 1 | 1<<46, 160, 1, 1 << 46, 80}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", build.name, diff)
		}
	}
}

// What two CPUs disorder between them is told from what arrives in disorder on each of them.
func TestLateSpread(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU overtakes nobody")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Error(err)
		}
	}()
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, only("xdp_ingress"))
		on := func(cpu int, seqs ...uint32) {
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				t.Fatal(err)
			}
			for _, seq := range seqs {
				w.run("xdp_ingress", eth4().ESP(7, seq, 32).Frame().Data)
			}
		}
		on(0, 1, 3, 5)
		on(1, 2, 4, 6) // 2 and 4: in order here, late of all
		on(0, 8, 7)    // 7: late here
		s := w.sas()[0]
		if s.Late != 3 || s.LateSpread != 2 {
			t.Errorf("%s: late %d, between CPUs %d, want 3 and 2", build.name, s.Late, s.LateSpread)
		}
	}
}

// Gaps are measured: their lengths, and how regularly they come.
func TestGapMeasures(t *testing.T) {
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, only("xdp_ingress"))
		seq, want := uint32(0), [16]uint64{}
		for i := range 40 {
			for range 9 { // each tenth is lost, and after the twentieth time three more
				seq++
				w.run("xdp_ingress", eth4().ESP(7, seq, 32).Frame().Data)
			}
			seq++
			bucket := 0
			if i >= 20 {
				seq, bucket = seq+3, 2
			}
			if i < 39 {
				want[bucket]++
			}
		}
		s := w.sas()[0]
		if s.GapHist != want {
			t.Errorf("%s: lengths %v, want %v", build.name, s.GapHist, want)
		}
		sum, squares := uint64(20*10+18*13), uint64(20*100+18*169)
		if s.GapEvents != 39 || s.Spacings != 38 || s.SpacingSum != sum || s.SpacingSquares != squares {
			t.Errorf("%s: %d gaps, %d distances of %d, squares %d; want 39, 38, %d, %d",
				build.name, s.GapEvents, s.Spacings, s.SpacingSum, s.SpacingSquares, sum, squares)
		}
	}
}
