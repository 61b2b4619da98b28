// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/pcap"
	"xfrmscope/internal/reader"
)

var compareAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	// Running times differ from run to run.
	cmp.FilterPath(func(p cmp.Path) bool {
		name := p.Last().String()
		return name == ".NsPerRun" || name == ".Runs" || name == ".MapBytes" || name == ".CPUPercent"
	}, cmp.Ignore()),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// esp is a frame with one ESP packet of the given payload length.
func esp(v6 bool, spi, seq uint32, payload int) []byte {
	frame := make([]byte, 12, 80+payload)
	body := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, spi), seq)
	body = append(body, make([]byte, payload)...)
	if v6 {
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0)
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(body)))
		frame = append(frame, 50, 64)
		for _, last := range []byte{1, 2} {
			frame = append(frame, append([]byte{0x20, 1, 0xd, 0xb8}, append(make([]byte, 11), last)...)...)
		}
		return append(frame, body...)
	}
	frame = append(frame, 0x08, 0x00, 0x45, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(20+len(body)))
	frame = append(frame, 0, 0, 0, 0, 64, 50, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	return append(frame, body...)
}

// writePcap writes frames as a nanosecond pcap file, one a microsecond.
func writePcap(t testing.TB, link uint32, frames [][]byte) string {
	t.Helper()
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b23c4d)
	b = le.AppendUint16(le.AppendUint16(b, 2), 4)
	for _, v := range []uint32{0, 0, 65535, link} {
		b = le.AppendUint32(b, v)
	}
	for i, f := range frames {
		for _, v := range []uint32{1_700_000_000, uint32(i) * 1000, uint32(len(f)), uint32(len(f))} {
			b = le.AppendUint32(b, v)
		}
		b = append(b, f...)
	}
	path := filepath.Join(t.TempDir(), "test.pcap")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func only(t *testing.T, r *Result) ledger.WireSA {
	t.Helper()
	if r == nil {
		t.Fatal("no result")
	}
	if len(r.End.Wire) != 1 {
		t.Fatalf("%d SAs, want 1: %+v", len(r.End.Wire), r.End.Wire)
	}
	return r.End.Wire[0]
}

func TestRunCountsExactly(t *testing.T) {
	needBPF(t)
	var frames [][]byte
	var size uint64
	add := func(seq uint32) {
		frames = append(frames, esp(false, 0xc0ffee01, seq, 1400))
		size += 1428
	}
	for seq := uint32(1); seq <= 1000; seq++ {
		if seq%100 == 50 { // ten lost
			continue
		}
		if seq == 500 { // one late by three
			continue
		}
		add(seq)
		if seq == 503 {
			add(500)
		}
		if seq%200 == 0 { // five twice
			add(seq)
		}
	}
	var told []Progress
	r, err := Run(context.Background(), []string{writePcap(t, 1, frames)}, Options{Progress: func(p Progress) { told = append(told, p) }})
	if err != nil {
		t.Fatal(err)
	}
	sa := only(t, r)
	got := []uint64{sa.Packets, sa.Bytes, sa.FirstSeq, sa.HighestSeq, sa.Unique, sa.Duplicates, sa.Late, sa.Missing, sa.Pending, sa.ExtentMax}
	want := []uint64{995, size, 1, 1000, 990, 5, 1, 10, 0, 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packets, bytes, first, highest, unique, duplicates, late, missing, pending, extent (-want +got):\n%s", diff)
	}
	if sa.Key.SPI != 0xc0ffee01 || sa.Key.Direction != ledger.Unknown || sa.Key.Dst != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("key %+v", sa.Key)
	}
	if !r.Batched || r.Packets != 995 {
		t.Errorf("batched %v, packets %d", r.Batched, r.Packets)
	}
	if begin := time.Unix(1_700_000_000, 0); !r.Begin.At.Equal(begin) || !r.End.At.Equal(begin.Add(994*time.Microsecond)) {
		t.Errorf("from %v to %v", r.Begin.At, r.End.At)
	}
	if sa.Created != time.Duration(1_700_000_000_000_000_000) {
		t.Errorf("first packet's time %d", sa.Created)
	}
	if n := len(told); n == 0 || told[n-1].Packets != 995 || told[n-1].Bytes != told[n-1].Size || told[n-1].Size == 0 {
		t.Errorf("progress %+v", told)
	}
	if len(r.End.Self.Lost) != 0 || r.End.Self.Suppressed != 0 {
		t.Errorf("own losses %+v", r.End.Self)
	}
}

