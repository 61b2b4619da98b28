// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

const spi = ledger.SPI(0xc0ffee01)

// find returns the SA of a report by SPI and direction.
func find(t *testing.T, r ledger.Report, spi ledger.SPI, dir ledger.Direction) *ledger.SA {
	t.Helper()
	for i := range r.SAs {
		if r.SAs[i].SPI == spi && r.SAs[i].Direction == dir {
			return &r.SAs[i]
		}
	}
	t.Fatalf("SA %s %s is not in the report", spi, dir)
	return nil
}

// want compares one bin; nil is "not observed".
func want(t *testing.T, name string, got, want *int64) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func count(n int64) *int64 { return &n }

func noted(t *testing.T, notes []string, part string) {
	t.Helper()
	if !strings.Contains(strings.Join(notes, "\n"), part) {
		t.Errorf("no note says %q: %q", part, notes)
	}
}

func TestBaselineDoesNotCount(t *testing.T) {
	w := ledgertest.New()
	sa := w.Inbound(spi, 32, false)
	sa.Deliver(1000)
	sa.Lose(5)
	sa.Repeat(3, 1)
	sa.Reorder(2, 200)
	w.Self.Lost = map[string]uint64{"contention": 7}
	r := w.Run(func() { sa.Deliver(10); sa.Reorder(1, 3) })

	got := find(t, r, spi, ledger.In)
	want(t, "sent", got.Ledger.In.Sent, count(11))
	want(t, "lost_on_path", got.Ledger.In.LostOnPath, count(0))
	want(t, "duplicates", got.Ledger.In.Duplicates, count(0))
	if len(got.Xfrm) != 0 || len(r.Kernel.XfrmStat) != 0 || len(r.Self.Lost) != 0 {
		t.Errorf("counts from before the baseline show: xfrm %v, xfrm_stat %v, lost %v", got.Xfrm, r.Kernel.XfrmStat, r.Self.Lost)
	}
	// The maximum of the source's whole life is 200; the run saw a 3, in the bucket of 2 and 3.
	if got.Wire.DisplacementMax != 3 || got.Wire.ReorderExtentMax != 3 {
		t.Errorf("displacement %d and extent %d, want 3", got.Wire.DisplacementMax, got.Wire.ReorderExtentMax)
	}
}

func TestSlotUsedAgain(t *testing.T) {
	w := ledgertest.New()
	sa := w.Inbound(spi, 32, false)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(w.Snapshot())
	sa.Deliver(100)
	sa.Lose(4)
	sa.Deliver(1)
	sa.Lag(9)
	l.Observe(w.Snapshot())
	sa.CatchUp()

	// The wire program gave the slot up and took it again: it counts from zero.
	fresh := sa.Wire
	fresh.Created = time.Minute
	fresh.Packets, fresh.Bytes, fresh.Unique, fresh.Span, fresh.Missing, fresh.GapEvents = 0, 0, 0, 0, 0, 0
	sa.Wire = fresh
	sa.Deliver(50)
	sa.Vanish(2)
	w.Tick(time.Second)
	l.Observe(w.Snapshot())

	b := find(t, l.Report(), spi, ledger.In).Ledger.In
	want(t, "arrivals", b.Arrivals, count(160+2))
	want(t, "lost_on_path", b.LostOnPath, count(4))
	want(t, "unattributed", b.Unattributed, count(2))
}

func TestKeyUsedAgain(t *testing.T) {
	for _, same := range []bool{false, true} {
		w := ledgertest.New()
		sa := w.Inbound(spi, 32, false)
		sa.Deliver(500)
		l := ledger.New(ledger.Source{Kind: ledger.KindLive})
		l.Observe(w.Snapshot())
		sa.Deliver(100)
		sa.End(ledger.EndDeleted)
		sa.Knock(7)
		if !same {
			w.Tick(time.Second)
		}
		sa.Renew()
		sa.Deliver(30)
		w.Tick(time.Second)
		l.Observe(w.Snapshot())

		got := find(t, l.Report(), spi, ledger.In)
		want(t, "decapsulated", got.Ledger.In.Decapsulated, count(130))
		want(t, "xfrm_dropped", got.Ledger.In.XfrmDropped, count(7))
		want(t, "unattributed", got.Ledger.In.Unattributed, count(0))
		if got.State != ledger.Alive || len(got.Endings) != 1 || got.Endings[0].Why != ledger.EndDeleted {
			t.Errorf("state %s, endings %v; want alive after one deletion", got.State, got.Endings)
		}
	}
}

