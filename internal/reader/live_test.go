// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
)

// rig is the wire program, fed by BPF_PROG_TEST_RUN, with a clock that a test moves.
type rig struct {
	t    testing.TB
	coll *ebpf.Collection
	prog *ebpf.Program
	now  time.Time

	keeps bool // slots are set aside
}

func newRig(t testing.TB, slots uint32) *rig {
	t.Helper()
	// Kernels without atomics have the other build, which counts the same.
	spec, err := bpfobj.LoadWire(kernel.ProbeFeatures(btf.NewCache()).Atomics.OK())
	must(t, err)
	for name := range spec.Programs {
		if name != "xdp_ingress" {
			delete(spec.Programs, name)
		}
	}
	must(t, bpfobj.SetSAMax(spec, slots))
	coll, err := load(spec)
	// Only a missing privilege is a reason to skip: a program that the kernel refuses is a failure.
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(coll.Close)
	must(t, bpfobj.FillSlots(coll))
	return &rig{t: t, coll: coll, prog: coll.Programs["xdp_ingress"], now: time.Now()}
}

func load(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, err
	}
	return ebpf.NewCollection(spec)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *rig) reader(opts Options) *Reader {
	g.t.Helper()
	maps, err := WireMapsOf(g.coll.Maps)
	must(g.t, err)
	maps.Keeps = g.keeps
	opts.Now = func() time.Time { return g.now }
	r, err := New(Source{
		Wire: &maps, Events: g.coll.Maps["events"], Lost: g.coll.Maps["lost_counts"],
		Programs: map[string]*ebpf.Program{"xdp_ingress": g.prog},
	}, opts)
	must(g.t, err)
	return r
}

// send runs the program on one ESP packet of 100 bytes of IP.
func (g *rig) send(spi uint32, seqs ...uint32) {
	g.t.Helper()
	for _, seq := range seqs {
		must(g.t, run(g.prog, frame(spi, seq), 1))
	}
}

