// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// lossy is traffic both ways in which every tenth packet is lost on the path, and every 25th comes twice.
func lossy(s *sim) {
	fates := func(i int) fate {
		switch {
		case i%10 == 5:
			return lost
		case i%25 == 7:
			return twice
		}
		return delivered
	}
	s.traffic(A, 3*time.Second, 10*time.Millisecond, 1000, seeded(), fates)
	s.traffic(B, 3*time.Second, 10*time.Millisecond, 1500, seeded(), fates)
}

// TestCaptures joins two captures, whose clocks and directions nobody knows, in both orders.
func TestCaptures(t *testing.T) {
	for _, offset := range []time.Duration{0, time.Hour, -3 * time.Second} {
		s := newSim()
		s.offset = offset
		lossy(s)
		for _, swapped := range []bool{false, true} {
			a, b := s.captured(t, A), s.captured(t, B)
			if swapped {
				a, b = b, a
			}
			d, err := New(a, b)
			if err != nil {
				t.Fatal(err)
			}
			for _, from := range []Label{A, B} {
				as := from
				if swapped {
					as = from.other()
				}
				sa := d.only(t, as)
				checkSums(t, &SA{Range: sa.Range, Sender: Sender{OnWire: sa.Sender.OnWire, Numbered: &sa.Range.Numbers, Unattributed: new(sa.Range.Numbers - *sa.Sender.OnWire), Offered: &sa.Range.Numbers},
					Path: sa.Path, Receiver: Receiver{Unique: sa.Receiver.Unique, Duplicates: sa.Receiver.Duplicates, Arrivals: sa.Receiver.Arrivals, Unattributed: sa.Receiver.Arrivals}})
				truth := s.truth(from, sa.Range.First, sa.Range.Last)
				if sa.SPI != map[Label]ledger.SPI{A: spiAtoB, B: spiBtoA}[from] || *sa.Path.Lost != truth[lost] || *sa.Receiver.Duplicates != truth[twice] ||
					*sa.Path.Unattributed != 0 || sa.Range.Numbers < 990 {
					t.Errorf("offset %s, swapped %v, from %s: %s lost %d of %+v, truth %v", offset, swapped, from, sa.SPI, *sa.Path.Lost, *sa.Range, truth)
				}
				// What no capture can know is not there.
				for name, bin := range map[string]*int64{"numbered": sa.Sender.Numbered, "lost in sender": sa.Sender.LostInHost, "decapsulated": sa.Receiver.Decapsulated,
					"delivered": sa.Receiver.Delivered, "xfrm": sa.Receiver.XfrmDropped, "sender's host": sa.Lost.SenderHost, "receiver's host": sa.Lost.ReceiverHost} {
					if bin != nil {
						t.Errorf("%s is %d, and nobody can know that", name, *bin)
					}
				}
			}
			if c := d.Clock; c.OffsetS == nil || c.AtoB+c.BtoA < 2000 {
				t.Errorf("clock %+v", c)
			}
		}
	}
}

// TestCaptureMissesPackets finds packets at the receiver that the sender's capture does not hold.
func TestCaptureMissesPackets(t *testing.T) {
	s := newSim()
	lossy(s)
	a, b := s.captured(t, A), s.captured(t, B)
	for _, track := range a.tracks {
		if track.key.SPI == spiAtoB {
			track.seen.sorted = slices.Delete(track.seen.sorted, 100, 104)
		}
	}
	d, err := New(a, b)
	if err != nil {
		t.Fatal(err)
	}
	sa := d.only(t, A)
	gone := int64(0) // of the four, those that arrived
	for seq := uint64(101); seq <= 104; seq++ {
		if s.truth(A, seq, seq)[lost] == 0 {
			gone++
		}
	}
	if *sa.Path.Unattributed != -gone || *sa.Path.Lost != s.truth(A, sa.Range.First, sa.Range.Last)[lost]-(4-gone) || *sa.Lost.Unattributed != -gone {
		t.Errorf("path %d lost, %d unattributed, want %d", *sa.Path.Lost, *sa.Path.Unattributed, -gone)
	}
	if d.ExitCode() != 1 {
		t.Error("exit code 0 for a sum that does not add up")
	}
}

// TestCaptureAndRecording takes a capture for either end.
func TestCaptureAndRecording(t *testing.T) {
	s := newSim()
	s.offset = 5 * time.Second
	lossy(s)
	hosts := s.run()
	for _, captured := range []Label{A, B} {
		sides := map[Label]*Side{captured: s.captured(t, captured), captured.other(): hosts[captured.other()].side(t, "")}
		d, err := New(sides[A], sides[B])
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []Label{A, B} {
			sa := d.only(t, from)
			if !sa.Joined {
				t.Fatalf("capture at %s, from %s: %s", captured, from, sa.Why)
			}
			truth := s.truth(from, sa.Range.First, sa.Range.Last)
			if *sa.Path.Lost != truth[lost] || sa.Range.Uncertainty != 0 || sa.Range.Numbers < 990 || *sa.Receiver.Duplicates != truth[twice] {
				t.Errorf("capture at %s, from %s: lost %d, truth %v, %+v", captured, from, *sa.Path.Lost, truth, *sa.Range)
			}
			if (sa.Sender.Numbered == nil) != (from == captured) || (sa.Receiver.Delivered == nil) != (from != captured) {
				t.Errorf("capture at %s, from %s: numbered %v, delivered %v", captured, from, sa.Sender.Numbered, sa.Receiver.Delivered)
			}
		}
		if o := d.Clock.OffsetS; o == nil || *o < 4.9 || *o > 5.1 {
			t.Errorf("clock %+v", d.Clock)
		}
	}
}

