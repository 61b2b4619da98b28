// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// TestPMTUDeltas: what happened before the run is not in the report, and what goes on is counted from
// there.
func TestPMTUDeltas(t *testing.T) {
	w := ledgertest.New()
	w.WatchPMTU()
	sa := w.Outbound(0xc0ffee02)
	sa.TooBig("10.2.0.1", "10.1.0.1", 6, 1500, 1446, 10, 9, 2)
	sa.Told(1400, 3)
	r := w.Run(func() {
		sa.TooBig("10.2.0.1", "10.1.0.1", 6, 1500, 1446, 4, 1, 1)
		sa.Cut(5, 1556, 1500)
	})
	if diff := cmp.Diff(map[string]int64{"tell_sender": 4, "fragmented": 5}, r.PMTU.Totals); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int64{"Icmp.OutDestUnreachs": 1, "Ip.FragCreates": 10}, r.PMTU.Counters); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if len(r.PMTU.Events) != 2 {
		t.Fatalf("%d events, want 2: %+v", len(r.PMTU.Events), r.PMTU.Events)
	}
	cut, told := r.PMTU.Events[0], r.PMTU.Events[1]
	if cut.Kind != ledger.PMTUFragmented || cut.Packets != 5 || cut.SPI == nil || *cut.SPI != 0xc0ffee02 || cut.Protocol != "esp" {
		t.Errorf("the most frequent event is %+v", cut)
	}
	if told.Kind != ledger.PMTUTellSender || told.Packets != 4 || told.Sent == nil || *told.Sent != 1 || told.Late != 1 ||
		told.SA == nil || told.SA.SPI != 0xc0ffee02 || told.SA.ReqID != 1 {
		t.Errorf("the other event is %+v", told)
	}
}

// TestPMTUPaths: what an SA lets through follows from its route and its algorithms.
func TestPMTUPaths(t *testing.T) {
	w := ledgertest.New()
	w.WatchPMTU()
	known, strange := w.Outbound(0xc0ffee02), w.Outbound(0xc0ffee04)
	strange.Entry.Algorithms = []ledger.Algorithm{{Kind: "aead", Name: "rfc9999(new)", ICVBits: 128}}
	gone := w.Outbound(0xc0ffee06)
	w.Inbound(0xc0ffee01, 32, false)
	r := w.Run(func() {
		known.Told(1400, 1)
		w.Learn(1400)
		gone.End(ledger.EndDeleted)
	})
	want := []ledger.PMTUPath{
		{SPI: 0xc0ffee02, Src: ledgertest.Here, Dst: ledgertest.Peer, ReqID: 1, Ifindex: ledgertest.WAN, LinkMTU: 1500, RouteMTU: 1400,
			PathMTU: 1400, ToldMTU: 1400, InnerMTU: 1346, MSS4: 1306, MSS6: 1286,
			Overhead: &ledger.Overhead{OuterIP: 20, ESP: 8, IV: 8, Trailer: 2, ICV: 16, Block: 4}},
		{SPI: 0xc0ffee04, Src: ledgertest.Here, Dst: ledgertest.Peer, ReqID: 1, Ifindex: ledgertest.WAN, LinkMTU: 1500, RouteMTU: 1400,
			PathMTU: 1400, ToldMTU: 1400},
	}
	if diff := cmp.Diff(want, r.PMTU.Paths, cmp.Comparer(samePath)); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func samePath(a, b ledger.PMTUPath) bool {
	if (a.Overhead == nil) != (b.Overhead == nil) || a.Overhead != nil && *a.Overhead != *b.Overhead {
		return false
	}
	a.Overhead, b.Overhead = nil, nil
	return a == b
}

// TestPMTUBounded: the report keeps the most frequent events and says how many more there are.
func TestPMTUBounded(t *testing.T) {
	w := ledgertest.New()
	w.WatchPMTU()
	sa := w.Outbound(0xc0ffee02)
	r := w.Run(func() {
		for i := range 130 {
			sa.TooBig(fmt.Sprintf("10.2.0.%d", 1+i), "10.1.0.1", 6, 1500, 1446, uint64(1+i), 0, 0)
		}
		sa.Told(1200, 1) // less frequent than all of them, and still known of the path
	})
	if len(r.PMTU.Events) != 100 || r.PMTU.EventsLeftOut != 31 {
		t.Errorf("%d events and %d left out, want 100 and 31", len(r.PMTU.Events), r.PMTU.EventsLeftOut)
	}
	if r.PMTU.Events[0].Packets != 130 || r.PMTU.Events[99].Packets != 31 {
		t.Errorf("the first event has %d packets and the last %d, want 130 and 31", r.PMTU.Events[0].Packets, r.PMTU.Events[99].Packets)
	}
	if got := r.PMTU.Paths[0].ToldMTU; got != 1200 {
		t.Errorf("told MTU %d, want 1200", got)
	}
}

// TestPMTUNotWatched: without the programs nothing is said, rather than that all is well.
func TestPMTUNotWatched(t *testing.T) {
	w := ledgertest.New()
	w.Outbound(0xc0ffee02)
	if r := w.Run(func() {}); r.PMTU != nil {
		t.Errorf("a report of what nobody watched: %+v", r.PMTU)
	}
	w.WatchPMTU()
	w.PMTU.Events = nil
	if r := w.Run(func() {}); r.PMTU == nil || r.PMTU.Totals != nil || len(r.PMTU.Paths) != 1 {
		t.Errorf("routes without programs: %+v", r.PMTU)
	}
}
