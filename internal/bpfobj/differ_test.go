// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/packet"
)

// arm is one program and the way in which packets come to it.
type arm struct {
	program string
	dir     uint8
	rules   rules
	capture bool // a packet of a capture file: metadata in front of it
}

var nattPorts = []uint16{4500, 10000}

var liveArms = []arm{
	{program: "xdp_ingress", dir: 0},
	{program: "tc_ingress", dir: 0}, {program: "tc_egress", dir: 1},
	{program: "tc_ingress_l3", dir: 0, rules: rules{l3: true}}, {program: "tc_egress_l3", dir: 1, rules: rules{l3: true}},
}

var captureArms = []arm{{program: "xdp_ingress", dir: 2, capture: true}}

// differ sends packets to the kernel's programs and holds what they count against the second decoder.
type differ struct {
	*wire
	dirs []int // that its arms use
	seen struct {
		classes, asides [3]counts // by direction
		sas             map[saName]*sawSA
		keepalives      map[KeepaliveKey]uint64
		ike             []Event
	}
}

// saName is what makes packets those of one SA.
type saName struct {
	spi    uint32
	dst    [16]byte
	dir    uint8
	family uint8
}

type sawSA struct {
	packets, bytes uint64
	first          opinion
}

func newDiffer(t testing.TB, lockfree, capture bool) *differ {
	t.Helper()
	d := &differ{wire: loadWire(t, lockfree, 4096, func(spec *ebpf.CollectionSpec) {
		set(t, spec, "cfg_natt_ports", [8]uint16{nattPorts[0], nattPorts[1]})
		set(t, spec, "cfg_events_per_sec", uint32(0))
		set(t, spec, "cfg_ike_per_sec", uint32(math.MaxUint32))
		if capture {
			set(t, spec, "cfg_offline", uint8(1))
			only("xdp_ingress")(spec)
		}
	}), dirs: []int{0, 1}}
	if capture {
		d.dirs = []int{2}
	}
	d.forget()
	return d
}

// forget begins anew, with empty tables.
func (d *differ) forget() {
	d.t.Helper()
	for _, dir := range d.dirs {
		d.seen.classes[dir] = d.counts("why_counts", "why", dir)
		d.seen.asides[dir] = d.counts("aside_counts", "aside", dir)
	}
	d.seen.sas, d.seen.keepalives, d.seen.ike = map[saName]*sawSA{}, map[KeepaliveKey]uint64{}, nil
	d.events()
	var keys []SAKey
	var slots []uint32
	each(d.t, d.Maps["sa_slots"], func(k SAKey, slot uint32) { keys, slots = append(keys, k), append(slots, slot) })
	for i, key := range keys {
		for _, err := range []error{
			d.Maps["sa_slots"].Delete(key), d.Maps["sa_states"].Put(slots[i], SAState{}),
			d.Maps["sa_counts"].Put(slots[i], make([]SACount, ebpf.MustPossibleCPU())), d.Maps["free_slots"].Put(nil, slots[i]),
		} {
			if err != nil {
				d.t.Fatal(err)
			}
		}
	}
	var bindings []KeepaliveKey
	each(d.t, d.Maps["keepalives"], func(k KeepaliveKey, _ Keepalive) { bindings = append(bindings, k) })
	for _, k := range bindings {
		if err := d.Maps["keepalives"].Delete(k); err != nil {
			d.t.Fatal(err)
		}
	}
}

func each[K, V any](t testing.TB, m *ebpf.Map, f func(K, V)) {
	t.Helper()
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		f(k, v)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
}

// try runs one packet, of whose bytes a capture may lack some; false: the kernel takes none such.
func (d *differ) try(a arm, frame []byte, size int) bool {
	d.t.Helper()
	r := a.rules
	r.natt = nattPorts
	opts := ebpf.RunOptions{Data: frame}
	if a.capture {
		r.size = size
		meta := binary.NativeEndian.AppendUint64(nil, 1_000_000)
		meta = binary.NativeEndian.AppendUint32(meta, uint32(size))
		meta = binary.NativeEndian.AppendUint32(meta, 7)
		opts.Data = append(meta, frame...)
		opts.Context = [6]uint32{uint32(len(meta)), uint32(len(opts.Data))} // struct xdp_md
	}
	want := uint32(2) // XDP_PASS
	if a.program != "xdp_ingress" {
		want = math.MaxUint32 // TCX_NEXT
	}
	ret, err := d.Programs[a.program].Run(&opts)
	// BPF_PROG_TEST_RUN wants an Ethernet header's worth, and for TC a whole IP header behind it.
	if errors.Is(err, unix.EINVAL) && (len(frame) < 14 || a.program != "xdp_ingress" && len(frame) < 14+40) {
		return false
	}
	if err != nil {
		d.t.Fatalf("%s on %d bytes: %v\n% x", a.program, len(frame), err, frame)
	}
	if ret != want {
		d.t.Fatalf("%s returned %d, want %d\n% x", a.program, ret, want, frame)
	}
	o := decode(frame, r)
	d.expect(a, o)
	if got, want := d.class(o.class, a.dir), d.seen.classes[a.dir][o.class]; got != want {
		d.t.Fatalf("%s (dir %d, size %d): %d packets of class %s, want %d: the second decoder says %+v\n% x",
			a.program, a.dir, size, got, o.class, want, o, frame)
	}
	return true
}

