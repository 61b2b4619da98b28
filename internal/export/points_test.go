// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// values are the points of a metric by their labels.
func values(points []Point, m *Metric) map[string]float64 {
	out := map[string]float64{}
	for _, p := range points {
		if p.Metric.Name == m.Name {
			out[strings.Join(p.Labels.Values, " ")] = p.Value
		}
	}
	return out
}

func named(t *testing.T, name string) *Metric {
	t.Helper()
	for _, m := range Metrics() {
		if m.Name == "xfrmscope_"+name {
			return m
		}
	}
	t.Fatalf("no metric %s", name)
	return nil
}

func inTunnel(peer string, alive int, b *ledger.Inbound) *ledger.Tunnel {
	return &ledger.Tunnel{
		TunnelKey: ledger.TunnelKey{Direction: ledger.In, Local: ours, Remote: netip.MustParseAddr(peer), ReqID: 1}, Alive: alive, In: b,
	}
}

func totals(all ...*ledger.Tunnel) ledger.Totals {
	t := ledger.NewTotals()
	for _, u := range all {
		t.Tunnels[u.TunnelKey] = u
	}
	return *t
}

// TestCounterNeverGoesBack: a packet that was lost for the ledger and then came late is taken back there, and
// must not look like a restart here.
func TestCounterNeverGoesBack(t *testing.T) {
	p := NewPoints(Options{})
	lost, pending := named(t, "lost_on_path_packets_total"), named(t, "pending_packets")
	at := time.Now()
	var got []float64
	for _, n := range []int64{0, 5, 3, 4, 6} {
		at = at.Add(time.Second)
		points := p.Of(Sample{At: at, Totals: totals(inTunnel("10.0.0.1", 1, &ledger.Inbound{LostOnPath: new(n), Pending: new(n)}))})
		got = append(got, values(points, lost)["192.0.2.1 10.0.0.1 1 in"])
		if v := values(points, pending)["192.0.2.1 10.0.0.1 1 in"]; v != float64(n) {
			t.Errorf("gauge %v, want %d", v, n)
		}
		for _, x := range points {
			if x.Metric.Kind == Counter && x.Value < 0 {
				t.Errorf("%s is %v", x.Metric.Name, x.Value)
			}
		}
	}
	if diff := cmp.Diff([]float64{0, 5, 5, 5, 6}, got); diff != "" {
		t.Error(diff)
	}
}

