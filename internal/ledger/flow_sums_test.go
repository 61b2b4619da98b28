// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// TestFlowTotals: what TCP did inside a tunnel is told by tunnel and direction, across the periods of a run
// without end, and counted once.
func TestFlowTotals(t *testing.T) {
	w := ledgertest.New()
	in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
	r := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, 5*time.Second)
	r.Observe(w.Snapshot())
	sender, reader := w.Talk(out, in)
	sender.Retransmissions = 25
	w.Stall(reader, sender, 3, time.Second)
	for range 20 { // several periods
		w.Tick(time.Second)
		r.Observe(w.Snapshot())
	}
	sender.Segments, sender.Retransmissions = sender.Segments+10, sender.Retransmissions+1
	w.Tick(time.Second)
	r.Observe(w.Snapshot())
	got := map[ledger.Direction]ledger.FlowTotals{}
	for _, u := range r.Totals().Tunnels {
		if u.Flows != nil {
			got[u.Direction] = *u.Flows
		}
	}
	want := map[ledger.Direction]ledger.FlowTotals{
		ledger.Out: {Segments: 1010, Retransmissions: 26},
		ledger.In:  {ZeroWindowUS: 3_000_000},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