// class reads one counter.
func (d *differ) class(name string, dir uint8) (n uint64) {
	d.t.Helper()
	for value, label := range d.names["why"] {
		if label != name {
			continue
		}
		var perCPU []ByDirection
		if err := d.Maps["why_counts"].Lookup(uint32(value), &perCPU); err != nil {
			d.t.Fatal(err)
		}
		for _, c := range perCPU {
			n += c.Packets[dir]
		}
	}
	return n
}

// expect notes what one packet must add to the tables.
func (d *differ) expect(a arm, o opinion) {
	d.seen.classes[a.dir][o.class]++
	for _, aside := range o.asides {
		d.seen.asides[a.dir][aside]++
	}
	switch o.class {
	case "esp", "esp_udp":
		name := saName{o.spi, o.dst.As16(), a.dir, o.family}
		s := d.seen.sas[name]
		if s == nil {
			s = &sawSA{first: o}
			d.seen.sas[name] = s
		}
		s.packets++
		s.bytes += o.bytes
	case "keepalive":
		d.seen.keepalives[KeepaliveKey{Src: o.src.As16(), Dst: o.dst.As16(), Sport: o.sport, Dport: o.dport, Dir: a.dir, Family: o.family}]++
	case "ike":
		be := binary.BigEndian
		d.seen.ike = append(d.seen.ike, Event{
			Seq: be.Uint64(o.ike), Top: be.Uint64(o.ike[8:]), Value: int64(be.Uint32(o.ike[20:])), ReplayWindow: be.Uint32(o.ike[24:]),
			Extent: uint32(o.ike[17])<<24 | uint32(o.ike[18])<<16 | uint32(o.ike[19])<<8 | uint32(o.ike[16]),
			Src:    o.src.As16(), Dst: o.dst.As16(), Sport: o.sport, Dport: o.dport,
			Kind: uint8(LockfreeEventKindEVENT_IKE), Dir: a.dir, Family: o.family,
		})
	}
}

// settle compares all that was counted since forget, and forgets it.
func (d *differ) settle() {
	d.t.Helper()
	for _, dir := range d.dirs {
		d.same("classes", d.seen.classes[dir], counts(d.counts("why_counts", "why", dir)))
		d.same("asides", d.seen.asides[dir], counts(d.counts("aside_counts", "aside", dir)))
	}
	got := map[saName]sa{}
	for _, s := range d.used() {
		got[saName{s.Spi, s.Dst, s.Dir, s.Family}] = s
	}
	for name, want := range d.seen.sas {
		s, ok := got[name]
		if !ok || s.Packets != want.packets || s.Bytes != want.bytes || s.OriginalFirst != SeqBias+uint64(want.first.seq) {
			d.t.Errorf("SA %+v: %d packets, %d bytes, first number %#x; want %d, %d, %#x",
				name, s.Packets, s.Bytes, s.OriginalFirst, want.packets, want.bytes, want.first.seq)
			continue
		}
		if want.packets > 1 { // the ends follow the newest packet
			continue
		}
		wantPorts := [3]uint16{}
		if want.first.class == "esp_udp" {
			wantPorts = [3]uint16{1, want.first.sport, want.first.dport}
		}
		d.same("source and ports of a new SA", []any{want.first.src, wantPorts},
			[]any{address(s.Src, s.Family), [3]uint16{uint16(s.Encap), s.Sport, s.Dport}})
	}
	if len(got) != len(d.seen.sas) {
		d.t.Errorf("%d SAs, want %d", len(got), len(d.seen.sas))
	}
	keepalives := map[KeepaliveKey]uint64{}
	each(d.t, d.Maps["keepalives"], func(k KeepaliveKey, v Keepalive) { keepalives[k] = v.Packets })
	d.same("keepalives", d.seen.keepalives, keepalives)
	var ike []Event
	for _, e := range d.events() {
		e.TimeNs, e.Cpu, e.Ifindex = 0, 0, 0
		ike = append(ike, e)
	}
	d.same("IKE headers", d.seen.ike, ike)
	lost := d.lost()
	delete(lost, "suppressed") // events, which are switched off
	d.same("lost", map[string]uint64{}, lost)
	d.forget()
}

