// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// TestRandomHistories lets hosts live through random histories with any mix of faults, rekeys, lag
// and snapshots. The bins must always add up, and unattributed must show exactly what was kept from
// every source.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			newHistory(seed).live(t)
		})
	}
}

// history is one random life and the truth about it.
type history struct {
	rnd     *rand.Rand
	world   *ledgertest.World
	ledger  *ledger.Ledger
	rolling *ledger.Rolling
	in      []*life
	out     []*life
}

// life is one SA's truth since the baseline.
type life struct {
	sa       *ledgertest.SA
	lost     int64
	hidden   int64 // arrived, and in no source; negative: decapsulated without having arrived
	unlocked int64 // outbound: numbered, never on the wire
	stopped  int64 // dropped by this host: before xfrm, or outbound
	inner    int64 // dropped by this host after decryption
	startLag int64
	lag      int64
	gone     bool
}

func newHistory(seed uint64) *history {
	h := &history{rnd: rand.New(rand.NewPCG(seed, 4303)), world: ledgertest.New()}
	h.ledger = ledger.New(ledger.Source{Kind: ledger.KindLive})
	h.rolling = ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, 2*time.Second)
	for i := range 1 + h.rnd.IntN(3) {
		window := []uint32{0, 32, 128, 4096}[h.rnd.IntN(4)]
		h.in = append(h.in, &life{sa: h.world.Inbound(ledger.SPI(0x1000+i), window, window > 0 && h.rnd.IntN(2) == 0)})
		h.out = append(h.out, &life{sa: h.world.Outbound(ledger.SPI(0x2000 + i))})
	}
	return h
}

func (h *history) n() uint64 { return 1 + h.rnd.Uint64N(50) }

func (h *history) live(t *testing.T) {
	// Before the baseline anything may have happened: none of it may show.
	for range h.rnd.IntN(20) {
		h.happen()
	}
	for _, l := range h.in {
		l.lost, l.hidden, l.startLag = 0, 0, l.lag
		l.stopped, l.inner = 0, 0
	}
	for _, l := range h.out {
		l.unlocked, l.stopped = 0, 0
	}
	h.observe()
	h.check(t)
	for range 1 + h.rnd.IntN(6) {
		for range h.rnd.IntN(30) {
			h.happen()
		}
		h.world.Tick(time.Second)
		h.observe()
		h.check(t)
	}
	h.checkTotals(t)
}

func (h *history) observe() {
	s := h.world.Snapshot()
	h.ledger.Observe(s)
	h.rolling.Observe(s)
}

// checkTotals holds the sums of a ledger that was begun anew every few snapshots against one that was not.
func (h *history) checkTotals(t *testing.T) {
	t.Helper()
	want := ledger.NewTotals()
	want.Add(h.ledger.Report())
	got := h.rolling.Totals()
	want.Start = got.Start
	for _, sum := range []*ledger.Totals{want, &got} {
		for _, u := range sum.Tunnels {
			// How many of the packets that lag are covered for is judged anew for each stretch.
			if b := u.In; b != nil {
				*b.InFlight, *b.Unattributed = 0, *b.InFlight+*b.Unattributed
			}
			u.Rekeys = 0
		}
	}
	if diff := cmp.Diff(want, &got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty(),
		cmpopts.IgnoreUnexported(ledger.Totals{}, ledger.Tunnel{})); diff != "" {
		t.Errorf("sums of the rolling ledger (-one ledger +rolling):\n%s", diff)
	}
}

// happen lets one thing happen to one SA.
func (h *history) happen() {
	i := h.rnd.IntN(len(h.in))
	in, out := h.in[i], h.out[i]
	n := h.n()
	if in.gone {
		switch h.rnd.IntN(4) {
		case 0:
			h.world.Tick(time.Second)
			in.sa.Renew()
			in.gone = false
		default:
			in.sa.Knock(n)
		}
		return
	}
	switch h.rnd.IntN(20) {
	case 0:
		if in.sa.Lose(n) {
			in.lost += int64(n)
		}
	case 1:
		in.sa.Repeat(n, h.rnd.Uint64N(8000))
	case 2:
		in.sa.Reorder(n, 1+h.rnd.Uint64N(8000))
	case 3:
		in.sa.Corrupt(n)
	case 4:
		in.sa.Block(n, ledger.NoPols)
	case 5:
		in.sa.Vanish(n)
		in.hidden += int64(n)
	case 6:
		in.sa.Entry.Packets += n
		in.hidden -= int64(n)
	case 7:
		in.sa.Lag(n)
		in.lag += int64(n)
	case 8:
		in.sa.CatchUp()
		in.lag = 0
	case 9:
		if in.lag == 0 {
			in.sa.End([]ledger.EndReason{ledger.EndDeleted, ledger.EndExpired}[h.rnd.IntN(2)])
			in.gone = true
		}
	case 10:
		out.sa.Send(n)
	case 11:
		out.sa.Number(n)
		out.unlocked += int64(n)
	case 12:
		out.sa.Drop(n, ledger.OutModeError)
	case 13:
		out.sa.Number(n)
		out.sa.Drop(n, ledger.OutProtoError)
	case 14:
		in.sa.Stop(n, "nf_hook_slow", "NETFILTER_DROP", "input")
		in.stopped += int64(n)
	case 15:
		in.sa.Swallow(n, "ip_error", "", "")
		in.inner += int64(n)
	case 16:
		out.sa.Withhold(n, "nf_hook_slow", "", "output")
		out.stopped += int64(n)
	case 17:
		out.sa.Spill(n, "kfree_skb_list_reason", "QDISC_DROP")
		out.stopped += int64(n)
	default:
		in.sa.Deliver(n)
	}
}

