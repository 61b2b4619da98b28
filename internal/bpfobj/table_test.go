// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/packet"
)

// What the packet says of the SA is in its state, whichever way it came.
func TestIdentity(t *testing.T) {
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 16, nil)
		for _, tt := range []struct {
			program string
			frame   *packet.Frame
			want    SAState
		}{
			{"xdp_ingress", packet.Eth().IPv4(a4, b4).ESP(0x11, 5, 32).Frame(), SAState{Family: 4, Dir: 0}},
			{"tc_ingress", packet.Eth().IPv4(a4, b4).UDP(4500, 40000).ESP(0x12, 5, 32).Frame(), SAState{Family: 4, Dir: 0, Encap: 1, Sport: 4500, Dport: 40000}},
			{"tc_egress", packet.Eth().IPv6(a6, b6).ESP(0x13, 5, 32).Frame(), SAState{Family: 6, Dir: 1}},
			{"tc_egress", packet.Eth().VLAN(3).IPv6(a6, b6).UDP(4500, 4500).ESP(0x14, 5, 32).Frame(), SAState{Family: 6, Dir: 1, Encap: 1, Sport: 4500, Dport: 4500}},
			{"tc_ingress_l3", packet.L3().IPv6(a6, b6).ESP(0x15, 5, 32).Frame(), SAState{Family: 6, Dir: 0}},
		} {
			w.run(tt.program, tt.frame.Data)
			all := w.sas()
			got := all[len(all)-1].SAState
			src, dst := netip.MustParseAddr(a4), netip.MustParseAddr(b4)
			if tt.want.Family == 6 {
				src, dst = netip.MustParseAddr(a6), netip.MustParseAddr(b6)
			}
			tt.want.Src, tt.want.Dst = src.As16(), dst.As16()
			tt.want.Spi = binary.BigEndian.Uint32(tt.frame.Data[tt.frame.At(packet.ESP):])
			tt.want.Used, tt.want.FirstIndex = 1, 1
			tt.want.First, tt.want.OriginalFirst, tt.want.Highest = SeqBias+5, SeqBias+5, SeqBias+5
			if got.CreatedNs == 0 || got.Ifindex == 0 {
				t.Errorf("%s: created at %d on interface %d", tt.program, got.CreatedNs, got.Ifindex)
			}
			got.CreatedNs, got.Ifindex = 0, 0
			got.Window = [256]uint64{}
			if diff := cmp.Diff(tt.want, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", build.name, tt.program, diff)
			}
		}
	}
}

// The table holds as many SAs as it has slots; packets of further ones are counted as such, and the
// ones that are in it do not suffer. A slot that is given back serves again, cleared.
func TestTableFull(t *testing.T) {
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 4, only("xdp_ingress"))
			f := eth4().ESP(0, 0, 16).Frame()
			for spi := range uint32(6) {
				for seq := range uint32(3) {
					w.run("xdp_ingress", f.SPI(spi).Seq(10*seq).Data)
				}
			}
			if diff := cmp.Diff(map[string]uint64{"sa_table_full": 6}, w.lost()); diff != "" {
				t.Error("lost (-want +got):\n" + diff)
			}
			if got := w.counts("why_counts", "why", 0)["esp"]; got != 18 {
				t.Errorf("%d packets of class esp, want 18", got)
			}
			all := w.sas()
			if len(all) != 4 {
				t.Fatalf("%d SAs, want 4", len(all))
			}
			for _, s := range all {
				if s.Packets != 3 || s.Holes != 18 {
					t.Errorf("SPI %d: %d packets, %d holes; want 3 and 18", s.Spi, s.Packets, s.Holes)
				}
			}

			// What user space does to end an SA: see lib/maps.h.
			key := SAKey{Spi: 1, DstFold: fold4(b4), Family: 4}
			var slot uint32
			if err := w.Maps["sa_slots"].Lookup(key, &slot); err != nil {
				t.Fatal(err)
			}
			if err := w.Maps["sa_slots"].Delete(key); err != nil {
				t.Fatal(err)
			}
			if err := w.Maps["sa_counts"].Put(slot, make([]SACount, ebpf.MustPossibleCPU())); err != nil {
				t.Fatal(err)
			}
			if err := w.Maps["free_slots"].Put(nil, slot); err != nil {
				t.Fatal(err)
			}
			w.run("xdp_ingress", f.SPI(5).Seq(20).Data)
			var s SAState
			if err := w.Maps["sa_states"].Lookup(slot, &s); err != nil {
				t.Fatal(err)
			}
			if s.Spi != 5 || s.Used != 1 || s.First != SeqBias+20 || s.Holes != 0 || s.GapCount != 0 {
				t.Errorf("the slot's new SA: SPI %d, used %d, first %d, holes %d, gaps %d", s.Spi, s.Used, s.First, s.Holes, s.GapCount)
			}
			set := 0
			for _, word := range s.Window {
				if word != 0 {
					set++
				}
			}
			if set != 1 {
				t.Errorf("%d words of the window are in use, want 1", set)
			}
		})
	}
}