func (d *differ) same(what string, want, got any) {
	d.t.Helper()
	if diff := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		d.t.Errorf("%s (-second decoder +kernel):\n%s", what, diff)
	}
}

// used reads the SAs in the table without looking at its empty slots.
func (d *differ) used() (all []sa) {
	d.t.Helper()
	each(d.t, d.Maps["sa_slots"], func(_ SAKey, slot uint32) {
		var s sa
		var perCPU []SACount
		if err := errors.Join(d.Maps["sa_states"].Lookup(slot, &s.SAState), d.Maps["sa_counts"].Lookup(slot, &perCPU)); err != nil {
			d.t.Fatal(err)
		}
		for _, c := range perCPU {
			s.Packets += c.Packets
			s.Bytes += c.Bytes
		}
		all = append(all, s)
	})
	return all
}

func address(a [16]byte, family uint8) netip.Addr {
	if family == 4 {
		return netip.AddrFrom16(a).Unmap()
	}
	return netip.AddrFrom16(a)
}

// sizes of a captured packet: whole, cut by a snap length, or so long that no length field holds it.
func (c chance) captured(frame []byte) ([]byte, int) {
	switch size := len(frame); c.IntN(6) {
	case 0:
		return frame[:min(size, 14+c.IntN(size))], size
	case 1:
		return frame, size + c.IntN(60)
	case 2:
		return frame, 65530 + c.IntN(100)
	default:
		return frame, size
	}
}

// TestSecondDecoder has the kernel and the second decoder judge the same broken packets. The same seed gives
// the same packets; -short takes fewer.
func TestSecondDecoder(t *testing.T) {
	rounds, each := 16, 1500
	if testing.Short() {
		rounds = 4
	}
	for _, build := range builds(t) {
		for name, arms := range map[string][]arm{"live": liveArms, "capture": captureArms} {
			t.Run(build.name+"/"+name, func(t *testing.T) {
				d := newDiffer(t, build.lockfree, name == "capture")
				if name == "capture" && !takesMetadata(t, d) {
					t.Skip("this kernel cannot pass a packet's time (before 5.15)")
				}
				c := chance{rand.New(rand.NewPCG(20261127, uint64(len(arms))))}
				classes := counts{}
				for range rounds {
					for range each {
						a := arms[c.IntN(len(arms))]
						frame := c.frame(a.rules.l3)
						size := len(frame)
						if a.capture {
							frame, size = c.captured(frame)
						}
						d.try(a, frame, size)
					}
					for _, dir := range d.dirs {
						for class, n := range d.seen.classes[dir] {
							classes[class] = max(classes[class], n)
						}
					}
					d.settle()
				}
				// A generator that does not get somewhere proves nothing of it.
				for _, why := range d.names["why"] {
					if classes[why] < 4 {
						t.Errorf("%d packets of class %s: too few", classes[why], why)
					}
				}
				t.Logf("packets by class: %v", classes)
			})
		}
	}
}

func takesMetadata(t *testing.T, d *differ) bool {
	t.Helper()
	data := append(make([]byte, 16), eth4().ESP(1, 1, 8).Frame().Data...)
	_, err := d.Programs["xdp_ingress"].Run(&ebpf.RunOptions{Data: data, Context: [6]uint32{16, uint32(len(data))}})
	if err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	d.forget()
	return err == nil
}

// FuzzWire is the same for as long as one likes:
//
//	go test -run '^$' -fuzz FuzzWire -fuzzminimizetime 1x ./internal/bpfobj
func FuzzWire(f *testing.F) {
	for _, row := range classes {
		f.Add(row.frame.Data, uint16(0))
	}
	f.Add(eth4().ESP(1, 1, 32).Frame().Set16(packet.IPv4, 2, 0).Data, uint16(0xffff)) // BIG TCP
	live, capture := newDiffer(f, true, false), newDiffer(f, true, true)
	f.Fuzz(func(t *testing.T, frame []byte, more uint16) {
		if len(frame) > 2000 {
			return // more than the kernel runs in one buffer
		}
		live.t, capture.t = t, t
		for _, a := range liveArms {
			live.try(a, frame, len(frame))
		}
		live.settle()
		capture.try(captureArms[0], frame, len(frame)+int(more))
		capture.settle()
	})
}
