// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func departures(fate Fate, seqs ...uint64) (out []Departure) {
	for _, seq := range seqs {
		out = append(out, Departure{Seq: seq, Fate: fate, IP: 100})
	}
	return out
}

func TestTruthWire(t *testing.T) {
	rows := []struct {
		name string
		out  []uint64
		want Wire
	}{
		{"nothing", nil, Wire{}},
		{"in order", []uint64{1, 2, 3}, Wire{Packets: 3, Bytes: 300, First: 1, Highest: 3, Unique: 3}},
		{"one lost", []uint64{1, 3}, Wire{Packets: 2, Bytes: 200, First: 1, Highest: 3, Unique: 2, Missing: 1}},
		{"one twice", []uint64{1, 2, 2, 3}, Wire{Packets: 4, Bytes: 400, First: 1, Highest: 3, Unique: 3, Duplicates: 1}},
		// RFC 4737 section 4.2.4: the extent reaches back to the earliest higher number.
		{"one late", []uint64{1, 3, 4, 5, 2}, Wire{Packets: 5, Bytes: 500, First: 1, Highest: 5, Unique: 5, Late: 1, Displacement: 3, Extent: 3}},
		{"late behind a loss", []uint64{1, 3, 6, 2}, Wire{Packets: 4, Bytes: 400, First: 1, Highest: 6, Unique: 4, Late: 1, Missing: 2, Displacement: 4, Extent: 2}},
		{"before the first", []uint64{5, 4, 6}, Wire{Packets: 3, Bytes: 300, First: 5, Highest: 6, Unique: 3, Late: 1, Displacement: 1, Extent: 1}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := Truth{Out: departures(Straight, row.out...)}.Wire()
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTruthLost(t *testing.T) {
	truth := Truth{In: []uint64{1, 2, 2, 3, 4}, Out: departures(Straight, 1, 4)}
	if got := truth.Lost(); got != 2 {
		t.Errorf("Lost = %d, want 2: a number is lost once however often it was sent", got)
	}
}

func TestTruthReplay(t *testing.T) {
	seqs := []uint64{1, 2, 10, 6, 7, 7, 6, 11}
	rows := []struct {
		name   string
		window uint32
		esn    bool
		want   Replay
	}{
		{"no window", 0, false, Replay{Accepted: 8}},
		{"just below the window", 4, false, Replay{Accepted: 5, Late: 2, Duplicate: 1}},
		{"just inside the window", 5, false, Replay{Accepted: 6, Duplicate: 2}},
		{"below the window under ESN", 4, true, Replay{Accepted: 5, MisEpoch: 2, Duplicate: 1}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := Truth{Out: departures(Straight, seqs...)}.Replay(0, row.window, row.esn)
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("a corrupted packet does not move the window", func(t *testing.T) {
		out := append(departures(Straight, 1), departures(Corrupted, 100)...)
		out = append(out, departures(Straight, 2, 100)...)
		got := Truth{Out: out}.Replay(0, 32, false)
		if diff := cmp.Diff(Replay{Accepted: 3, Integrity: 1}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestJoin(t *testing.T) {
	rows := []struct {
		last uint64
		seq  uint32
		want uint64
	}{
		{0, 1, 1},
		{0, 0xffffff01, 0xffffff01},
		{0xffffffff, 0, 1 << 32},
		{0xfffffff0, 5, 1<<32 + 5},
		{1<<32 + 5, 0xfffffff1, 0xfffffff1},
		{1<<32 + 5, 6, 1<<32 + 6},
		{100, 90, 90},
	}
	for _, row := range rows {
		if got := join(row.last, row.seq); got != row.want {
			t.Errorf("join(%#x, %#x) = %#x, want %#x", row.last, row.seq, got, row.want)
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	rows := []struct {
		rules []Rule
		want  string
	}{
		{[]Rule{{SPI: 1, Seqs: []uint32{1, 1}}}, "named twice"},
		{[]Rule{{SPI: 1, Seqs: []uint32{1}}, {SPI: 1, Seqs: []uint32{1}, Action: Corrupt}}, "named twice"},
		{[]Rule{{SPI: 1}}, "names no packet"},
		{[]Rule{{SPI: 1, Seqs: []uint32{1}, Action: Delay}}, "past no packet"},
		{[]Rule{{SPI: 1, Seqs: []uint32{1}, Direction: 2}}, "no such direction"},
		{[]Rule{{SPI: 1, Seqs: []uint32{1}, Action: 9}}, "no such action"},
		{[]Rule{{SPI: 1, Seqs: []uint32{1}, Action: Delay, After: -1}}, "negative"},
	}
	for _, row := range rows {
		if _, err := prepare(row.rules); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("prepare(%+v) = %v, want an error with %q", row.rules, err, row.want)
		}
	}
	two := []Rule{{SPI: 1, Seqs: []uint32{1}}, {SPI: 2, Seqs: []uint32{1}}, {SPI: 1, Direction: BtoA, Seqs: []uint32{1}}}
	if _, err := prepare(two); err != nil {
		t.Errorf("the same number of three SAs: %v", err)
	}
}