// Hints lead to SAs without the hash. Where two SAs share a hint, and where an SA has been ended, the
// packets still go where they belong.
func TestHints(t *testing.T) {
	const bits = 16
	place := func(spi uint32) uint32 { return (spi ^ fold4(b4)) * 0x9e3779b1 >> (32 - bits) }
	first := uint32(1)
	second := first + 1
	for place(second) != place(first) {
		second++
	}
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 8, only("xdp_ingress"))
			f := eth4().ESP(0, 0, 16).Frame()
			for seq := range uint32(20) {
				w.run("xdp_ingress", f.SPI(first).Seq(seq).Data)
				w.run("xdp_ingress", f.SPI(second).Seq(seq).Data)
			}
			var hint uint32
			if err := w.Maps["sa_hints"].Lookup(place(first), &hint); err != nil {
				t.Fatal(err)
			}
			if hint != 1 {
				t.Errorf("the shared hint leads to slot %d, want that of the last packet, 1", hint)
			}
			for _, s := range w.sas() {
				if s.Packets != 20 || s.unique() != 20 || s.Holes != 0 || s.Duplicates != 0 {
					t.Errorf("SPI %d: %+v", s.Spi, s.figures())
				}
			}

			// The second SA is ended: see lib/maps.h. Its hint remains, and must lead nowhere.
			if err := w.Maps["sa_slots"].Delete(SAKey{Spi: second, DstFold: fold4(b4), Family: 4}); err != nil {
				t.Fatal(err)
			}
			var state SAState
			if err := w.Maps["sa_states"].Lookup(uint32(1), &state); err != nil {
				t.Fatal(err)
			}
			state.Used = 0
			if err := w.Maps["sa_states"].Put(uint32(1), state); err != nil {
				t.Fatal(err)
			}
			w.run("xdp_ingress", f.SPI(second).Seq(100).Data)
			var again SAState
			if err := w.Maps["sa_states"].Lookup(uint32(2), &again); err != nil {
				t.Fatal(err)
			}
			if again.Spi != second || again.First != SeqBias+100 {
				t.Errorf("slot 2 holds SPI %d from %d on, want %d from %d", again.Spi, again.First, second, SeqBias+100)
			}
			if err := w.Maps["sa_states"].Lookup(uint32(1), &state); err != nil {
				t.Fatal(err)
			}
			if state.Highest != SeqBias+19 {
				t.Errorf("a packet went to the slot of an SA that was ended: highest %d", state.Highest)
			}
		})
	}
}

// fold4 is an IPv4 address as the kernel's key has it: the four bytes as they lie in memory.
func fold4(addr string) uint32 {
	a := netip.MustParseAddr(addr).As4()
	return binary.NativeEndian.Uint32(a[:])
}

// IPv6 destinations that fold to the same 32 bits are kept apart, as many as there are probes.
func TestFoldCollisions(t *testing.T) {
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 16, only("xdp_ingress"))
			// The same two 16-bit groups at other places, 32 bits apart.
			dsts := []string{"2001:db8::5:6", "2001:db8:5:6::", "2001:db8::5:6:0:0", "2001:db8:5:6:7:8:7:8", "2001:db8:7:8:5:6:7:8"}
			for seq := range uint32(3) {
				for _, dst := range dsts {
					w.run("xdp_ingress", packet.Eth().IPv6(a6, dst).ESP(1, seq+1, 16).Frame().Data)
				}
			}
			got := map[string]uint64{}
			for _, s := range w.sas() {
				got[netip.AddrFrom16(s.Dst).String()] = s.unique()
			}
			want := map[string]uint64{dsts[0]: 3, dsts[1]: 3, dsts[2]: 3, dsts[3]: 3}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("unique packets by destination (-want +got):\n" + diff)
			}
			if diff := cmp.Diff(map[string]uint64{"sa_hash": 3}, w.lost()); diff != "" {
				t.Error("lost (-want +got):\n" + diff)
			}
		})
	}
}

