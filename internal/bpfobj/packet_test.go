// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/packet"
)

// tape is the packet object's programs on the wire, run by BPF_PROG_TEST_RUN.
type tape struct {
	*ebpf.Collection
	t    testing.TB
	ring *ringbuf.Reader
}

// record is what a test looks at in one record of the ring.
type record struct {
	Head PacketHead
	Data []byte
}

// loadTape loads the programs of TC, or those of the stack that are named (asRawTracepoints).
func loadTape(t testing.TB, c PacketConfig, stack ...string) *tape {
	t.Helper()
	needBPF(t)
	spec, err := LoadPacket()
	if err != nil {
		t.Fatal(err)
	}
	if c.Only == 0 {
		c.Only = PacketOnlyAll
	}
	if c.Dirs == 0 {
		c.Dirs = 3
	}
	if err := ConfigurePacket(spec, c); err != nil {
		t.Fatal(err)
	}
	if len(stack) > 0 {
		asRawTracepoints(spec, stack...)
	} else {
		for name, p := range spec.Programs {
			if p.Type != ebpf.SchedCLS {
				delete(spec.Programs, name)
			}
		}
	}
	coll, err := ebpf.NewCollection(spec)
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		t.Fatalf("%+v", ve)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	rd, err := ringbuf.NewReader(coll.Maps["packets"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rd.Close() })
	rd.SetDeadline(time.Unix(1, 0))
	return &tape{coll, t, rd}
}

// feed runs a program on a frame; whatever it is, the packet goes on.
func (p *tape) feed(program string, frame []byte) {
	p.t.Helper()
	ret, _, err := p.Programs[program].Test(frame)
	if err != nil {
		p.t.Fatalf("run %s on %d bytes: %v", program, len(frame), err)
	}
	if int32(ret) != -1 {
		p.t.Fatalf("%s decides over a packet: %d", program, int32(ret))
	}
}

// drain reads what is in the ring.
func (p *tape) drain() (out []record) {
	p.t.Helper()
	for {
		rec, err := p.ring.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		if err != nil {
			p.t.Fatal(err)
		}
		var r record
		size := int(unsafe.Sizeof(r.Head))
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&r.Head)), size), rec.RawSample)
		r.Data = append([]byte(nil), rec.RawSample[size:size+int(r.Head.CapLen)]...)
		out = append(out, r)
	}
}

// count sums up what a program says of a point on any device.
func (p *tape) count(point PacketPoint) (sum PacketCount) {
	p.t.Helper()
	var place PacketPlace
	var perCPU []PacketCount
	for it := p.Maps["packet_counts"].Iterate(); it.Next(&place, &perCPU); {
		for _, c := range perCPU {
			if place.Point == point {
				sum.Seen += c.Seen
				sum.Matched += c.Matched
				sum.Lost += c.Lost
			}
		}
	}
	return sum
}

// A packet's number is judged as the definitions say, in both directions, each SA by itself.
func TestPacketOrder(t *testing.T) {
	p := loadTape(t, PacketConfig{})
	type judged struct {
		Seq      uint64
		Order    PacketOrder
		Distance uint64
	}
	steps := []judged{
		{10, OrderFirst, 0}, {11, OrderNext, 0}, {15, OrderAhead, 3}, {13, OrderLate, 2}, {13, OrderDuplicate, 2},
		{15, OrderDuplicate, 0}, {16, OrderNext, 0}, {9, OrderLate, 7}, {16 + 8160, OrderAhead, 8159}, {15, OrderOutside, 8161},
		{16, OrderDuplicate, 8160}, {14, OrderOutside, 8162},
	}
	// Eight in a row that are far away, while the highest stands still, are the sequence begun anew.
	for i := range uint64(8) {
		s := judged{1e6 + i, OrderOutside, 1e6 + i - 8176}
		if i == 7 {
			s.Order = OrderRestart
		}
		steps = append(steps, s)
	}
	steps = append(steps, judged{1e6 + 8, OrderNext, 0}, judged{1e6 + 3, OrderLate, 5})
	for _, program := range []string{"packet_ingress", "packet_egress"} {
		frame := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1001, 1, 64).Frame()
		other := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1002, 7, 64).Frame()
		for _, s := range steps {
			p.feed(program, frame.Clone().Seq(uint32(s.Seq)).Data)
		}
		p.feed(program, other.Data)
		var got []judged
		for _, r := range p.drain() {
			got = append(got, judged{r.Head.Seq, r.Head.Order, r.Head.Distance})
		}
		if diff := cmp.Diff(append(steps[:len(steps):len(steps)], judged{7, OrderFirst, 0}), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", program, diff)
		}
	}
}

