// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

// An SA whose sender varies between 300 and 500 packets a second is limited to 200 for a while: only
// intervals that the limit covers whole count, so what passed has one rate.
func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	s := State{First: seqBias + 1, OriginalFirst: seqBias + 1, Highest: seqBias}
	step := func(passed, lost uint64) {
		now = now.Add(250 * time.Millisecond)
		s.Highest += passed + lost
		s.Holes += int64(lost)
		p.sample(now, &s)
	}
	step(1, 0) // the first sample has nothing before it
	for _, sent := range []uint64{30, 45, 40} {
		step(sent, 0)
	}
	step(60, 20) // the limit sets in
	for i := range uint64(8) {
		step(50, 25+25*(i%2*2))
	}
	step(70, 10) // and ends
	step(40, 0)
	step(0, 0) // silence is neither
	var got ledger.WireSA
	p.fill(&got)
	want := ledger.WireSA{
		LossyIntervals: 8, LossyRate: 8 * 200, LossyRateSquares: 8 * 200 * 200,
		OfferedRate: 4*300 + 4*500, OfferedRateSquares: 4*300*300 + 4*500*500, CleanRateMax: 180,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What goes out after a silence and is not answered is counted from its beginning; a keepalive is an
// answer.
func TestPeerTrack(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	type seen struct {
		Quiet, QuietBefore, OneWay int // seconds
		SinceIn, SinceQuiet        uint64
		In, Out                    uint64
	}
	var p peerTrack
	for _, step := range []struct {
		at      int
		in, out uint64
		beat    bool
		want    seen
	}{
		{0, 10, 5, false, seen{In: 10, Out: 5}},
		{1, 0, 5, false, seen{Quiet: 1, QuietBefore: 1, OneWay: 1, SinceIn: 5, SinceQuiet: 5, In: 10, Out: 10}},
		{2, 3, 5, false, seen{Quiet: 1, QuietBefore: 1, OneWay: 1, SinceIn: 0, SinceQuiet: 5, In: 13, Out: 15}},
		{3, 0, 1, false, seen{Quiet: 1, QuietBefore: 1, OneWay: 3, SinceIn: 1, SinceQuiet: 1, In: 13, Out: 16}},
		{43, 0, 7, false, seen{Quiet: 40, QuietBefore: 40, OneWay: 43, SinceIn: 8, SinceQuiet: 7, In: 13, Out: 23}},
		{50, 0, 7, false, seen{Quiet: 40, QuietBefore: 40, OneWay: 43, SinceIn: 15, SinceQuiet: 14, In: 13, Out: 30}},
		{51, 0, 0, true, seen{Quiet: 40, QuietBefore: 40, OneWay: 43, SinceIn: 0, SinceQuiet: 14, In: 13, Out: 30}},
		{60, 0, 1, false, seen{Quiet: 40, QuietBefore: 9, OneWay: 60, SinceIn: 1, SinceQuiet: 1, In: 13, Out: 31}},
	} {
		p.newIn, p.newOut, p.beatIn = step.in, step.out, step.beat
		p.settle(at(step.at))
		got := seen{Quiet: int(p.quiet.Seconds()), QuietBefore: int(p.quietBefore.Seconds()), SinceIn: p.sinceIn, SinceQuiet: p.sinceQuiet, In: p.in, Out: p.out}
		if !p.oneWay.IsZero() {
			got.OneWay = int(p.oneWay.Sub(start).Seconds())
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("at %d s (-want +got):\n%s", step.at, diff)
		}
	}
}
