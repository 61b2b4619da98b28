// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestInnerHandshake(t *testing.T) {
	for _, ends := range [][2]netip.AddrPort{{nearV4, farV4}, {nearV6, farV6}} {
		i := openInner(t)
		i.shake(ends[0], ends[1])
		f := i.only()
		near, far := f.End[0], f.End[1]
		if near.Scale != 7 || far.Scale != 9 || near.Window != 1000<<7 || far.Window != 0 || near.WindowMax != 1000<<7 {
			t.Errorf("scales %d and %d, windows %d and %d", near.Scale, far.Scale, near.Window, far.Window)
		}
		if near.Packets != 2 || far.Packets != 1 || near.Ahead.Samples != 1 || near.Ahead.MinNs != 1e6 || far.Ahead.MinNs != 1e6 {
			t.Errorf("packets %d and %d, %d samples, %d and %d ns", near.Packets, far.Packets, near.Ahead.Samples, near.Ahead.MinNs, far.Ahead.MinNs)
		}
		if near.Spi != 0xc0ffee02 || far.Spi != 0xc0ffee01 || near.Vantage != 2 || far.Vantage != 1 || f.Connections != 1 {
			t.Errorf("SAs %x and %x, vantages %d and %d, %d connections", near.Spi, far.Spi, near.Vantage, far.Vantage, f.Connections)
		}
		if diff := cmp.Diff(map[string]uint64{"tcp": 3, "opened": 1}, i.fates()); diff != "" {
			t.Errorf("fates (-want +got):\n%s", diff)
		}
	}
}

func TestInnerScale(t *testing.T) {
	for _, tc := range []struct {
		name         string
		first, reply []byte
		near, far    uint8
	}{
		{"neither", nil, nil, 0, 0},
		{"asked in vain", []byte{3, 3, 7, 0}, nil, 0, 0},
		{"behind timestamps", []byte{8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 2, 0, 0, 0}, []byte{1, 3, 3, 0}, 2, 0},
		{"last of a full header", append(make40(8, 34), 3, 3, 5, 1, 1, 0), []byte{3, 3, 1, 0}, 5, 1},
		{"too large", []byte{3, 3, 20, 0}, []byte{3, 3, 14, 0}, 14, 14},
		{"after the end of the list", []byte{0, 3, 3, 7}, []byte{3, 3, 1, 0}, 0xfe, 1},
		{"broken option", []byte{8, 1, 3, 3, 3, 3, 7, 0}, []byte{3, 3, 1, 0}, 0xfe, 1},
	} {
		i := openInner(t)
		i.see(tcp{from: nearV4, to: farV4, flags: syn, seq: 1, options: tc.first, out: true})
		i.see(tcp{from: farV4, to: nearV4, flags: syn | ack, seq: 9, ack: 2, options: tc.reply})
		if f := i.only(); f.End[0].Scale != tc.near || f.End[1].Scale != tc.far {
			t.Errorf("%s: scales %d and %d, want %d and %d", tc.name, f.End[0].Scale, f.End[1].Scale, tc.near, tc.far)
		}
	}
}

// make40 is one option that fills n bytes.
func make40(kind byte, n int) []byte {
	o := make([]byte, n)
	o[0], o[1] = kind, byte(n)
	return o
}

// A receiver that closes its window twice, is probed meanwhile, and is then closed for good.
func TestInnerZeroWindow(t *testing.T) {
	i := openInner(t)
	a, b := i.shake(nearV4, farV4)
	a.payload = 1000
	i.see(a)
	a.seq += 1000
	b.ack, b.window = a.seq, 0
	i.see(b) // begins
	start := i.now
	probe := a
	probe.seq, probe.payload = a.seq-1, 0
	i.after(300*time.Millisecond, probe)
	i.see(b) // still zero: the same episode
	i.after(700*time.Millisecond-time.Millisecond, b)
	b.window = 500
	i.see(b) // over after 1002 ms
	first := i.now - start
	i.see(a)
	a.seq += 1000
	b.ack, b.window = a.seq, 0
	i.see(b)
	i.after(2*time.Second, tcp{from: farV4, to: nearV4, flags: ack, seq: b.seq, ack: a.seq - 1000, window: 400}) // an old one: says nothing
	b.window = 10
	i.after(time.Second, b)
	b.window = 0
	i.see(b)
	i.after(time.Second, b)
	far, near := i.only().End[1], i.only().End[0]
	if far.ZeroEpisodes != 3 || far.ZeroPackets != 6 || time.Duration(far.ZeroLongestNs) != 3*time.Second ||
		time.Duration(far.ZeroNs) != 3*time.Second+first || far.ZeroSinceNs == 0 || far.WindowMin != 10<<9 {
		t.Errorf("%d episodes, %d packets, longest %s, total %s, open since %d, smallest window %d", far.ZeroEpisodes, far.ZeroPackets,
			time.Duration(far.ZeroLongestNs), time.Duration(far.ZeroNs), far.ZeroSinceNs, far.WindowMin)
	}
	if z := far.Zeros; time.Duration(z[0].StartNs) != start || time.Duration(z[0].LastedNs) != first || z[2].StartNs == 0 || z[2].LastedNs != 0 {
		t.Errorf("episodes %v, the first began at %d", z, start)
	}
	if near.Probes != 1 || near.Keepalives != 0 || near.Retransmissions != 0 || near.ZeroEpisodes != 0 {
		t.Errorf("%d probes, %d keepalives, %d retransmissions, %d episodes of the sender", near.Probes, near.Keepalives, near.Retransmissions, near.ZeroEpisodes)
	}
	reset := a
	reset.flags, reset.payload, reset.window = rst|ack, 0, 0
	i.see(reset)
	if far := i.only().End[1]; far.ZeroSinceNs != 0 || i.only().End[0].ZeroEpisodes != 0 {
		t.Error("a reset leaves the episode open, or counts as one")
	}
}