// TestDriverEqualsPacketByPacket feeds frames of all kinds and lengths both ways.
func TestDriverEqualsPacketByPacket(t *testing.T) {
	needBPF(t)
	rng := rand.New(rand.NewPCG(1, 2))
	seqs := [8]uint32{}
	var frames [][]byte
	for len(frames) < 20_000 {
		i := rng.IntN(len(seqs))
		switch kind := rng.IntN(100); {
		case kind < 70:
			seqs[i] += uint32(1 + rng.IntN(2)*rng.IntN(20))
			seq := seqs[i]
			if rng.IntN(10) == 0 {
				seq -= min(seq, uint32(rng.IntN(100)))
			}
			frames = append(frames, esp(i%2 == 0, 0x1000+uint32(i), seq, rng.IntN(300)))
		case kind < 80: // cut anywhere
			f := esp(i%2 == 0, 0x1000+uint32(i), seqs[i], 20)
			frames = append(frames, f[:rng.IntN(len(f))])
		case kind < 90: // flipped anywhere
			f := esp(i%2 == 0, 0x1000+uint32(i), seqs[i], 20)
			f[rng.IntN(54)] ^= byte(1 << rng.IntN(8))
			frames = append(frames, f)
		default: // noise
			f := make([]byte, rng.IntN(400))
			for j := range f {
				f[j] = byte(rng.Uint32())
			}
			frames = append(frames, f)
		}
	}
	path := writePcap(t, 1, frames)
	batch, single := runFiles(t, false, Options{}, path), runFiles(t, true, Options{}, path)
	if diff := cmp.Diff(single.End, batch.End, compareAddr); diff != "" {
		t.Errorf("(-packet by packet +driver):\n%s", diff)
	}
	if batch.Packets != 20_000 || len(batch.End.Wire) < 8 || batch.End.Packets.Classes[ledger.Unknown]["bad_eth"] == 0 {
		t.Errorf("%d packets, %d SAs, classes %v", batch.Packets, len(batch.End.Wire), sorted(batch))
	}
	if !batch.Batched || single.Batched {
		t.Errorf("driver used: %v and %v", batch.Batched, single.Batched)
	}
}

// TestSignals bombards the thread that feeds with signals: each packet still counts once. On kernels
// before 5.13 the calls fail with EINTR, after having run.
func TestSignals(t *testing.T) {
	needBPF(t)
	frames := make([][]byte, 50_000)
	for i := range frames {
		frames[i] = esp(false, 7, uint32(i+1), 40)
	}
	path := writePcap(t, 1, frames)
	w, err := open(Options{}, ways[:2])
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	var stop atomic.Bool
	var sent int
	done := make(chan error)
	go func() {
		for !stop.Load() {
			// SIGURG is what the runtime itself sends to preempt, so it is harmless.
			if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGURG); err != nil {
				done <- err
				return
			}
			sent++
			time.Sleep(20 * time.Microsecond)
		}
		done <- nil
	}()
	r, err := w.run(context.Background(), []string{path}, Options{})
	stop.Store(true)
	if serr := <-done; serr != nil {
		t.Fatal(serr)
	}
	if err != nil {
		t.Fatal(err)
	}
	if sa := only(t, r); sa.Packets != 50_000 || sa.Unique != 50_000 || sa.Duplicates != 0 || sent == 0 {
		t.Errorf("packets %d unique %d duplicates %d after %d signals", sa.Packets, sa.Unique, sa.Duplicates, sent)
	}
}

