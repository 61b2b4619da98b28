// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/private"
)

var everywhere = map[bpfobj.PacketPoint]bool{bpfobj.PacketWireIn: true, bpfobj.PacketWireOut: true, bpfobj.PacketDecrypted: true,
	bpfobj.PacketPlain: true, bpfobj.PacketDrop: true}

// rig is a recorder that is fed records without a kernel.
type rig struct {
	*Recorder
	t   *testing.T
	dir string
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	dir := t.TempDir()
	if o.Path == "" {
		o.Path = filepath.Join(dir, "x.pcapng")
	}
	r, err := Open(Source{Points: everywhere, Devices: []Device{{Index: 2, Name: "eth0", Ethernet: true}},
		Causes: []string{"none", "replay_duplicate"}, Location: func(uint64) string { return "xfrm_input+0x1" }}, o)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{r, t, dir}
}

// feed hands over one record as the ring holds it.
func (r *rig) feed(h bpfobj.PacketHead, data []byte) {
	r.t.Helper()
	h.CapLen, h.WireLen = uint32(len(data)), max(h.WireLen, uint32(len(data)))
	raw := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&h)), headSize)...)
	if err := r.take(append(raw, data...)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wire(at time.Time, seq uint64, order bpfobj.PacketOrder) {
	r.t.Helper()
	r.feed(bpfobj.PacketHead{TimeNs: uint64(at.Sub(r.wallAtZero)), Point: bpfobj.PacketWireIn, Ifindex: 2, Spi: 0x1001, Proto: 50,
		Seq: seq, Flags: bpfobj.PacketFlagSeq, Order: order, Dst: [16]byte{10: 0xff, 0xff, 192, 0, 2, 2}}, make([]byte, 58))
}

// count reads a file and gives its packets' comments.
func comments(t *testing.T, b []byte) (out []string, section string) {
	t.Helper()
	rd, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for {
		_, _, o, err := rd.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return out, rd.SectionInfo().Comment
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Join(o.Comments, "|"))
	}
}

// Packets that came in another order than that of their times are put right.
func TestOrderOfTime(t *testing.T) {
	r := newRig(t, Options{})
	now := time.Now()
	r.wire(now.Add(2*time.Millisecond), 2, bpfobj.OrderNext)
	r.wire(now.Add(time.Millisecond), 1, bpfobj.OrderFirst)
	r.SetSAs([]ledger.SADEntry{{Key: r.held[0].key, ReqID: 42}}, []ledger.SAName{{Key: r.held[0].key, Connection: "gw", Child: "net"}}, time.Now())
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(r.opts.Path)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := comments(t, b)
	if len(got) != 2 || !strings.Contains(got[0], "seq 1;") || !strings.Contains(got[1], "seq 2; in order") {
		t.Errorf("comments %q", got)
	}
	if !strings.Contains(got[0], "reqid 42 (gw/net)") {
		t.Errorf("no names in %q", got[0])
	}
	if info, err := os.Stat(r.opts.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: others may read it", info.Mode(), err)
	}
}

// What is too old, or too much, makes room; a trigger writes what is left, once.
func TestLast(t *testing.T) {
	var written []File
	r := newRig(t, Options{Last: 10 * time.Second, OnLate: true, MemoryBytes: 1 << 16, Wrote: func(f File) { written = append(written, f) }})
	start := time.Now()
	for i := range uint64(20) {
		r.wire(start.Add(time.Duration(i)*time.Second), i, bpfobj.OrderNext)
	}
	now := start.Add(20 * time.Second)
	if err := r.advance(now, false); err != nil {
		t.Fatal(err)
	}
	if n := len(r.memory); n != 10 {
		t.Errorf("%d packets are kept of 20 seconds, want those of the last 10", n)
	}
	r.wire(now, 3, bpfobj.OrderLate)
	if err := r.advance(now.Add(r.opts.Hold/2), false); err != nil || len(written) != 0 {
		t.Fatalf("written before the end is known: %v, %v", written, err)
	}
	if err := r.advance(now.Add(2*r.opts.Hold), false); err != nil {
		t.Fatal(err)
	}
	if len(written) != 1 || written[0].Packets != 11 || written[0].Trigger != "late" {
		t.Fatalf("written: %+v", written)
	}
	b, err := os.ReadFile(written[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	if got, section := comments(t, b); len(got) != 11 || !strings.Contains(section, "because of: late") {
		t.Errorf("%d packets, section %q", len(got), section)
	}
	// More than fits: the oldest go, and are counted.
	for i := range uint64(1000) {
		r.wire(now.Add(3*time.Second), 100+i, bpfobj.OrderNext)
	}
	if err := r.advance(now.Add(5*time.Second), false); err != nil {
		t.Fatal(err)
	}
	if r.memBytes > 1<<16 || r.evicted == 0 || int(r.evicted)+len(r.memory) != 1000 {
		t.Errorf("%d bytes held, %d packets, %d evicted", r.memBytes, len(r.memory), r.evicted)
	}
	if err := r.finish(); err != nil || len(written) != 1 {
		t.Errorf("without a trigger the end writes nothing: %v, %v", written, err)
	}
}

// TestMemoryIsBounded: what makes room for others is let go, and not kept for what might follow it: by more packets than
// fit into the memory, and by a flood within the time that they are held for.
func TestMemoryIsBounded(t *testing.T) {
	const room = 1 << 16
	for name, gap := range map[string]time.Duration{"little by little": 10 * time.Millisecond, "a flood": time.Microsecond} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{Last: time.Hour, MemoryBytes: room})
			at := time.Now()
			for i := range uint64(5000) {
				r.wire(at, i, bpfobj.OrderNext)
				if at = at.Add(gap); i%10 == 0 {
					if err := r.advance(at, false); err != nil {
						t.Fatal(err)
					}
				}
			}
			size := 0
			for _, list := range r.chains.byKey {
				for _, ch := range list {
					size += ch.outer.size()
				}
			}
			// Beside what is in memory, what is held, which has as much room of its own.
			if size > 2*room {
				t.Errorf("packets of %d bytes are kept, %d are allowed", size, 2*room)
			}
			if r.evicted == 0 {
				t.Error("nothing had to make room: the test tests nothing")
			}
		})
	}
}