// TestNAT matches by SPI alone where the destination differs, and says so.
func TestNAT(t *testing.T) {
	s := newSim()
	lossy(s)
	hosts := s.run()
	translate := func(k *ledger.SAKey) {
		if k.SPI == spiAtoB {
			k.Dst = netip.MustParseAddr("10.0.0.9")
		}
	}
	for i, e := range hosts[B].events {
		if m, ok := e.(Mark); ok {
			translate(&m.Key)
			hosts[B].events[i] = m
		}
		if snap, ok := e.(ledger.Snapshot); ok {
			for j := range snap.Wire {
				translate(&snap.Wire[j].Key)
			}
			for j := range snap.SAD {
				translate(&snap.SAD[j].Key)
			}
			for j := range snap.Stack {
				translate(&snap.Stack[j].Key)
			}
		}
	}
	d, err := New(hosts[A].side(t, ""), hosts[B].side(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	sa := d.only(t, A)
	if sa.MatchedBy != bySPI || sa.ReceivedAt != netip.MustParseAddr("10.0.0.9") || *sa.Path.Lost != 100 {
		t.Errorf("%+v, lost %d", sa, *sa.Path.Lost)
	}
	if !strings.Contains(strings.Join(sa.Notes, "\n"), "NAT") || d.only(t, B).MatchedBy != byKey {
		t.Errorf("notes %q", sa.Notes)
	}
}

// TestRefusals says clearly what cannot be compared.
func TestRefusals(t *testing.T) {
	s := newSim()
	lossy(s)
	hosts := s.run()
	stranger := newSim()
	stranger.traffic(A, 3*time.Second, 10*time.Millisecond, 100, seeded(), always(delivered))
	other := stranger.run()[B]
	for i, e := range other.events {
		if snap, ok := e.(ledger.Snapshot); ok {
			for j := range snap.SAD {
				snap.SAD[j].Key.SPI += 0x100
			}
			for j := range snap.Wire {
				snap.Wire[j].Key.SPI += 0x100
			}
			other.events[i] = snap
		}
		if m, ok := e.(Mark); ok {
			m.Key.SPI += 0x100
			other.events[i] = m
		}
	}
	empty := &host{label: B, world: ledgertest.New()}
	empty.events = []any{ledger.Snapshot{At: ledgertest.Start}}
	for name, tt := range map[string]struct {
		a, b *Side
		want string
	}{
		"the same end twice": {hosts[A].side(t, ""), hosts[A].side(t, ""), "same end of the tunnel"},
		"a capture twice":    {s.captured(t, A), s.captured(t, A), "the same packets at the same times"},
		"strangers":          {hosts[A].side(t, ""), other.side(t, ""), "no SA in common: A holds 0xa2b00001, 0xb2a00001, B holds 0xa2b00101, 0xb2a00101"},
		"one without SAs":    {hosts[A].side(t, ""), empty.side(t, ""), "file B holds no ESP SA"},
		"both without":       {empty.side(t, ""), empty.side(t, ""), "neither file holds"},
	} {
		if _, err := New(tt.a, tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
}

// TestUnmatched lists what only one end has.
func TestUnmatched(t *testing.T) {
	s := newSim()
	lossy(s)
	hosts := s.run()
	third := hosts[A].world.Inbound(0x77, 32, false)
	third.Deliver(12)
	s.snapshot(hosts[A], 41*time.Second)
	d, err := New(hosts[A].side(t, ""), hosts[B].side(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	want := []Unmatched{{End: A, SPI: 0x77, Proto: ledger.ESP, Src: ledgertest.Here, Dst: ledgertest.Peer, Direction: ledger.In, Packets: 12}}
	if diff := cmp.Diff(want, d.Unmatched, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWrap joins numbers across the end of the 32 bits, where the ends began on either side of it.
func TestWrap(t *testing.T) {
	for a, want := range map[[2]uint64]uint64{
		{1<<32 + 50, 60}: 1 << 32, {1<<32 + 50, 1<<32 + 60}: 0, {40, 60}: 0, {1 << 33, 1 << 32}: 1 << 32, {1<<32 - 5, 1<<32 + 5}: 0,
	} {
		if got := nearestEpoch(a[0], a[1]); got != want {
			t.Errorf("%d and %d: %d apart, want %d", a[0], a[1], got, want)
		}
	}
	s := &Side{tracks: map[ledger.SAKey]*track{}}
	var got []uint64
	for _, seq := range []uint32{0xfffffffd, 0xffffffff, 0xfffffffe, 0, 2, 1} {
		if err := s.mark(Mark{Seq: seq}); err != nil {
			t.Fatal(err)
		}
	}
	for track := range maps.Values(s.tracks) {
		for _, m := range track.marks {
			got = append(got, m.seq)
		}
	}
	if diff := cmp.Diff([]uint64{0xfffffffd, 0xffffffff, 0xfffffffe, 1 << 32, 1<<32 + 2, 1<<32 + 1}, got); diff != "" {
		t.Error(diff)
	}
}
