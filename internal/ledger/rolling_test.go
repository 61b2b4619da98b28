// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"net/netip"
	"testing"
	"time"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// TestRollingForgets lets an SA lose packets once and then work: within two periods the report no longer
// speaks of it, the sums always do.
func TestRollingForgets(t *testing.T) {
	const period = 10 * time.Second
	w := ledgertest.New()
	sa := w.Inbound(1, 32, false)
	r := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, period)
	step := func() {
		w.Tick(time.Second)
		sa.Deliver(10)
		r.Observe(w.Snapshot())
	}
	r.Observe(w.Snapshot())
	lost := func() int64 { return *r.Report().SAs[0].Ledger.In.LostOnPath }
	sa.Deliver(10)
	sa.Lose(5)
	sa.Deliver(1)
	step()
	if got := lost(); got != 5 {
		t.Errorf("%d lost at once, want 5", got)
	}
	seen := 0
	for range 40 {
		step()
		if lost() != 0 {
			seen++
		}
	}
	if seen < 10 || seen > 20 {
		t.Errorf("the loss was reported for %d s more, want one to two periods of 10 s", seen)
	}
	sum := r.Totals()
	if n := len(sum.Tunnels); n != 1 {
		t.Fatalf("%d tunnels, want 1", n)
	}
	tunnel := sum.Sorted()[0]
	if *tunnel.In.LostOnPath != 5 || *tunnel.In.Delivered != 421 || tunnel.Alive != 1 || tunnel.Wire.Packets != 421 {
		t.Errorf("sums: lost %d, delivered %d, %d SAs, %d packets; want 5, 421, 1, 421",
			*tunnel.In.LostOnPath, *tunnel.In.Delivered, tunnel.Alive, tunnel.Wire.Packets)
	}
	if tunnel.Local != ledgertest.Here || tunnel.Remote != ledgertest.Peer || tunnel.ReqID != 1 {
		t.Errorf("tunnel: %+v", tunnel.TunnelKey)
	}
}

// TestRollingForgetsIKE does the same to a request without an answer.
func TestRollingForgetsIKE(t *testing.T) {
	const period = 10 * time.Second
	w := ledgertest.New()
	tracker := ike.NewTracker()
	r := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, period)
	observe := func() {
		s := w.Snapshot()
		s.IKE = tracker.Report(w.Now())
		r.Observe(s)
		w.Tick(time.Second)
	}
	observe()
	for range 4 {
		tracker.Observe(ike.Message{
			Header: ike.Header{InitiatorSPI: 7, Version: 0x20, Exchange: 34, Flags: 8, Length: 200}, At: w.Now(), Direction: ledger.Out,
			Src: addrPort(ledgertest.Here), Dst: addrPort(ledgertest.Peer),
		})
		observe()
	}
	repeats := func() (n int64) {
		for _, p := range r.Report().IKE.Peers {
			for _, e := range p.Exchanges {
				n += e.Repeats
			}
		}
		return n
	}
	if got := repeats(); got != 3 {
		t.Errorf("%d repeats, want 3", got)
	}
	for range 25 {
		observe()
	}
	if got := repeats(); got != 0 {
		t.Errorf("%d repeats after two periods, want none", got)
	}
	if n := r.Report().IKE.Messages; n != 0 {
		t.Errorf("%d messages after two periods, want none", n)
	}
}

func addrPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 500) }