func TestNoStateBelongsToTheSAThatWas(t *testing.T) {
	w := ledgertest.New()
	sa, alien := w.Inbound(spi, 32, false), w.Foreign(0xdead)
	r := w.Run(func() {
		sa.Deliver(10)
		sa.End(ledger.EndFlushed)
		sa.Knock(4)
		alien.Knock(6)
	})
	got := find(t, r, spi, ledger.In)
	if got.Xfrm[ledger.NoState] != 4 || got.State != ledger.Gone {
		t.Errorf("no_state %d of an SA %s, want 4 of one that ended", got.Xfrm[ledger.NoState], got.State)
	}
	wantStrangers := []ledger.Stranger{{SPI: 0xdead, Dst: ledgertest.Here, Src: ledgertest.Peer, Proto: ledger.ESP, Direction: ledger.In, Packets: 6}}
	if diff := cmp.Diff(wantStrangers, r.UnknownSPIs, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("unknown SPIs (-want +got):\n%s", diff)
	}
	// The stranger's packets show on its own row as well, and add up there.
	want(t, "unattributed", find(t, r, 0xdead, ledger.In).Ledger.In.Unattributed, count(0))
}

func TestSAThatCameAndWentBetweenSnapshots(t *testing.T) {
	w := ledgertest.New()
	r := w.Run(func() {
		w.Tick(time.Second)
		sa := w.Inbound(spi, 32, false)
		sa.Deliver(77)
		sa.End(ledger.EndDeleted)
	})
	got := find(t, r, spi, ledger.In)
	want(t, "decapsulated", got.Ledger.In.Decapsulated, count(77))
	want(t, "unattributed", got.Ledger.In.Unattributed, count(0))
	if !got.AddedDuring {
		t.Error("not marked as added during the run")
	}
}

// TestEnding: a dump may miss an SA before its message comes, and one end may be told twice.
func TestEnding(t *testing.T) {
	w := ledgertest.New()
	sa := w.Inbound(spi, 32, false)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(w.Snapshot())
	sa.Deliver(5)
	s := w.Snapshot()
	s.SAD = []ledger.SADEntry{}
	l.Observe(s)
	if e := find(t, l.Report(), spi, ledger.In).Endings; len(e) != 1 || e[0].Why != ledger.EndVanished {
		t.Fatalf("endings %v, want one that vanished", e)
	}
	w.Tick(time.Second)
	sa.End(ledger.EndExpired)
	l.Observe(w.Snapshot())
	w.Tick(time.Second)
	sa.End(ledger.EndDeleted)
	l.Observe(w.Snapshot())
	got := find(t, l.Report(), spi, ledger.In)
	if len(got.Endings) != 1 || got.Endings[0].Why != ledger.EndExpired {
		t.Errorf("endings %v, want the hard expiry alone", got.Endings)
	}
	want(t, "decapsulated", got.Ledger.In.Decapsulated, count(5))
}

// TestUndirectedSA: an SA between two addresses that are not this host's joins the packets wherever
// they were seen.
func TestUndirectedSA(t *testing.T) {
	w := ledgertest.New()
	sa := w.Inbound(spi, 32, false)
	sa.Entry.Key.Direction = ledger.Unknown
	r := w.Run(func() { sa.Deliver(20) })
	if len(r.SAs) != 1 {
		t.Fatalf("%d rows, want one", len(r.SAs))
	}
	want(t, "decapsulated", find(t, r, spi, ledger.In).Ledger.In.Decapsulated, count(20))
}

func TestEveryCauseHasItsPlace(t *testing.T) {
	for _, c := range ledger.Causes() {
		if c.Outbound() != strings.HasPrefix(c.Counter(), "XfrmOut") {
			t.Errorf("cause %s moves %s: direction does not fit", c, c.Counter())
		}
	}
}