func run(prog *ebpf.Program, data []byte, repeat uint32) error {
	for {
		_, err := prog.Run(&ebpf.RunOptions{Data: data, Repeat: repeat})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func frame(spi, seq uint32) []byte {
	b := make([]byte, 114)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 50
	binary.BigEndian.PutUint16(ip[2:], 100)
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint32(ip[20:], spi)
	binary.BigEndian.PutUint32(ip[24:], seq)
	return b
}

// peer is who sends them.
var peer = netip.MustParseAddr("192.0.2.1")

func in(spi uint32) ledger.SAKey {
	return ledger.SAKey{Dst: netip.MustParseAddr("192.0.2.2"), SPI: ledger.SPI(spi), Proto: ledger.ESP, Direction: ledger.In}
}

func snapshot(t testing.TB, r *Reader, sad []ledger.SADEntry) ledger.Snapshot {
	t.Helper()
	snap, err := r.Snapshot(context.Background(), func(context.Context) (Dump, error) { return Dump{SAD: sad}, nil })
	must(t, err)
	for i := range snap.Wire {
		if i > 0 && compareKeys(snap.Wire[i-1].Key, snap.Wire[i].Key) >= 0 {
			t.Errorf("%v stands before %v", snap.Wire[i-1].Key, snap.Wire[i].Key)
		}
	}
	return snap
}

func find(t testing.TB, snap ledger.Snapshot, spi uint32) ledger.WireSA {
	t.Helper()
	for _, w := range snap.Wire {
		if w.Key == in(spi) {
			return w
		}
	}
	t.Fatalf("no SA 0x%x in %+v", spi, snap.Wire)
	return ledger.WireSA{}
}

// TestPendingBecomesLost moves the clock past the horizon.
func TestPendingBecomesLost(t *testing.T) {
	g := newRig(t, 16)
	r := g.reader(Options{})
	g.send(1, 1, 2, 3, 7, 8) // 4, 5, 6 are missing
	if w := find(t, snapshot(t, r, nil), 1); w.Missing != 3 || w.Pending != 3 {
		t.Errorf("at once: missing %d pending %d, want 3 and 3", w.Missing, w.Pending)
	}
	g.now = g.now.Add(600 * time.Millisecond)
	g.send(1, 11) // 9, 10
	must(t, r.Sample())
	g.now = g.now.Add(600 * time.Millisecond)
	if w := find(t, snapshot(t, r, nil), 1); w.Missing != 5 || w.Pending != 2 {
		t.Errorf("after 1.2 s: missing %d pending %d, want 5 and 2", w.Missing, w.Pending)
	}
	g.send(1, 5) // late after all: it was lost for the ledger and now is not
	g.now = g.now.Add(600 * time.Millisecond)
	if w := find(t, snapshot(t, r, nil), 1); w.Missing != 4 || w.Pending != 0 || w.Late != 1 {
		t.Errorf("after 1.8 s: %+v", w)
	}
}

// TestSnapshotBracketsTheDump has packets arrive while the SAs are dumped.
func TestSnapshotBracketsTheDump(t *testing.T) {
	g := newRig(t, 16)
	r := g.reader(Options{})
	g.send(1, 1, 2, 3)
	snap, err := r.Snapshot(context.Background(), func(context.Context) (Dump, error) {
		g.send(1, 4, 5)
		g.send(2, 1)
		return Dump{XfrmStat: map[string]uint64{"XfrmInNoStates": 4}}, nil
	})
	must(t, err)
	if w := find(t, snap, 1); w.PacketsBefore != 3 || w.Packets != 5 {
		t.Errorf("before %d after %d, want 3 and 5", w.PacketsBefore, w.Packets)
	}
	if w := find(t, snap, 2); w.PacketsBefore != 0 || w.Packets != 1 {
		t.Errorf("new SA: before %d after %d, want 0 and 1", w.PacketsBefore, w.Packets)
	}
	if snap.XfrmStat["XfrmInNoStates"] != 4 || snap.Stack != nil || snap.Unknown != nil || snap.Residue != nil || snap.SAD != nil {
		t.Errorf("snapshot: %+v", snap)
	}
	boom := errors.New("boom")
	if _, err := r.Snapshot(context.Background(), func(context.Context) (Dump, error) { return Dump{}, boom }); !errors.Is(err, boom) {
		t.Errorf("error of the dump: %v", err)
	}
}

// TestReclaim fills a table of 8 slots with more SAs than it holds.
func TestReclaim(t *testing.T) {
	g := newRig(t, 8)
	r := g.reader(Options{Idle: time.Minute, Grace: time.Second})
	for spi := uint32(1); spi <= 8; spi++ {
		g.send(spi, 1, 2, 3)
	}
	g.send(9, 1)
	known := []ledger.SADEntry{{Key: in(3)}}
	snap := snapshot(t, r, known)
	if len(snap.Wire) != 8 || snap.Self.Lost["sa_table_full"] != 1 || snap.Self.Evicted != 0 {
		t.Fatalf("full: %d SAs, %+v", len(snap.Wire), snap.Self)
	}
	// Silent for long enough; one of them speaks again just before.
	g.now = g.now.Add(2 * time.Minute)
	g.send(8, 4)
	snapshot(t, r, known) // takes idle ones out of the table
	g.send(1, 4)          // one of those is back while its slot still rests: there is no other
	g.now = g.now.Add(2 * time.Second)
	snap = snapshot(t, r, known) // folds them
	if snap.Self.Evicted == 0 {
		t.Fatalf("nothing was given up: %+v", snap.Self)
	}
	for spi := uint32(9); spi <= 11; spi++ {
		g.send(spi, 1)
	}
	g.send(1, 5, 6)
	snap = snapshot(t, r, known)
	for spi := uint32(1); spi <= 11; spi++ {
		want := uint64(3)
		switch {
		case spi == 8:
			want = 4
		case spi == 1:
			want = 5 // the one that came while the table was full is in its class only
		case spi > 8:
			want = 1
		}
		if w := find(t, snap, spi); w.Packets != want || w.Unique != want {
			t.Errorf("SA %d: %d packets, %d unique, want %d", spi, w.Packets, w.Unique, want)
		}
	}
	if got := snap.Self.Lost["sa_table_full"]; got != 2 {
		t.Errorf("table full %d times, want 2", got)
	}
	if got := snap.Packets.Classes[ledger.In]["esp"]; got != 32 {
		t.Errorf("%d packets in class esp, want 32", got)
	}
	// SAs that the kernel has or that spoke lately were kept in their slots.
	for _, spi := range []uint32{3, 8} {
		if _, folded := r.reap.folded[in(spi)]; folded {
			t.Errorf("SA %d was given up", spi)
		}
	}
}

// TestReclaimIsBounded keeps inventing SPIs.
func TestReclaimIsBounded(t *testing.T) {
	g := newRig(t, 8)
	r := g.reader(Options{Idle: time.Minute, Grace: time.Second})
	spi := uint32(0)
	for range 40 {
		for range 8 {
			spi++
			g.send(spi, 1)
		}
		snapshot(t, r, nil)
		g.now = g.now.Add(time.Minute)
		must(t, r.Reclaim(nil))
		g.now = g.now.Add(2 * time.Second)
		snapshot(t, r, nil)
	}
	snap := snapshot(t, r, nil)
	if n := len(r.reap.folded); n > foldedPerSlot*8 {
		t.Errorf("%d SAs are remembered, want at most %d", n, foldedPerSlot*8)
	}
	if len(r.reap.folded) != len(r.reap.order) {
		t.Errorf("%d folded, %d in order", len(r.reap.folded), len(r.reap.order))
	}
	if snap.Self.Evicted < 300 || snap.Packets.Classes[ledger.In]["esp"] != 320 {
		t.Errorf("evicted %d, packets %v", snap.Self.Evicted, snap.Packets)
	}
	if snap.Self.Lost["slot"] != 0 {
		t.Errorf("lost: %v", snap.Self.Lost)
	}
}

// TestPrune lets go of SAs that are over, and of those alone.
func TestPrune(t *testing.T) {
	g := newRig(t, 8)
	r := g.reader(Options{Idle: time.Minute, Grace: time.Second})
	known := []ledger.SADEntry{{Key: in(3)}}
	for spi := uint32(1); spi <= 4; spi++ {
		g.send(spi, 1, 2, 3)
	}
	snapshot(t, r, known)
	must(t, r.Reclaim(known)) // nothing is silent yet
	g.now = g.now.Add(10 * time.Minute)
	g.send(4, 4)
	snapshot(t, r, known)
	must(t, r.Prune(5*time.Minute))
	if n := len(snapshot(t, r, known).Wire); n != 4 {
		t.Errorf("%d SAs while the slots rest, want 4", n)
	}
	g.now = g.now.Add(2 * time.Second)
	snapshot(t, r, known) // puts them back
	var spis []ledger.SPI
	for _, w := range snapshot(t, r, known).Wire {
		spis = append(spis, w.Key.SPI)
	}
	if diff := cmp.Diff([]ledger.SPI{3, 4}, spis); diff != "" {
		t.Errorf("SAs after pruning (-want +got):\n%s", diff)
	}
	g.send(1, 7)
	if w := find(t, snapshot(t, r, known), 1); w.Packets != 1 || w.FirstSeq != 7 {
		t.Errorf("an SA that came back: %+v", w)
	}
	if len(r.reap.folded) != 0 || len(r.reap.order) != 0 {
		t.Errorf("%d SAs are still remembered", len(r.reap.folded))
	}
}

// TestExactOverCPUs counts 100,000 packets of one SA, run on two CPUs at once, and reads meanwhile:
// no reading may go back or run ahead.
func TestExactOverCPUs(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	g := newRig(t, 16)
	maps, err := WireMapsOf(g.coll.Maps)
	must(t, err)
	r, err := New(Source{Wire: &maps}, Options{})
	must(t, err)
	const each = 50_000
	const total = 1 + 2*each
	g.send(1, 1) // the first: whichever CPU begins, none of its numbers lies below it
	var wg sync.WaitGroup
	for cpu := range 2 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				t.Error(err)
			}
			for i := range uint32(each) {
				// Even numbers on one CPU, odd ones on the other.
				if err := run(g.prog, frame(1, 2+2*i+uint32(cpu)), 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var last uint64
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		case <-time.After(5 * time.Millisecond):
		}
		snap := snapshot(t, r, nil)
		if len(snap.Wire) == 0 {
			continue
		}
		w := snap.Wire[0]
		if w.Packets < last || w.Packets > total || w.PacketsBefore > w.Packets {
			t.Fatalf("packets %d after %d, before %d", w.Packets, last, w.PacketsBefore)
		}
		last = w.Packets
	}
	snap := snapshot(t, r, nil)
	w := find(t, snap, 1)
	// The CPUs may be thousands of numbers apart, beyond the window even: then packets are stale.
	if w.Packets != total || w.Bytes != total*100 || w.Unique+w.Duplicates+w.Stale != w.Packets || w.Duplicates != 0 {
		t.Errorf("at the end: %+v", w)
	}
	if w.Unique+w.Missing != w.Span && w.Stale == 0 {
		t.Errorf("unique %d + missing %d, span %d", w.Unique, w.Missing, w.Span)
	}
	if got := snap.Packets.Classes[ledger.In]["esp"]; got != total {
		t.Errorf("%d packets in class esp", got)
	}
}

// TestEvents reads what a stream left in the ring, flushed at the end so that nothing stays behind.
func TestEvents(t *testing.T) {
	g := newRig(t, 16)
	ev, err := OpenEvents(g.coll.Maps["events"], Translate{Interface: func(i uint32) string { return "if" + string(rune('0'+i%10)) }})
	must(t, err)
	defer ev.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var got []Event
	done := make(chan error, 1)
	var order []string
	go func() {
		done <- ev.Run(ctx, func() error { order = append(order, "detached"); return nil }, func(e Event) error {
			got = append(got, e)
			return nil
		})
	}()
	time.Sleep(50 * time.Millisecond) // let it block
	before := time.Now()
	g.send(5, 1, 2, 6, 4, 4)
	cancel()
	must(t, <-done)
	var kinds []string
	for _, e := range got {
		kinds = append(kinds, e.Kind)
		if e.SPI != 5 || e.Dst != netip.MustParseAddr("192.0.2.2") || e.Src != netip.MustParseAddr("192.0.2.1") || e.Direction != ledger.In {
			t.Errorf("event %+v", e)
		}
		if d := e.Time.Sub(before); d < -time.Second || d > 5*time.Second {
			t.Errorf("event at %v, sent at %v", e.Time, before)
		}
	}
	if s := strings.Join(kinds, " "); s != "sa_new gap late duplicate" {
		t.Fatalf("events: %s", s)
	}
	if e := got[1]; e.Seq != 6 || e.Top != 2 || e.Value != 3 {
		t.Errorf("gap: %+v", e)
	}
	if e := got[2]; e.Seq != 4 || e.Top != 6 || e.Value != 2 || e.Extent != 1 {
		t.Errorf("late: %+v", e)
	}
	if line := got[1].Line("now"); !strings.Contains(line, "gap       in  spi=0x00000005 192.0.2.1 > 192.0.2.2 seq=6 skipped=3 after=2") {
		t.Errorf("line: %s", line)
	}
	if len(order) != 1 {
		t.Errorf("detached %d times", len(order))
	}
}

// TestEventsStopOnError ends a run when its consumer cannot go on.
func TestEventsStopOnError(t *testing.T) {
	g := newRig(t, 16)
	ev, err := OpenEvents(g.coll.Maps["events"], Translate{})
	must(t, err)
	defer ev.Close()
	g.send(5, 1)
	full := errors.New("disk full")
	if err := ev.Run(context.Background(), nil, func(Event) error { return full }); !errors.Is(err, full) {
		t.Errorf("run: %v", err)
	}
}