// The numbers wrap after 2^32 (ESN shows no more than 32 bits on the wire).
func TestPacketOrderWraps(t *testing.T) {
	p := loadTape(t, PacketConfig{})
	frame := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1001, 1, 64).Frame()
	for _, seq := range []uint32{0xfffffffe, 0xffffffff, 0, 2, 1, 0xffffffff} {
		p.feed("packet_ingress", frame.Clone().Seq(seq).Data)
	}
	var got []PacketOrder
	for _, r := range p.drain() {
		got = append(got, r.Head.Order)
	}
	if diff := cmp.Diff([]PacketOrder{OrderFirst, OrderNext, OrderNext, OrderAhead, OrderLate, OrderDuplicate}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Headers and the initialisation vector are copied, and no more; or as many bytes as were asked for.
func TestPacketSnap(t *testing.T) {
	v4 := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1001, 1, 3000).Frame().Data
	for _, c := range []struct {
		name, program string
		frame         []byte
		snaplen       uint32
		want          int
	}{
		{"IPv4", "packet_ingress", v4, 0, 14 + 20 + 8 + 16},
		{"IPv4 in UDP", "packet_ingress", packet.Eth().IPv4("192.0.2.1", "192.0.2.2").UDP(4500, 4500).ESP(0x1001, 1, 400).Frame().Data, 0, 14 + 20 + 8 + 8 + 16},
		{"IPv6, tagged", "packet_egress", packet.Eth().VLAN(7).IPv6("2001:db8::1", "2001:db8::2").ESP(0x1001, 1, 400).Frame().Data, 0, 14 + 4 + 40 + 8 + 16},
		{"without a link header", "packet_ingress_l3", packet.L3().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1001, 1, 400).Frame().Data, 0, 20 + 8 + 16},
		{"shorter than that", "packet_ingress", packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1001, 1, 4).Frame().Data, 0, 14 + 20 + 8 + 4},
		{"one byte", "packet_ingress", v4, 1, 1},
		{"as many as fit into the small record", "packet_ingress", v4, 128, 128},
		{"one more", "packet_ingress", v4, 129, 129},
		{"the large record", "packet_ingress", v4, 2049, 2049},
		{"all", "packet_ingress", v4, PacketSnapMax, len(v4)},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := loadTape(t, PacketConfig{Snaplen: c.snaplen})
			p.feed(c.program, c.frame)
			got := p.drain()
			if len(got) != 1 {
				t.Fatalf("%d records, want 1", len(got))
			}
			if diff := cmp.Diff(c.frame[:c.want], got[0].Data); diff != "" {
				t.Errorf("bytes (-want +got):\n%s", diff)
			}
			if int(got[0].Head.WireLen) != len(c.frame) {
				t.Errorf("%d bytes on the wire, want %d", got[0].Head.WireLen, len(c.frame))
			}
		})
	}
}