// SYN and RST with a window of zero advertise nothing; a keepalive is no probe.
func TestInnerNoZeroWindow(t *testing.T) {
	i := openInner(t)
	i.see(tcp{from: nearV4, to: farV4, flags: syn, seq: 1, out: true})
	i.see(tcp{from: farV4, to: nearV4, flags: rst | ack, ack: 2})
	a, b := i.shake(nearV4, farV4)
	keep := a
	keep.seq--
	i.see(keep)
	i.see(b)
	b.flags = rst
	b.window = 0
	i.see(b)
	f := i.only()
	if f.End[0].ZeroEpisodes+f.End[1].ZeroEpisodes != 0 || f.End[0].Keepalives != 1 || f.End[0].Probes != 0 || f.Connections != 2 {
		t.Errorf("episodes %d and %d, keepalives %d, probes %d, connections %d", f.End[0].ZeroEpisodes, f.End[1].ZeroEpisodes,
			f.End[0].Keepalives, f.End[0].Probes, f.Connections)
	}
}

// Repeated, overtaken and skipped segments are three things.
func TestInnerRetransmission(t *testing.T) {
	i := openInner(t)
	a, b := i.shake(nearV4, farV4)
	data := func(n uint32) tcp { s := a; s.seq += 1000 * n; s.payload = 1000; return s }
	dup := b
	for _, s := range []tcp{data(0), data(1), data(3), data(2)} { // 2 overtaken: nobody has asked for it
		i.see(s)
	}
	near := i.only().End[0]
	if near.Gaps != 1 || near.Reordered != 1 || near.Retransmissions != 0 {
		t.Errorf("overtaken: %d gaps, %d reordered, %d retransmissions", near.Gaps, near.Reordered, near.Retransmissions)
	}
	dup.ack = data(4).seq
	i.see(dup)
	i.see(data(5)) // 4 is lost before here
	i.see(data(6))
	if near = i.only().End[0]; near.Gaps != 2 || near.Skipped != 2 {
		t.Errorf("lost before: %d gaps, of %d segments", near.Gaps, near.Skipped)
	}
	dup.ack = data(4).seq
	i.see(dup)
	i.see(dup)
	i.see(data(4)) // repeated on request
	i.after(time.Second, data(6))
	long := data(7)
	long.payload, long.size = 3000, 1000 // BPF_PROG_TEST_RUN takes no more than a page
	i.see(long)
	i.after(time.Second, long)
	end := data(10)
	end.payload, end.flags = 0, fin|ack
	i.see(end)
	i.after(time.Second, end)
	near = i.only().End[0]
	if near.Gaps != 2 || near.Reordered != 1 || near.Retransmissions != 1+1+3+1 || near.Segments != 4+2+2+6 || near.SegmentMax != 1000 {
		t.Errorf("%d gaps, %d reordered, %d retransmissions of %d segments, largest %d", near.Gaps, near.Reordered, near.Retransmissions, near.Segments, near.SegmentMax)
	}
	if near.InFlightMax != 6001 {
		t.Errorf("%d bytes in flight, want 6001", near.InFlightMax)
	}
}

// What is lost in one go is one gap of as many segments.
func TestInnerSkipped(t *testing.T) {
	i := openInner(t)
	a, _ := i.shake(nearV4, farV4)
	data := func(at uint32) tcp { s := a; s.seq += at; s.payload = 1000; return s }
	i.see(data(0))
	i.see(data(4000))
	for n := uint32(1); n < 4; n++ {
		i.after(time.Second, data(1000*n))
	}
	i.see(data(7500)) // 2500 bytes: three segments, one of them short
	near := i.only().End[0]
	if near.Gaps != 2 || near.Skipped != 3+3 || near.Retransmissions != 3 || near.Reordered != 0 {
		t.Errorf("%d gaps of %d segments, %d retransmissions, %d reordered", near.Gaps, near.Skipped, near.Retransmissions, near.Reordered)
	}
}

