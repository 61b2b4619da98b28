// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// tableOf is what the kernel's table held at a moment.
func tableOf(clock time.Duration, opened uint64, flows ...ledger.FlowReading) ledger.Snapshot {
	return ledger.Snapshot{
		At:    ledgertest.Start.Add(clock),
		Flows: &ledger.FlowTable{Flows: flows, Clock: clock, Fates: map[string]uint64{"opened": opened, "tcp": 10 * opened}},
	}
}

// connection number n, which began at a time and has sent so many segments.
func connection(n int, opened time.Duration, segments uint64) ledger.FlowReading {
	end := func(host byte) ledger.FlowEndReading {
		return ledger.FlowEndReading{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, host, byte(n >> 8), byte(n)}), 5000)}
	}
	f := ledger.FlowReading{Opened: opened, Connections: 1, Ends: [2]ledger.FlowEndReading{end(1), end(2)}}
	f.Ends[0].Packets, f.Ends[0].Segments, f.Ends[0].PayloadBytes = segments, segments, 1000*segments
	f.Ends[0].First, f.Ends[0].Last = opened, opened+time.Second
	return f
}

func observed(snaps ...ledger.Snapshot) *ledger.Flows {
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	for _, s := range snaps {
		l.Observe(s)
	}
	return l.Report().Flows
}

// What a flow did before the run is not the run's; an entry that took its place counts from zero.
func TestFlowCounts(t *testing.T) {
	first, later := connection(1, time.Second, 100), connection(1, time.Second, 130)
	again := connection(1, 9*time.Second, 7)
	for _, tc := range []struct {
		name string
		last []ledger.Snapshot
		want int64
	}{
		{"the same", []ledger.Snapshot{tableOf(20*time.Second, 1, later)}, 30},
		{"thrown out and opened again", []ledger.Snapshot{tableOf(20*time.Second, 1, later), tableOf(30*time.Second, 2, again)}, 37},
		{"gone from the table", []ledger.Snapshot{tableOf(20*time.Second, 1, later), tableOf(30*time.Second, 1)}, 30},
	} {
		f := observed(append([]ledger.Snapshot{tableOf(10*time.Second, 1, first)}, tc.last...)...)
		if len(f.List) != 1 || f.List[0].Ends[0].Segments != tc.want {
			t.Errorf("%s: %+v, want %d segments", tc.name, f.List, tc.want)
		}
		if f.Forgotten != 0 {
			t.Errorf("%s: %d flows are said to have escaped, and each was read", tc.name, f.Forgotten)
		}
	}
	if f := observed(tableOf(10*time.Second, 1, first), tableOf(20*time.Second, 1, first)); len(f.List) != 0 || f.Seen != 0 {
		t.Errorf("a silent flow is listed: %+v", f)
	}
	if f := observed(tableOf(time.Second, 0), ledger.Snapshot{}); f == nil || f.List == nil {
		t.Error("a table that held nothing is not the same as none")
	}
	if f := observed(ledger.Snapshot{}, ledger.Snapshot{}); f != nil {
		t.Errorf("flows that nobody observed: %+v", f)
	}
}

// An episode that is not over counts up to now, one that had begun before the run from its start on.
func TestFlowZeroWindow(t *testing.T) {
	at := func(clock time.Duration) ledger.Snapshot {
		f := connection(1, time.Second, uint64(clock/time.Second))
		e := &f.Ends[1]
		e.Packets = f.Ends[0].Packets
		e.ZeroEpisodes, e.ZeroTotal, e.ZeroLongest, e.ZeroSince = 2, 3*time.Second, 3*time.Second, 8*time.Second
		e.Zeros = []ledger.ZeroReading{{Start: 2 * time.Second, Lasted: 3 * time.Second}, {Start: 8 * time.Second}}
		return tableOf(clock, 1, f)
	}
	z := observed(at(10*time.Second), at(15*time.Second)).List[0].Ends[1].Zero
	if z.TotalUS != 5_000_000 || z.OpenUS != 7_000_000 || z.LongestUS != 7_000_000 || z.Episodes != 0 {
		t.Errorf("total %d, open %d, longest %d, %d episodes", z.TotalUS, z.OpenUS, z.LongestUS, z.Episodes)
	}
	if len(z.Newest) != 2 || z.Newest[1].LastedUS != 7_000_000 || !z.Newest[1].Start.Equal(ledgertest.Start.Add(8*time.Second)) {
		t.Errorf("episodes %+v", z.Newest)
	}
	z = observed(ledger.Snapshot{Flows: &ledger.FlowTable{}}, at(15*time.Second)).List[0].Ends[1].Zero
	if z.TotalUS != 10_000_000 || z.Episodes != 2 {
		t.Errorf("begun during the run: total %d, %d episodes", z.TotalUS, z.Episodes)
	}
}

// However many flows there are, the report lists those with trouble, and says how many were missed.
func TestFlowsListed(t *testing.T) {
	var flows []ledger.FlowReading
	for n := range 1000 {
		flows = append(flows, connection(n, time.Second, uint64(10+n)))
	}
	flows[3].Ends[0].Retransmissions = 5
	flows[4].Ends[1].ZeroEpisodes, flows[4].Ends[1].ZeroTotal = 1, time.Second
	flows[5].Ends[0].EdgeChecked, flows[5].Ends[0].EdgeHit = 9, 9
	f := observed(tableOf(0, 0), tableOf(20*time.Second, 1040, flows...))
	if f.Seen != 1040 || f.Forgotten != 40 || f.Packets["tcp"] != 10400 {
		t.Errorf("seen %d, forgotten %d, packets %v", f.Seen, f.Forgotten, f.Packets)
	}
	if len(f.List) != 3+ledger.FlowsListed {
		t.Errorf("%d flows are listed", len(f.List))
	}
	for i, n := range []int{4, 3, 5, 999} {
		want := fmt.Sprintf("10.1.%d.%d", n>>8, n&255)
		if got := f.List[i].Ends[0].Addr.String(); got != want {
			t.Errorf("place %d: %s, want %s", i, got, want)
		}
	}
}

// Flows that the ledger itself lets go of, because there were too many, were read, and none has escaped.
func TestFlowsLetGo(t *testing.T) {
	const each, looks = 6000, 3
	snaps := []ledger.Snapshot{tableOf(0, 0)}
	for look := range looks {
		at := time.Duration(look+1) * 10 * time.Second
		var flows []ledger.FlowReading
		for n := range each {
			flows = append(flows, connection(look*each+n, at, 1))
		}
		snaps = append(snaps, tableOf(at+time.Second, uint64((look+1)*each), flows...))
	}
	if f := observed(snaps...); f.Seen != looks*each || f.Forgotten != 0 {
		t.Errorf("seen %d, forgotten %d", f.Seen, f.Forgotten)
	}
}