// The filter lets pass what it names, and counts all that it looked at.
func TestPacketFilter(t *testing.T) {
	build := func(src, dst string, spi, seq uint32) []byte {
		if netip.MustParseAddr(src).Is4() {
			return packet.Eth().IPv4(src, dst).ESP(spi, seq, 64).Frame().Data
		}
		return packet.Eth().IPv6(src, dst).ESP(spi, seq, 64).Frame().Data
	}
	frames := [][]byte{
		build("192.0.2.1", "192.0.2.2", 1001, 1), build("192.0.2.1", "192.0.2.2", 1001, 3), build("192.0.2.1", "192.0.2.2", 1001, 2),
		build("192.0.2.1", "192.0.2.2", 1001, 2), build("198.51.100.7", "192.0.2.2", 1002, 1), build("2001:db8::1", "2001:db8:1::2", 1003, 1),
	}
	for _, c := range []struct {
		name    string
		config  PacketConfig
		spis    []uint32
		program string
		want    []int // indices of frames
	}{
		{name: "all", want: []int{0, 1, 2, 3, 4, 5}},
		{name: "late", config: PacketConfig{Only: PacketOnlyLate}, want: []int{2}},
		{name: "duplicates", config: PacketConfig{Only: PacketOnlyDuplicates}, want: []int{3}},
		{name: "late and duplicates", config: PacketConfig{Only: PacketOnlyLate | PacketOnlyDuplicates}, want: []int{2, 3}},
		{name: "drops", config: PacketConfig{Only: PacketOnlyDrops}},
		{name: "SPI", config: PacketConfig{BySPI: true}, spis: []uint32{1002, 1003}, want: []int{4, 5}},
		{name: "no SPI chosen yet", config: PacketConfig{BySPI: true}},
		{name: "peer", config: PacketConfig{Peer: netip.MustParsePrefix("198.51.100.0/24")}, want: []int{4}},
		{name: "peer as destination", config: PacketConfig{Peer: netip.MustParsePrefix("192.0.2.2/32")}, want: []int{0, 1, 2, 3, 4}},
		{name: "peer with bits beyond its length", config: PacketConfig{Peer: netip.MustParsePrefix("2001:db8:1::ffff/48")}, want: []int{5}},
		{name: "any IPv4", config: PacketConfig{Peer: netip.MustParsePrefix("0.0.0.0/0")}, want: []int{0, 1, 2, 3, 4}},
		{name: "the other direction", config: PacketConfig{Dirs: 2}},
		{name: "this direction", config: PacketConfig{Dirs: 2}, program: "packet_egress", want: []int{0, 1, 2, 3, 4, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := loadTape(t, c.config)
			for _, spi := range c.spis {
				if err := p.Maps["chosen_spis"].Put(spi, uint8(1)); err != nil {
					t.Fatal(err)
				}
			}
			program, point := "packet_ingress", PacketWireIn
			if c.program != "" {
				program, point = c.program, PacketWireOut
			}
			var want, got []string
			for _, f := range frames {
				p.feed(program, f)
			}
			for _, i := range c.want {
				want = append(want, fmt.Sprintf("%x", frames[i][:58]))
			}
			for _, r := range p.drain() {
				got = append(got, fmt.Sprintf("%x", r.Data[:58]))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := p.count(point); n.Seen != 6 || n.Matched != uint64(len(c.want)) || n.Lost != 0 {
				t.Errorf("counted %+v, want 6 seen, %d matched", n, len(c.want))
			}
		})
	}
}

// What a full ring does not take is counted, and the next packet that finds room tells of it.
func TestPacketRingFull(t *testing.T) {
	onOneCPU(t) // a packet tells of the losses of its own CPU
	p := loadTape(t, PacketConfig{RingBytes: 64 << 10})
	frame := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1001, 1, 64).Frame()
	const sent = 2000
	for seq := range uint32(sent) {
		p.feed("packet_ingress", frame.Seq(seq+1).Data)
	}
	taken := len(p.drain())
	n := p.count(PacketWireIn)
	if n.Seen != sent || n.Matched != sent || n.Lost != uint64(sent-taken) || n.Lost == 0 {
		t.Fatalf("%d taken, counted %+v", taken, n)
	}
	var told uint64
	for seq := range uint32(200) {
		p.feed("packet_ingress", frame.Seq(sent+seq+1).Data)
	}
	for _, r := range p.drain() {
		told += r.Head.Lost
	}
	if told != n.Lost {
		t.Errorf("%d losses told, want %d", told, n.Lost)
	}
}