// A sender that fills a small window, and how long each round takes.
func TestInnerWindowLimited(t *testing.T) {
	i := openInner(t)
	a, b := i.shake(nearV4, farV4)
	b.window = 4 // 2048 bytes
	i.see(b)
	for range 40 {
		for range 2 {
			a.payload = 1000
			i.see(a)
			a.seq += 1000
		}
		b.ack = a.seq
		i.after(20*time.Millisecond, b)
	}
	near, far := i.only().End[0], i.only().End[1]
	if near.Limited != 40 || near.Segments != 80 || near.InFlightMax != 2000 || far.WindowMax != 2048 {
		t.Errorf("limited %d of %d segments, %d in flight, window up to %d", near.Limited, near.Segments, near.InFlightMax, far.WindowMax)
	}
	// The handshake's sample is the one of 1 ms. All others left no room, and are not smoothed.
	if near.Ahead.Samples != 41 || time.Duration(near.Ahead.MaxNs) != 20*time.Millisecond || time.Duration(near.Ahead.SumNs) != 801*time.Millisecond ||
		time.Duration(near.Ahead.EarlyNs) != 621*time.Millisecond || near.Ahead.Steady != 1 || time.Duration(near.Ahead.SmoothNs) != time.Millisecond || near.Ahead.SmoothMaxNs != 0 {
		t.Errorf("%d samples, longest %s, sum %s, early %s, smoothed %s", near.Ahead.Samples, time.Duration(near.Ahead.MaxNs),
			time.Duration(near.Ahead.SumNs), time.Duration(near.Ahead.EarlyNs), time.Duration(near.Ahead.SmoothNs))
	}
}

// The highest smoothed round trip is that of many, not of the first.
func TestInnerSmoothed(t *testing.T) {
	i := openInner(t)
	a, b := i.shake(nearV4, farV4)
	i.see(b) // 256,000 bytes
	for n := range 30 {
		for range 3 {
			a.payload = 1000
			i.see(a)
			a.seq += 1000
		}
		b.ack = a.seq
		wait := 20 * time.Millisecond
		if n == 0 || n > 20 {
			wait = 400 * time.Millisecond
		}
		i.after(wait, b)
	}
	r := i.only().End[0].Ahead
	// The first sample alone was 400 ms; nine more at the end bring it three quarters of the way there again.
	if got := time.Duration(r.SmoothMaxNs); r.Steady != 31 || got < 280*time.Millisecond || got > 300*time.Millisecond || got != time.Duration(r.SmoothNs) {
		t.Errorf("%d samples, smoothed %s, at most %s", r.Steady, time.Duration(r.SmoothNs), got)
	}
}

// Near the reader little is in flight; timestamps tell what the sender knew, and how far away it is.
func TestInnerEcho(t *testing.T) {
	i := openInner(t)
	stamps := func(ts, echo uint32) []byte {
		o := append([]byte{1, 1, 8, 10}, make([]byte, 8)...)
		binary.BigEndian.PutUint32(o[4:], ts)
		binary.BigEndian.PutUint32(o[8:], echo)
		return o
	}
	a, b := i.shake(nearV4, farV4)
	b.window = 4 // 2048 bytes
	b.options = stamps(100, 1)
	i.see(b)
	for n := range uint32(10) {
		for k := range uint32(2) {
			d := a
			d.seq, d.payload, d.options = a.seq+1000*k, 1000, stamps(1, 100+10*n)
			wait := time.Millisecond
			if k == 0 {
				wait = 30 * time.Millisecond
			}
			i.after(wait, d)
		}
		a.seq += 2000
		b.ack, b.options = a.seq, stamps(110+10*n, 1)
		i.see(b)
	}
	near := i.only().End[0]
	if near.Back.Samples != 5 || time.Duration(near.Back.MinNs) != 30*time.Millisecond || time.Duration(near.Back.MaxNs) != 30*time.Millisecond || near.Back.SmoothMaxNs != 0 {
		t.Errorf("back: %+v", near.Back)
	}
	// Every second one, but the last: an echo is followed until a later one comes.
	if near.EdgeChecked != 4 || near.EdgeHit != near.EdgeChecked {
		t.Errorf("%d of %d echoes used the window up", near.EdgeHit, near.EdgeChecked)
	}
}

// What is no TCP segment, and what is decrypted and encrypted again.
func TestInnerFates(t *testing.T) {
	i := openInner(t)
	whole := tcp{from: nearV4, to: farV4, flags: ack, seq: 1, payload: 10}
	for _, change := range []func(*tcp){
		func(s *tcp) { s.proto = 17 },
		func(s *tcp) { s.fragment = 100 },
		func(s *tcp) { s.fragment = 0x2000 },
		func(s *tcp) { s.payload, s.short = 0, 10 },
		func(s *tcp) { s.flags = rst },
		func(s *tcp) { s.tos = 3 },
		func(s *tcp) { s.out = true },
		func(s *tcp) { s.from, s.to, s.proto = nearV6, farV6, 44 },
	} {
		s := whole
		change(&s)
		i.see(s)
	}
	want := map[string]uint64{"other": 3, "fragment": 1, "paged": 1, "tcp": 2, "opened": 1, "elsewhere": 1}
	if diff := cmp.Diff(want, i.fates()); diff != "" {
		t.Errorf("fates (-want +got):\n%s", diff)
	}
	if f := i.only(); f.End[0].Packets != 1 || f.End[0].Congested != 1 {
		t.Errorf("%d packets, %d marked", f.End[0].Packets, f.End[0].Congested)
	}
}