// A drop's cause and its place are told, with the packet before it; what the kernel was done with is left out.
func TestDrop(t *testing.T) {
	var out bytes.Buffer
	r := newRig(t, Options{Path: "-", Stdout: &out})
	now := time.Now()
	r.wire(now, 7, bpfobj.OrderDuplicate)
	h := bpfobj.PacketHead{TimeNs: uint64(now.Sub(r.wallAtZero)) + 1000, Point: bpfobj.PacketDrop, Spi: 0x1001, Proto: 50, Seq: 7,
		Flags: bpfobj.PacketFlagSeq | bpfobj.PacketFlagCause, Cause: 1, Dst: [16]byte{10: 0xff, 0xff, 192, 0, 2, 2}, Location: 1}
	r.feed(h, make([]byte, 44))
	r.source.Location = func(uint64) string { return "tcp_v4_rcv+0x1" }
	h.Flags = 0
	r.feed(h, make([]byte, 44))
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
	got, _ := comments(t, out.Bytes())
	if len(got) != 2 || !strings.Contains(got[0], "dropped: xfrm, replay_duplicate at xfrm_input+0x1; drop: packet id 1") ||
		!strings.HasSuffix(got[1], "outer: packet 1") {
		t.Errorf("comments %q", got)
	}
	if s := r.Stats(); s.Suppressed != 1 {
		t.Errorf("%d frees that are no losses, want 1", s.Suppressed)
	}
}

// Records of another build, and records that lie about their length, end the capture with an error.
func TestHostileRecords(t *testing.T) {
	r := newRig(t, Options{})
	if err := r.take(make([]byte, headSize-1)); err == nil {
		t.Error("a record that is too short is taken")
	}
	raw := make([]byte, headSize)
	binary.NativeEndian.PutUint32(raw[unsafe.Offsetof(bpfobj.PacketHead{}.CapLen):], 1)
	if err := r.take(raw); err == nil {
		t.Error("a record without the bytes that it announces is taken")
	}
	// Bytes that are no packet at all.
	for n := range 64 {
		b := bytes.Repeat([]byte{0x4f}, n)
		r.feed(bpfobj.PacketHead{Point: bpfobj.PacketDrop, Spi: 1, Inner: 6}, b)
		b = bytes.Repeat([]byte{0x60}, n)
		r.feed(bpfobj.PacketHead{Point: bpfobj.PacketDecrypted, Spi: 1, Inner: 6}, b)
	}
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
}