// A capture's packets bring their own time, length and interface, and have no direction.
func TestOffline(t *testing.T) {
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 16, func(spec *ebpf.CollectionSpec) {
				only("xdp_ingress")(spec)
				set(t, spec, "cfg_offline", uint8(1))
			})
			f := eth4().ESP(7, 1, 1000).Frame()
			whole := len(f.Data)
			f.Cut(packet.ESP, 8) // a snap length that leaves just enough
			var data bytes.Buffer
			meta := OfflineMeta{TimeNs: 1234567, WireLen: uint32(whole), Ifindex: 3}
			if err := binary.Write(&data, binary.NativeEndian, meta); err != nil {
				t.Fatal(err)
			}
			size := uint32(data.Len())
			data.Write(f.Data)
			type context struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }
			if _, err := w.Programs["xdp_ingress"].Run(&ebpf.RunOptions{
				Data: data.Bytes(), Context: context{Data: size, DataEnd: uint32(data.Len())},
			}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]uint64{"esp": 1}, w.counts("why_counts", "why", 2)); diff != "" {
				t.Error("classes of unknown direction (-want +got):\n" + diff)
			}
			all := w.sas()
			if len(all) != 1 {
				t.Fatalf("%d SAs, want 1", len(all))
			}
			s := all[0]
			if s.CreatedNs != 1234567 || s.Ifindex != 3 || s.Dir != 2 || s.Bytes != uint64(whole-14) {
				t.Errorf("created %d, interface %d, direction %d, bytes %d", s.CreatedNs, s.Ifindex, s.Dir, s.Bytes)
			}
		})
	}
}

// Two CPUs see the first packets of the same new SAs at the same time: each SA is opened once, no
// packet is lost, and every slot that was taken in vain comes back.
func TestTwoCPUsOpenSAs(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	const sas = 3000
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, sas+2, only("xdp_ingress"))
			var turn [2]atomic.Uint32
			var g errgroup.Group
			for cpu := range 2 {
				g.Go(func() error {
					runtime.LockOSThread()
					var set unix.CPUSet
					set.Set(cpu)
					if err := unix.SchedSetaffinity(0, &set); err != nil {
						return err
					}
					f := eth4().ESP(0, 0, 16).Frame()
					for spi := range uint32(sas) {
						turn[cpu].Store(spi + 1)
						for turn[1-cpu].Load() <= spi {
							runtime.Gosched()
						}
						f.SPI(spi).Seq(uint32(1 + cpu))
						if _, err := w.Programs["xdp_ingress"].Run(&ebpf.RunOptions{Data: f.Data}); err != nil {
							turn[cpu].Store(sas + 1)
							return err
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			all := w.sas()
			if len(all) != sas {
				t.Errorf("%d SAs, want %d", len(all), sas)
			}
			for _, s := range all {
				if s.Packets != 2 || s.unique() != 2 || s.Holes != 0 {
					t.Fatalf("SPI %d: %d packets, %d unique, %d holes; want 2, 2, 0", s.Spi, s.Packets, s.unique(), s.Holes)
				}
			}
			free := 0
			var slot uint32
			for w.Maps["free_slots"].LookupAndDelete(nil, &slot) == nil {
				free++
			}
			if free != 2 {
				t.Errorf("%d slots are free, want 2", free)
			}
			lost := w.lost()
			delete(lost, "suppressed") // events of so many new SAs
			if len(lost) != 0 {
				t.Errorf("lost %v", lost)
			}
		})
	}
}

// The Go structures lie in memory as the objects' own type information says.
func TestLayout(t *testing.T) {
	for _, lockfree := range []bool{true, false} {
		spec, err := LoadWire(lockfree)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range map[string]any{
			"sa_key": SAKey{}, "sa_state": SAState{}, "sa_count": SACount{}, "by_direction": ByDirection{}, "event": Event{}, "offline_meta": OfflineMeta{},
		} {
			var c *btf.Struct
			if err := spec.Types.TypeByName(name, &c); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			goType := reflect.TypeOf(v)
			if goType.Size() != uintptr(c.Size) {
				t.Errorf("%s is %d bytes in Go, %d in C", name, goType.Size(), c.Size)
			}
			at := uint32(0)
			for _, m := range c.Members {
				if m.Offset.Bytes() != at {
					t.Errorf("%s.%s: %d bytes of implicit padding before it", name, m.Name, m.Offset.Bytes()-at)
				}
				size, err := btf.Sizeof(m.Type)
				if err != nil {
					t.Fatal(err)
				}
				at = m.Offset.Bytes() + uint32(size)
				field, ok := goType.FieldByNameFunc(func(s string) bool {
					return strings.EqualFold(s, strings.ReplaceAll(m.Name, "_", ""))
				})
				if !ok || uint32(field.Offset) != m.Offset.Bytes() || field.Type.Size() != uintptr(size) {
					t.Errorf("%s.%s: at %d, %d bytes in C; in Go %v at %d", name, m.Name, m.Offset.Bytes(), size, field.Type, field.Offset)
				}
			}
		}
	}
}