func TestTableFull(t *testing.T) {
	needBPF(t)
	var frames [][]byte
	for spi := range uint32(20) {
		for seq := range uint32(5) {
			frames = append(frames, esp(false, 100+spi, seq+1, 10))
		}
	}
	r := runFiles(t, false, Options{SATableSize: 8}, writePcap(t, 1, frames))
	if len(r.End.Wire) != 8 || r.End.Self.Lost["sa_table_full"] != 60 || r.End.Packets.Classes[ledger.Unknown]["esp"] != 100 {
		t.Errorf("%d SAs, lost %v, classes %v; want 8 SAs, 60 packets of others, 100 in all", len(r.End.Wire), r.End.Self.Lost, sorted(r))
	}
}

func TestDamageGivesPartialResult(t *testing.T) {
	needBPF(t)
	frames := [][]byte{esp(false, 9, 1, 10), esp(false, 9, 2, 10), esp(false, 9, 3, 10)}
	whole := writePcap(t, 1, frames)
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(cut, b[:len(b)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	// The damaged file is reported, and the one after it is read all the same.
	r, err := Run(context.Background(), []string{cut, whole, filepath.Join(t.TempDir(), "absent.pcap")}, Options{})
	var damage *pcap.DamageError
	if !errors.As(err, &damage) || damage.Packets != 2 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	sa := only(t, r)
	if r.Packets != 5 || sa.Packets != 5 || sa.Unique != 3 || sa.Duplicates != 2 || len(r.Files) != 3 || r.Files[0].Packets != 2 {
		t.Errorf("result %+v, SA %+v", r.Files, sa)
	}
}

func TestCancel(t *testing.T) {
	needBPF(t)
	frames := make([][]byte, 30_000)
	for i := range frames {
		frames[i] = esp(false, 7, uint32(i+1), 40)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := Run(ctx, []string{writePcap(t, 1, frames)}, Options{})
	if !errors.Is(err, context.Canceled) || r == nil || r.Packets != 0 {
		t.Fatalf("result %+v, error %v", r, err)
	}
}

func TestFurtherPortsAndRawIP(t *testing.T) {
	needBPF(t)
	inner := esp(false, 11, 1, 20)[34:]
	udp := append([]byte{0x12, 0x34, 0x27, 0x10, 0, byte(8 + len(inner)), 0, 0}, inner...) // to port 10000
	ip := append(bytes.Clone(esp(false, 0, 0, 0)[14:34]), udp...)
	ip[3], ip[9] = byte(len(ip)), 17
	path := writePcap(t, 101, [][]byte{ip})
	if r := runFiles(t, false, Options{}, path); len(r.End.Wire) != 0 {
		t.Errorf("port 10000 taken for ESP: %+v", r.End.Wire)
	}
	sa := only(t, runFiles(t, false, Options{NATTPorts: []uint16{10000}}, path))
	if sa.Encap != ledger.EncapUDP || sa.SrcPort != 0x1234 || sa.DstPort != 10000 || sa.Key.SPI != 11 {
		t.Errorf("SA %+v", sa)
	}
	if _, err := Run(context.Background(), nil, Options{NATTPorts: make([]uint16, 8)}); err == nil {
		t.Error("eight further ports accepted")
	}
}

// ikeFrame is an IKE message with this ID.
func ikeFrame(id uint32) []byte {
	frame := append(make([]byte, 12, 80), 0x08, 0x00, 0x45, 0, 0, 20+8+28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	frame = append(frame, 1, 244, 1, 244, 0, 8+28, 0, 0) // 500 to 500
	frame = append(frame, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9, 46, 0x20, 37, 8)
	return append(binary.BigEndian.AppendUint32(frame, id), 0, 0, 0, 28)
}

// TestIKE wants every IKE header of a capture, in order and with the capture's time, however many there are.
func TestIKE(t *testing.T) {
	needBPF(t)
	const headers = 5000
	var frames [][]byte
	for i := range uint32(headers) {
		frames = append(frames, ikeFrame(i), esp(false, 7, i+1, 40))
	}
	path := writePcap(t, 1, frames)
	var ids []uint32
	var last reader.Event
	res, err := Run(context.Background(), []string{path}, Options{IKE: func(e reader.Event) error {
		if e.IKE == nil || e.IKE.Initiator != 0x0102030405060708 || e.IKE.Responder != 9 || e.IKE.Exchange != 37 {
			return fmt.Errorf("header %d: %+v", len(ids), e)
		}
		ids, last = append(ids, e.IKE.MessageID), e
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) != headers {
		t.Fatalf("%d headers, want %d", len(ids), headers)
	}
	for i, id := range ids {
		if id != uint32(i) {
			t.Fatalf("header %d has message ID %d", i, id)
		}
	}
	// The last header is the last but one frame, and frames are a microsecond apart.
	if want := res.Files[0].Last.Add(-time.Microsecond); !last.Time.Equal(want) {
		t.Errorf("last header at %s, want %s", last.Time, want)
	}
	if lost := res.End.Self.Lost; len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
	stop := errors.New("enough")
	res, err = Run(context.Background(), []string{path}, Options{IKE: func(reader.Event) error { return stop }})
	if !errors.Is(err, stop) {
		t.Errorf("reading goes on after an error: %v", err)
	}
	// Those that were read but did not run are no part of it.
	var classed uint64
	for _, n := range res.End.Packets.Classes[ledger.Unknown] {
		classed += n
	}
	if classed == 0 || classed >= 2*headers || res.Packets != classed {
		t.Errorf("%d packets, of which %d were counted", res.Packets, classed)
	}
}

// natt is ESP in UDP over IPv4 from this port, with this traffic class.
func natt(sport uint16, tos byte, spi, seq uint32) []byte {
	frame := append(make([]byte, 12, 80), 0x08, 0x00, 0x45, tos, 0, 20+8+40, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	frame = binary.BigEndian.AppendUint16(frame, sport)
	frame = append(frame, 0x11, 0x94, 0, 8+40, 0, 0) // to 4500
	frame = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(frame, spi), seq)
	return append(frame, make([]byte, 32)...)
}

// TestPeer wants a capture to tell what a live interface does of the peer: where its packets come from and
// since when, what routers marked, keepalives with their intervals, and that its numbers began anew.
func TestPeer(t *testing.T) {
	needBPF(t)
	var frames [][]byte
	for seq := range uint32(200) { // the port changes with number 101, every tenth is marked
		sport, tos := uint16(60000), byte(0xb8)
		if seq >= 100 {
			sport = 61000
		}
		if seq%10 == 9 {
			tos |= 3
		}
		frames = append(frames, natt(sport, tos, 7, 20001+seq))
	}
	keepalive := natt(61000, 0, 0, 0)[:14+20+8+1]
	keepalive[14+3], keepalive[14+20+5], keepalive[14+20+8] = 20+8+1, 8+1, 0xff
	for range 3 {
		frames = append(frames, keepalive)
	}
	for seq := range uint32(50) {
		frames = append(frames, natt(61000, 0, 7, 1+seq))
	}
	res, err := Run(context.Background(), []string{writePcap(t, 1, frames)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := func(frame int) time.Duration { // frames are a microsecond apart
		return time.Duration(res.Files[0].First.UnixNano()) + time.Duration(frame)*time.Microsecond
	}
	sa := only(t, res)
	got := ledger.WireSA{
		SrcPort: sa.SrcPort, OldSrcPort: sa.OldSrcPort, Rebinds: sa.Rebinds, RebindAt: sa.RebindAt, CE: sa.CE, DSCPs: sa.DSCPs,
		Restarts: sa.Restarts, RestartAt: sa.RestartAt, LastSeen: sa.LastSeen, LargestBytes: sa.LargestBytes, Unique: sa.Unique,
	}
	want := ledger.WireSA{
		SrcPort: 61000, OldSrcPort: 60000, Rebinds: 1, RebindAt: at(100), CE: 20, DSCPs: 1<<46 | 1,
		Restarts: 1, RestartAt: at(203 + 7), LastSeen: at(252), LargestBytes: 68, Unique: 250,
	}
	if diff := cmp.Diff(want, got, compareAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(res.End.NAT.Keepalives); n != 1 {
		t.Fatalf("%d bindings with keepalives, want one", n)
	}
	k := res.End.NAT.Keepalives[0]
	if k.Packets != 3 || k.First != at(200) || k.Last != at(202) || k.IntervalMin != time.Microsecond || k.IntervalMax != time.Microsecond || k.Src.Port() != 61000 {
		t.Errorf("keepalives %+v", k)
	}
}