// TestNotObservedIsNoSeries: what nobody looks at is left out, what was looked at and did not occur is 0.
func TestNotObservedIsNoSeries(t *testing.T) {
	p := NewPoints(Options{})
	points := p.Of(Sample{At: time.Now(), Totals: totals(inTunnel("10.0.0.1", 1, &ledger.Inbound{Sent: new(int64(7)), LostInHost: new(int64(0))}))})
	for name, want := range map[string]int{
		"sent_packets_total": 1, "lost_in_host_packets_total": 1, "delivered_packets_total": 0, "offered_packets_total": 0, "late_packets_total": 0,
	} {
		if got := values(points, named(t, name)); len(got) != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestTunnelsAreBounded: those beyond the bound share one row, and nothing they count is lost; a tunnel that is
// gone for long gives its place back.
func TestTunnelsAreBounded(t *testing.T) {
	p := NewPoints(Options{MaxTunnels: 1}) // a row for each direction
	sent := named(t, "sent_packets_total")
	at := time.Now()
	sum := func(n int) ledger.Totals {
		var all []*ledger.Tunnel
		for i := range n {
			all = append(all, inTunnel(fmt.Sprintf("10.0.0.%d", i+1), 1, &ledger.Inbound{Sent: new(int64(10))}))
		}
		return totals(all...)
	}
	points := p.Of(Sample{At: at, Totals: sum(5)})
	if diff := cmp.Diff(map[string]float64{
		"192.0.2.1 10.0.0.1 1 in": 10, "192.0.2.1 10.0.0.2 1 in": 10, "other other other in": 30,
	}, values(points, sent)); diff != "" {
		t.Error(diff)
	}
	if v := values(points, mOverflow)[""]; v != 3 {
		t.Errorf("%v tunnels beyond the bound, want 3", v)
	}
	// Of the first, no SA is alive any more.
	gone := sum(5)
	for _, u := range gone.Tunnels {
		if u.Remote == netip.MustParseAddr("10.0.0.1") {
			u.Alive = 0
		}
	}
	for _, step := range []struct {
		after time.Duration
		own   bool
	}{{kept / 2, true}, {kept, true}, {kept + time.Minute, false}, {3 * kept, false}} {
		points = p.Of(Sample{At: at.Add(step.after), Totals: gone})
		if _, ok := values(points, sent)["192.0.2.1 10.0.0.1 1 in"]; ok != step.own {
			t.Errorf("after %s the tunnel that ended has series: %v", step.after, ok)
		}
	}
	// It comes back and goes on where it stood.
	points = p.Of(Sample{At: at.Add(3*kept + time.Minute), Totals: sum(1)})
	if v, ok := values(points, sent)["192.0.2.1 10.0.0.1 1 in"]; !ok || v != 10 {
		t.Errorf("back again: %v", values(points, sent))
	}
}

// TestForgottenTunnels: what the totals forget of tunnels that shared a row stays in it, and takes no memory here.
func TestForgottenTunnels(t *testing.T) {
	p := NewPoints(Options{MaxTunnels: 1})
	sent, caused := named(t, "sent_packets_total"), mXfrmByCause
	at := time.Now()
	all := totals()
	for i := range 5 {
		u := inTunnel(fmt.Sprintf("10.0.0.%d", i+1), 1, &ledger.Inbound{Sent: new(int64(10))})
		u.Xfrm = map[ledger.Cause]int64{ledger.ReplayLate: 2}
		all.Tunnels[u.TunnelKey] = u
	}
	want := func(points []Point, packets, drops float64) {
		t.Helper()
		if diff := cmp.Diff([]float64{packets, drops}, []float64{
			values(points, sent)["other other other in"], values(points, caused)["other other other in replay_late"],
		}); diff != "" {
			t.Error(diff)
		}
	}
	want(p.Of(Sample{At: at, Totals: all}), 30, 6)
	for k, u := range all.Tunnels {
		u.Alive = 0
		if k.Remote == netip.MustParseAddr("10.0.0.4") || k.Remote == netip.MustParseAddr("10.0.0.5") {
			delete(all.Tunnels, k)
		}
	}
	want(p.Of(Sample{At: at.Add(time.Minute), Totals: all}), 30, 6)
	want(p.Of(Sample{At: at.Add(2 * kept), Totals: all}), 30, 6)
	if len(p.ended) != 2 {
		t.Errorf("%d tunnels are known to have ended, want 2", len(p.ended))
	}
	points := p.Of(Sample{At: at.Add(3 * kept), Totals: totals()})
	want(points, 30, 6)
	if len(p.ended) != 0 || len(p.shared) != 0 || values(points, mSAs)["other other other in"] != 0 {
		t.Errorf("%d tunnels that ended and %d that share are remembered for nothing", len(p.ended), len(p.shared))
	}
}

// TestStrangersHaveNoLabels: packets of invented SAs from invented addresses make no series.
func TestStrangersHaveNoLabels(t *testing.T) {
	p := NewPoints(Options{MaxDrops: 2})
	all := totals()
	all.Absent[ledger.In] = &ledger.WireSums{Packets: 1234}
	for i := range 50 {
		all.Drops[ledger.DropKey{Stage: "before_xfrm", Place: ledger.PlaceNetfilter, Function: fmt.Sprintf("f%d", i)}] = 1
	}
	ike := &ledger.IKE{}
	for i := range 50 {
		ike.Peers = append(ike.Peers, ledger.IKEPeer{Local: netip.AddrPortFrom(ours, 500), Remote: netip.AddrPortFrom(peerAddr(i), 500), Received: 2})
	}
	// Those that were forgotten are counted with them.
	ike.Gone = &ledger.IKEGone{Received: 7, Exchanges: []ledger.IKEExchanges{{Requester: ledger.Remote, Repeats: 3, Unanswered: 2}}}
	points := p.Of(Sample{At: time.Now(), Totals: all, IKE: ike})
	if diff := cmp.Diff(map[string]float64{"in": 1234}, values(points, mStrangers)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]float64{"other other local": 0, "other other remote": 107}, values(points, mIKE)); diff != "" {
		t.Error(diff)
	}
	for metric, n := range map[*Metric]float64{mIKERepeat: 3, mIKEFailed: 2} {
		if got := values(points, metric)["other other remote"]; got != n {
			t.Errorf("%s of strangers: %v, want %v", metric.Name, got, n)
		}
	}
	drops := values(points, mHostDrops)
	if len(drops) != 3 || drops["before_xfrm other other other"] != 48 {
		t.Errorf("drops: %v", drops)
	}
}

// TestEveryFindingHasASeries, whether or not it applies.
func TestEveryFindingHasASeries(t *testing.T) {
	p := NewPoints(Options{})
	got := values(p.Of(Sample{At: time.Now(), Totals: totals(), Findings: []verdict.Finding{
		{ID: verdict.PathLoss, Severity: verdict.Critical}, {ID: verdict.PathLoss, Severity: verdict.Critical}, {ID: verdict.SPIUnknown, Severity: verdict.Info},
	}}), mFinding)
	if len(got) != 3*len(verdict.Catalogue()) {
		t.Errorf("%d series for %d kinds", len(got), len(verdict.Catalogue()))
	}
	for labels, want := range map[string]float64{"path-loss critical": 2, "path-loss warning": 0, "spi-unknown info": 1} {
		if got[labels] != want {
			t.Errorf("%s: %v, want %v", labels, got[labels], want)
		}
	}
}

// TestPointsOfALedger draws up a real ledger, both directions.
func TestPointsOfALedger(t *testing.T) {
	g := &gateway{sas: 4, lost: 3}
	rolling := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, time.Hour)
	rolling.Observe(g.snapshot(100, time.Second))
	rolling.Observe(g.snapshot(100, time.Second))
	p := NewPoints(Options{})
	points := p.Of(Sample{At: g.at, Totals: rolling.Totals(), Report: rolling.Report(), XfrmStat: map[string]uint64{"XfrmInNoStates": 7, "XfrmInNewer": 1}})
	for name, want := range map[string]map[string]float64{
		"sent_packets_total":              {"192.0.2.1 10.0.0.0 1 in": 103, "192.0.2.1 10.0.0.1 2 in": 103},
		"unique_packets_total":            {"192.0.2.1 10.0.0.0 1 in": 100, "192.0.2.1 10.0.0.1 2 in": 100},
		"lost_on_path_packets_total":      {"192.0.2.1 10.0.0.0 1 in": 3, "192.0.2.1 10.0.0.1 2 in": 3},
		"on_wire_packets_total":           {"192.0.2.1 10.0.0.0 1 out": 100, "192.0.2.1 10.0.0.1 2 out": 100},
		"sas":                             {"192.0.2.1 10.0.0.0 1 in": 1, "192.0.2.1 10.0.0.1 2 in": 1, "192.0.2.1 10.0.0.0 1 out": 1, "192.0.2.1 10.0.0.1 2 out": 1},
		"xfrm_in_no_states_packets_total": {"": 7},
	} {
		if diff := cmp.Diff(want, values(points, named(t, name))); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	newer := 0
	for _, x := range points {
		if x.Metric.Name == "xfrmscope_xfrm_in_newer_packets_total" {
			newer++
		}
	}
	if newer != 1 {
		t.Error("a counter that this build does not know was left out")
	}
	if n := len(values(points, mSAInfo)); n != 4 {
		t.Errorf("%d SAs are described", n)
	}
}