// Broken and foreign packets: each goes on, and what is IPsec is copied without an SA.
func TestPacketHostile(t *testing.T) {
	esp := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0x1001, 1, 64)
	natt := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").UDP(4500, 4500).ESP(0x1001, 1, 64)
	p := loadTape(t, PacketConfig{})
	for _, c := range []struct {
		name  string
		frame []byte
		why   Why // WHY_MAX: not copied
	}{
		{"cut in the ESP header", esp.Frame().EndAt(packet.ESP, 6).Data, LockfreeWhyWHY_ESP_SHORT},
		{"UDP length too long", natt.Frame().Set16(packet.UDP, 4, 9000).Data, LockfreeWhyWHY_BAD_UDP},
		{"three bytes in UDP", natt.Frame().EndAt(packet.ESP, 3).Data, LockfreeWhyWHY_NATT_SHORT},
		{"TCP", packet.Eth().IPv4("192.0.2.1", "192.0.2.2").TCP(80, 1024).Frame().Data, LockfreeWhyWHY_MAX},
		{"a later fragment", packet.Eth().IPv4("192.0.2.1", "192.0.2.2").Fragment(64, false).ESP(0x1001, 1, 64).Frame().Data, LockfreeWhyWHY_MAX},
	} {
		p.feed("packet_ingress", c.frame)
		got := p.drain()
		switch {
		case c.why == LockfreeWhyWHY_MAX && len(got) != 0:
			t.Errorf("%s: copied: %+v", c.name, got[0].Head)
		case c.why == LockfreeWhyWHY_MAX:
		case len(got) != 1:
			t.Errorf("%s: %d records, want 1", c.name, len(got))
		case Why(got[0].Head.Class) != c.why || got[0].Head.Spi != 0 || got[0].Head.Flags&PacketFlagSeq != 0:
			t.Errorf("%s: %+v, want class %d and no SA", c.name, got[0].Head, c.why)
		}
	}
}

// What chance builds is copied if the second decoder finds it to be of IPsec and no fragment's rest, with
// the class, SPI and number that it finds, and no more bytes than there are.
func TestPacketSecondDecoder(t *testing.T) {
	p := loadTape(t, PacketConfig{})
	spec, err := LoadWire(true)
	if err != nil {
		t.Fatal(err)
	}
	names, err := EnumNames(spec, "why")
	if err != nil {
		t.Fatal(err)
	}
	copied := map[string]bool{"esp": true, "esp_udp": true, "ah": true, "bad_ah": true, "bad_udp": true, "esp_short": true, "natt_short": true}
	c := chance{rand.New(rand.NewPCG(20261127, 3))}
	met := counts{}
	for range 4000 {
		program, r := "packet_ingress", rules{natt: []uint16{4500}}
		if c.one(2) {
			program, r.l3 = "packet_egress_l3", true
		}
		frame := c.frame(r.l3)
		if len(frame) < 14+40 { // the kernel runs nothing shorter before TC
			continue
		}
		p.feed(program, frame)
		o := decode(frame, r)
		met[o.class]++
		got := p.drain()
		if !copied[o.class] {
			if len(got) != 0 {
				t.Fatalf("%s copied a packet of class %s: %+v\n% x", program, o.class, got[0].Head, frame)
			}
			continue
		}
		if len(got) != 1 || names[got[0].Head.Class] != o.class || got[0].Head.Spi != o.spi || uint32(got[0].Head.Seq) != o.seq ||
			len(got[0].Data) > len(frame) || int(got[0].Head.WireLen) != len(frame) {
			t.Fatalf("%s: %+v; the second decoder says %+v\n% x", program, got, o, frame)
		}
	}
	for class := range copied {
		if met[class] == 0 {
			t.Errorf("no packet of class %s: %v", class, met)
		}
	}
}