// A decrypted packet of transport mode gets the protocol and length that its header will have.
func TestMend(t *testing.T) {
	p := &packet{data: []byte{0x45, 0, 1, 0, 0, 0, 0, 0, 64, 50, 0xab, 0xcd, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0}}
	p.head.Point, p.head.Inner, p.head.WireLen = bpfobj.PacketDecrypted, 17, 228
	p.mend()
	if p.data[9] != 17 || binary.BigEndian.Uint16(p.data[2:]) != 228 || checksum(p.data[:20]) != 0 {
		t.Errorf("header % x", p.data[:20])
	}
	// ESP in UDP, whose UDP header was taken off the length of IP (net/ipv4/xfrm4_input.c).
	p = &packet{data: append([]byte{0x45, 0, 0, 92, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, 0x11, 0x94, 0x11, 0x94, 0, 80, 0, 0)}
	p.head.Point = bpfobj.PacketDrop
	p.mend()
	if binary.BigEndian.Uint16(p.data[2:]) != 100 || checksum(p.data[:20]) != 0 {
		t.Errorf("header % x", p.data[:20])
	}
}

// TestForgetsSAs lets an SA go, which stays known while packets of it may be written, and not for ever.
func TestForgetsSAs(t *testing.T) {
	r := newRig(t, Options{Last: 30 * time.Second, After: time.Second})
	gone, stays := ledger.SAKey{SPI: 1}, ledger.SAKey{SPI: 2}
	at := time.Now()
	r.SetSAs([]ledger.SADEntry{{Key: gone, ReqID: 1}, {Key: stays, ReqID: 2}}, nil, at)
	for i, want := range []int{2, 1} {
		r.SetSAs([]ledger.SADEntry{{Key: stays, ReqID: 2}}, nil, at.Add([]time.Duration{30 * time.Second, 2 * time.Minute}[i]))
		if _, known := r.sas[stays]; !known || len(r.sas) != want {
			t.Errorf("%d are known, want %d: %v", len(r.sas), want, r.sas)
		}
	}
}

// TestFullDisk triggers while nothing can be written. The run goes on, nothing is left lying about, and what was
// kept is written by the next trigger.
func TestFullDisk(t *testing.T) {
	var failed []error
	r := newRig(t, Options{Last: time.Minute, Failed: func(err error) { failed = append(failed, err) }})
	at := time.Now()
	r.wire(at, 1, bpfobj.OrderNext)
	if err := os.Symlink("/dev/full", r.out.opts.name(1)); err != nil {
		t.Fatal(err)
	}
	r.Trigger("one")
	if err := r.advance(at.Add(time.Second), true); err != nil {
		t.Fatalf("the run ends: %v", err)
	}
	if len(failed) != 1 || !errors.Is(failed[0], unix.ENOSPC) {
		t.Fatalf("told: %v, want one error of a full disk", failed)
	}
	if left, err := filepath.Glob(filepath.Join(r.dir, "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if s := r.Stats(); len(s.Files) != 0 || s.Interfaces[0].Written != 0 {
		t.Errorf("after a failure: %+v", s)
	}
	r.wire(at.Add(2*time.Second), 2, bpfobj.OrderNext)
	r.Trigger("two")
	if err := r.advance(at.Add(3*time.Second), true); err != nil {
		t.Fatal(err)
	}
	s := r.Stats()
	if len(failed) != 1 || len(s.Files) != 1 || s.Files[0].Packets != 2 || s.Files[0].Trigger != "two" || s.Interfaces[0].Written != 2 {
		t.Errorf("after the next trigger: %+v, errors %v", s, failed)
	}
}

// TestFileIsPrivate: a file that others could read is made private and emptied, and a link leads nowhere.
func TestFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "wide.pcapng")
	if err := os.WriteFile(path, bytes.Repeat([]byte("old"), 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.pcapng")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	one := interfaces(&Source{Points: everywhere}, &Options{})
	out := &output{opts: &Options{Path: link}, ifs: one}
	if err := out.open(time.Now(), "", nil); !errors.Is(err, private.ErrLink) {
		t.Errorf("a link: %v", err)
	}
	out = &output{opts: &Options{Path: path}, ifs: one}
	if err := out.open(time.Now(), "", nil); err != nil {
		t.Fatal(err)
	}
	if err := out.abandon(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Contains(text, []byte("old")) {
		t.Errorf("what was there is in the capture: %d bytes, %v", len(text), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestEndlessRotation: a capture that goes on without end tells of its newest files and counts the others.
func TestEndlessRotation(t *testing.T) {
	r := newRig(t, Options{Rotate: time.Second, Files: 3})
	const all = listed + 7
	for n := 1; n < all; n++ {
		now := time.Now()
		if err := errors.Join(r.out.close(now, r.counts()), r.out.open(now, "", r.counts())); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
	s := r.Stats()
	if len(s.Files) != listed || s.Ended != all || s.Files[listed-1].Name != r.opts.name(all) || s.Files[0].Name != r.opts.name(all-listed+1) {
		t.Errorf("%d files are listed, from %s to %s, of %d; want %d of %d", len(s.Files), s.Files[0].Name, s.Files[len(s.Files)-1].Name, s.Ended, listed, all)
	}
	if there, err := filepath.Glob(filepath.Join(r.dir, "*.pcapng")); err != nil || len(there) != 3 {
		t.Errorf("%d files are there, want 3 (%v)", len(there), err)
	}
}
