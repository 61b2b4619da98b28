// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

func TestBlindSources(t *testing.T) {
	for _, tc := range []struct {
		name  string
		blind func(*ledgertest.World)
		check func(*testing.T, ledger.Report)
	}{
		{"no wire", func(w *ledgertest.World) { w.BlindWire = true }, func(t *testing.T, r ledger.Report) {
			sa := find(t, r, spi, ledger.In)
			want(t, "sent", sa.Ledger.In.Sent, nil)
			want(t, "arrivals", sa.Ledger.In.Arrivals, nil)
			want(t, "decapsulated", sa.Ledger.In.Decapsulated, count(100))
			want(t, "xfrm_dropped", sa.Ledger.In.XfrmDropped, count(4))
			want(t, "unattributed", sa.Ledger.In.Unattributed, nil)
			if sa.Wire != nil {
				t.Error("there is a wire block")
			}
			noted(t, sa.Notes, "wire programs are not attached")
			noted(t, r.Notes, "wire programs: not attached")
			want(t, "on_wire", find(t, r, 2, ledger.Out).Ledger.Out.OnWire, nil)
		}},
		{"no stack", func(w *ledgertest.World) { w.BlindStack = true }, func(t *testing.T, r ledger.Report) {
			sa := find(t, r, spi, ledger.In)
			if sa.XfrmFrom != ledger.FromSAD || sa.Xfrm[ledger.ReplayLate] != 4 {
				t.Errorf("causes %v from %q, want 4 late from the SAD", sa.Xfrm, sa.XfrmFrom)
			}
			want(t, "xfrm_dropped", sa.Ledger.In.XfrmDropped, count(4))
			want(t, "policy_dropped", sa.Ledger.In.PolicyDropped, nil)
			want(t, "delivered", sa.Ledger.In.Delivered, nil)
			want(t, "lost_in_host", sa.Ledger.In.LostInHost, nil)
			want(t, "inner_dropped", sa.Ledger.In.InnerDropped, nil)
			want(t, "unattributed", sa.Ledger.In.Unattributed, count(0))
			noted(t, sa.Notes, "stack hooks are not attached")
			if r.UnknownSPIs != nil || r.Kernel.Reconciled != nil {
				t.Errorf("unknown SPIs %v, reconciled %v; want neither observed", r.UnknownSPIs, r.Kernel.Reconciled)
			}
			out := find(t, r, 2, ledger.Out)
			want(t, "offered", out.Ledger.Out.Offered, nil)
			want(t, "encapsulated", out.Ledger.Out.Encapsulated, count(50))
		}},
		{"no drops", func(w *ledgertest.World) { w.BlindDrops = true }, func(t *testing.T, r ledger.Report) {
			sa := find(t, r, spi, ledger.In)
			want(t, "lost_in_host", sa.Ledger.In.LostInHost, nil)
			want(t, "inner_dropped", sa.Ledger.In.InnerDropped, nil)
			want(t, "delivered", sa.Ledger.In.Delivered, count(100))
			want(t, "lost_in_host_egress", find(t, r, 2, ledger.Out).Ledger.Out.LostInHostEgress, nil)
			noted(t, sa.Notes, "drops outside xfrm are not observed")
			noted(t, r.Notes, "drops outside xfrm: not observed")
			if r.Drops != nil {
				t.Errorf("drops %v, want them not observed", r.Drops)
			}
		}},
		{"no SAD", func(w *ledgertest.World) { w.BlindSAD = true }, func(t *testing.T, r ledger.Report) {
			sa := find(t, r, spi, ledger.In)
			want(t, "sent", sa.Ledger.In.Sent, count(104))
			want(t, "decapsulated", sa.Ledger.In.Decapsulated, nil)
			want(t, "unattributed", sa.Ledger.In.Unattributed, nil)
			if sa.State != ledger.NotCovered || sa.ReplayWindow != nil || sa.Own != nil {
				t.Errorf("state %s, window %v, own %v; want none known", sa.State, sa.ReplayWindow, sa.Own)
			}
			noted(t, sa.Notes, "SA database was not readable")
		}},
		{"no xfrm_stat", func(w *ledgertest.World) { w.BlindStat = true }, func(t *testing.T, r ledger.Report) {
			if r.Kernel.XfrmStat != nil {
				t.Errorf("xfrm_stat %v, want it not observed", r.Kernel.XfrmStat)
			}
			if r.Kernel.Reconciled == nil || !*r.Kernel.Reconciled {
				t.Error("the SAs' own counters alone must reconcile")
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := ledgertest.New()
			tc.blind(w)
			in, out := w.Inbound(spi, 32, false), w.Outbound(2)
			tc.check(t, w.Run(func() { in.Deliver(100); in.Reorder(4, 50); out.Send(50) }))
		})
	}
}

func TestCapture(t *testing.T) {
	w := ledgertest.New()
	w.BlindSAD, w.BlindStack, w.BlindStat = true, true, true
	sa := w.Inbound(spi, 0, false)
	sa.Deliver(90)
	sa.Lose(10)
	sa.Deliver(1)
	s := w.Snapshot()
	s.Wire[0].Key.Direction = ledger.Unknown
	l := ledger.New(ledger.Source{Kind: ledger.KindCapture, Name: "x.pcap"})
	l.Observe(s)
	got := find(t, l.Report(), spi, ledger.Unknown)
	want(t, "sent", got.Ledger.In.Sent, count(101))
	want(t, "lost_on_path", got.Ledger.In.LostOnPath, count(10))
	want(t, "missing", got.Ledger.In.Missing, count(10))
	want(t, "decapsulated", got.Ledger.In.Decapsulated, nil)
	want(t, "unattributed", got.Ledger.In.Unattributed, nil)
	if got.Xfrm != nil {
		t.Errorf("causes %v, want them not observed", got.Xfrm)
	}
}

func TestPassingPackets(t *testing.T) {
	w := ledgertest.New()
	alien := w.Foreign(0xdead)
	r := w.Run(func() { alien.Vanish(9) })
	got := find(t, r, 0xdead, ledger.In)
	want(t, "arrivals", got.Ledger.In.Arrivals, count(9))
	want(t, "unattributed", got.Ledger.In.Unattributed, nil)
	noted(t, got.Notes, "pass through")
}

// TestReservedOnly: an SA that is only reserved is not listed in the SA database. What all was refused of,
// nothing can have been decapsulated of; where a packet is missing, or was dropped later, that is not known.
func TestReservedOnly(t *testing.T) {
	for _, tc := range []struct {
		name   string
		happen func(*ledgertest.SA)
		known  bool
	}{
		{"all refused", func(sa *ledgertest.SA) { sa.Refuse(8, ledger.AcquireError) }, true},
		{"one not accounted for", func(sa *ledgertest.SA) { sa.Refuse(8, ledger.AcquireError); sa.Vanish(1) }, false},
		{"one refused after decryption", func(sa *ledgertest.SA) { sa.Refuse(7, ledger.AcquireError); sa.Refuse(1, ledger.TmplMismatch) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := ledgertest.New()
			reserved := w.Foreign(0xdead)
			r := w.Run(func() { tc.happen(reserved) })
			in := find(t, r, 0xdead, ledger.In).Ledger.In
			if !tc.known {
				want(t, "decapsulated", in.Decapsulated, nil)
				want(t, "unattributed", in.Unattributed, nil)
				return
			}
			want(t, "decapsulated", in.Decapsulated, count(0))
			want(t, "xfrm_dropped", in.XfrmDropped, count(8))
			want(t, "unattributed", in.Unattributed, count(0))
		})
	}
}

func TestReadableLate(t *testing.T) {
	w := ledgertest.New()
	w.BlindSAD = true
	sa := w.Inbound(spi, 32, false)
	sa.Deliver(1000)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(w.Snapshot())
	w.BlindSAD = false
	sa.Deliver(10)
	w.Tick(time.Second)
	l.Observe(w.Snapshot())
	got := find(t, l.Report(), spi, ledger.In)
	want(t, "decapsulated", got.Ledger.In.Decapsulated, nil)
	noted(t, got.Notes, "readable only after the start")
}

func TestDisagreements(t *testing.T) {
	w := ledgertest.New()
	sa := w.Inbound(spi, 32, false)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(w.Snapshot())
	sa.Deliver(100)
	sa.Reorder(5, 99)
	sa.Corrupt(2)
	// A hook missed two of the five, and the kernel counted one that nobody explains.
	sa.Causes[ledger.ReplayLate] -= 2
	w.Stat["XfrmInHdrError"]++
	w.Stat["XfrmOutPolBlock"] += 3
	w.Residue["XfrmOutPolBlock"] = 3
	l.Observe(w.Snapshot())
	w.Tick(time.Second)
	l.Observe(w.Snapshot())

	r := l.Report()
	wantSays := []string{
		"XfrmInHdrError rose by 1, xfrmscope explains 0",
		"XfrmInStateSeqError rose by 5, xfrmscope explains 3",
		"SA 0xc0ffee01 to 192.0.2.2 counts 0 replayed and 5 outside its window, the hooks saw 0 duplicate, 3 late, 0 of either kind",
	}
	if diff := cmp.Diff(wantSays, r.Kernel.Disagreements); diff != "" {
		t.Errorf("disagreements (-want +got):\n%s", diff)
	}
	if *r.Kernel.Reconciled {
		t.Error("reconciled in spite of them")
	}
	// What the hook missed is exactly what the bins miss.
	want(t, "unattributed", find(t, r, spi, ledger.In).Ledger.In.Unattributed, count(2))
}

// TestUnspecifiedReplay: what the hooks could not tell apart may be either kind, but no more than that.
func TestUnspecifiedReplay(t *testing.T) {
	for _, tc := range []struct {
		either, late uint64
		agree        bool
	}{{5, 0, true}, {3, 2, true}, {6, 0, true}, {4, 0, false}, {1, 5, true}, {1, 6, false}} {
		w := ledgertest.New()
		w.BlindStat = true
		sa := w.Inbound(spi, 32, false)
		r := w.Run(func() {
			sa.Deliver(100)
			sa.Repeat(3, 1)
			sa.Reorder(2, 50)
			sa.Causes = map[ledger.Cause]uint64{ledger.ReplayUnspecified: tc.either, ledger.ReplayLate: tc.late}
		})
		if *r.Kernel.Reconciled != tc.agree {
			t.Errorf("%d of either kind and %d late against 5: reconciled %v: %q", tc.either, tc.late, *r.Kernel.Reconciled, r.Kernel.Disagreements)
		}
	}
}