// TestJSON keeps null and zero apart, writes SPIs for people, and reads back what it wrote.
func TestJSON(t *testing.T) {
	w := ledgertest.New()
	in, out := w.Inbound(spi, 32, false), w.Outbound(2)
	r := w.Run(func() { in.Deliver(3); out.Send(4) })
	js, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"schema":"xfrmscope/1"`, `"spi":"0xc0ffee01"`, `"lost_in_host":0`, `"xfrm_dropped":0`, `"lost_in_host_egress":0`,
		`"xfrm":{}`, `"duration_s":30`, `"start":"2026-11-20T03:00:00Z"`,
	} {
		if !strings.Contains(string(js), part) {
			t.Errorf("%s is not in %s", part, js)
		}
	}
	var back ledger.Report
	if err := json.Unmarshal(js, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if _, err := json.Marshal(ledger.Bins{}); err == nil {
		t.Error("bins of no direction were written")
	}
}

// TestSharedKey: SAs that only their marks tell apart are one row; their sums add up, and what the
// wire makes of their mixed numbers is not reported.
func TestSharedKey(t *testing.T) {
	w := ledgertest.New()
	a, b := w.Inbound(spi, 32, false), w.Inbound(spi, 32, false)
	a.Entry.MarkValue, a.Entry.MarkMask = 1, 0xff
	b.Entry.MarkValue, b.Entry.MarkMask = 2, 0xff
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(w.Snapshot())
	for range 3 {
		// The wire programs see one SA, whose numbers come twice.
		a.Deliver(10)
		a.Wire.Packets, a.Wire.Duplicates = a.Wire.Packets+5, a.Wire.Duplicates+5
		b.Entry.Packets += 5
		w.Tick(time.Second)
		l.Observe(w.Snapshot())
	}
	r := l.Report()
	if len(r.SAs) != 1 {
		t.Fatalf("%d rows, want one", len(r.SAs))
	}
	got := find(t, r, spi, ledger.In)
	if got.SharedBy != 2 {
		t.Errorf("shared by %d, want 2", got.SharedBy)
	}
	want(t, "arrivals", got.Ledger.In.Arrivals, count(45))
	want(t, "decapsulated", got.Ledger.In.Decapsulated, count(45))
	want(t, "unattributed", got.Ledger.In.Unattributed, count(0))
	want(t, "duplicates", got.Ledger.In.Duplicates, nil)
	want(t, "sent", got.Ledger.In.Sent, nil)
}

// TestDirectionKnownLater: an SA whose direction becomes clear later is still the same SA.
func TestDirectionKnownLater(t *testing.T) {
	for _, first := range []ledger.Direction{ledger.Unknown, ledger.In} {
		w := ledgertest.New()
		sa := w.Inbound(spi, 32, false)
		sa.Deliver(1000)
		sa.Entry.Key.Direction = first
		l := ledger.New(ledger.Source{Kind: ledger.KindLive})
		l.Observe(w.Snapshot())
		sa.Deliver(10)
		sa.Entry.Key.Direction = map[ledger.Direction]ledger.Direction{ledger.Unknown: ledger.In, ledger.In: ledger.Unknown}[first]
		l.Observe(w.Snapshot())
		r := l.Report()
		if len(r.SAs) != 1 || r.SAs[0].SharedBy != 0 {
			t.Fatalf("first %s: %d rows, shared by %d, want one SA", first, len(r.SAs), r.SAs[0].SharedBy)
		}
		got := find(t, r, spi, ledger.In)
		want(t, "decapsulated", got.Ledger.In.Decapsulated, count(10))
		if got.State != ledger.Alive || len(got.Endings) != 0 {
			t.Errorf("first %s: state %s after %v", first, got.State, got.Endings)
		}
	}
}

// TestMissedByADump: an SA that one dump lacks and the next has did not end.
func TestMissedByADump(t *testing.T) {
	w := ledgertest.New()
	sa := w.Inbound(spi, 32, false)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(w.Snapshot())
	s := w.Snapshot()
	s.SAD = []ledger.SADEntry{}
	l.Observe(s)
	sa.Deliver(5)
	l.Observe(w.Snapshot())
	got := find(t, l.Report(), spi, ledger.In)
	if got.State != ledger.Alive || len(got.Endings) != 0 {
		t.Errorf("state %s after %v, want alive", got.State, got.Endings)
	}
	want(t, "decapsulated", got.Ledger.In.Decapsulated, count(5))
}

// TestSelect: SAs drawn up by themselves are those of the whole report.
func TestSelect(t *testing.T) {
	w := ledgertest.New()
	a, b := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(w.Snapshot())
	a.Deliver(100)
	a.Lose(3)
	a.Swallow(2, "ip_error", "NOT_SPECIFIED", "")
	b.Send(50)
	b.Spill(4, "kfree_skb_list_reason", "QDISC_DROP")
	w.Tick(time.Second)
	l.Observe(w.Snapshot())
	all := l.Report().SAs
	if got := l.Select(func(ledger.SAKey) bool { return true }); !reflect.DeepEqual(got, all) {
		t.Errorf("all SAs are %+v, want %+v", got, all)
	}
	if got := l.Select(func(k ledger.SAKey) bool { return k == b.Key }); !reflect.DeepEqual(got, all[1:]) {
		t.Errorf("one SA is %+v, want %+v", got, all[1:])
	}
}