func (h *history) check(t *testing.T) {
	t.Helper()
	r := h.ledger.Report()
	if diff := cmp.Diff(r, h.ledger.Report(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Fatalf("two reports of one ledger differ:\n%s", diff)
	}
	bySPI := map[ledger.SPI]*ledger.SA{}
	for i := range r.SAs {
		bySPI[r.SAs[i].SPI] = &r.SAs[i]
	}
	for _, l := range h.in {
		sa := bySPI[l.sa.Key.SPI]
		if sa == nil {
			t.Fatalf("SA %s is missing from the report", l.sa.Key.SPI)
		}
		b := sa.Ledger.In
		inboundAddsUp(t, sa)
		if *b.LostOnPath != l.lost {
			t.Errorf("SA %s: %d lost on the path, want %d", sa.SPI, *b.LostOnPath, l.lost)
		}
		if *b.LostInHost != l.stopped || *b.InnerDropped != l.inner {
			t.Errorf("SA %s: %d lost in host, %d on the inner path, want %d and %d", sa.SPI, *b.LostInHost, *b.InnerDropped, l.stopped, l.inner)
		}
		// What lagged at the start or lags now may be anywhere between two readings, so it covers
		// for as much of what is hidden, and never for more. Without lag the figure is exact.
		want := int64(0)
		switch {
		case l.hidden > l.startLag:
			want = l.hidden - l.startLag
		case l.hidden < -l.lag:
			want = l.hidden + l.lag
		}
		if *b.Unattributed != want {
			t.Errorf("SA %s: unattributed %d, want %d (hidden %d, lag %d to %d)", sa.SPI, *b.Unattributed, want, l.hidden, l.startLag, l.lag)
		}
	}
	for _, l := range h.out {
		sa := bySPI[l.sa.Key.SPI]
		b := sa.Ledger.Out
		if got := *b.OnWire + *b.EncryptFailed + *b.LostInHostEgress + *b.InFlight + *b.Unattributed; got != *b.Encapsulated {
			t.Errorf("SA %s: encapsulated %d, its bins hold %d", sa.SPI, *b.Encapsulated, got)
		}
		if *b.Offered != *b.Encapsulated+*b.XfrmOutDropped {
			t.Errorf("SA %s: offered %d is not %d + %d", sa.SPI, *b.Offered, *b.Encapsulated, *b.XfrmOutDropped)
		}
		if *b.LostInHostEgress != l.stopped {
			t.Errorf("SA %s: %d lost on egress, want %d", sa.SPI, *b.LostInHostEgress, l.stopped)
		}
		if *b.Unattributed != l.unlocked {
			t.Errorf("SA %s: unattributed %d, want %d", sa.SPI, *b.Unattributed, l.unlocked)
		}
	}
	if r.Kernel.Reconciled == nil || !*r.Kernel.Reconciled {
		t.Errorf("not reconciled: %q", r.Kernel.Disagreements)
	}
}

// inboundAddsUp checks the three identities of an inbound SA that every source observes.
func inboundAddsUp(t *testing.T, sa *ledger.SA) {
	t.Helper()
	b := sa.Ledger.In
	for _, id := range []struct {
		name       string
		left, bins int64
	}{
		{"sent = unique + missing", *b.Sent, *b.Unique + *b.Missing},
		{"missing = lost_on_path + pending", *b.Missing, *b.LostOnPath + *b.Pending},
		{"arrivals = unique + duplicates + stale + unsorted", *b.Arrivals, *b.Unique + *b.Duplicates + *b.Stale + *b.Unsorted},
		{"arrivals = lost_in_host + xfrm_dropped + decapsulated + in_flight + unattributed", *b.Arrivals,
			*b.LostInHost + *b.XfrmDropped + *b.Decapsulated + *b.InFlight + *b.Unattributed},
		{"decapsulated = delivered + policy_dropped + inner_dropped", *b.Decapsulated, *b.Delivered + *b.PolicyDropped + *b.InnerDropped},
	} {
		if id.left != id.bins {
			t.Errorf("SA %s: %s: %d is not %d", sa.SPI, id.name, id.left, id.bins)
		}
	}
}
