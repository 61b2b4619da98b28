// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// rig is a tunnel with an injector on its path and the receiving gateway under watch.
type rig struct {
	*baseline
	tunnel   *tunnel.Tunnel
	injector *inject.Injector
	flow     *traffic.Flow
	sa       tunnel.SA
}

func raise(t *testing.T, o tunnel.Options, s Setup, rules ...inject.Rule) *rig {
	t.Helper()
	tun, err := tunnel.Build(o)
	check(t, err)
	t.Cleanup(func() { closing(t, tun.Close) })
	in, err := inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: tun.Path.Do}, rules...)
	check(t, err)
	t.Cleanup(func() { closing(t, in.Close) })
	sa := tun.AtoB[0]
	flow, err := traffic.Open(traffic.Ends{From: tun.A.Do, To: tun.B.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port})
	check(t, err)
	t.Cleanup(func() { closing(t, flow.Close) })
	return &rig{watch(t, tun.B.Namespace, s), tun, in, flow, sa}
}

func closing(t *testing.T, f func() error) {
	t.Helper()
	if err := f(); err != nil {
		t.Error(err)
	}
}

// send sends datagrams and waits until the path is quiet.
func (r *rig) send(count int) {
	r.t.Helper()
	check(r.t, r.flow.Send(count, 200*time.Microsecond))
	check(r.t, r.injector.Quiet(150*time.Millisecond, 20*time.Second))
}

// craft puts a packet on the path that no gateway sent.
func (r *rig) craft(spi, seq uint32, udp bool) {
	r.t.Helper()
	r.injector.Send(inject.AtoB, inject.Crafted{
		SrcMAC: r.tunnel.A.MAC, DstMAC: r.tunnel.B.MAC, Src: r.tunnel.A.Outer, Dst: r.tunnel.B.Outer,
		UDP: udp, SPI: spi, Seq: seq, Payload: make([]byte, 64),
	})
	check(r.t, r.injector.Quiet(50*time.Millisecond, 20*time.Second))
}

// only demands exactly these causes, all of them of the tunnel's SA.
func (r *rig) only(got Reading, causes map[string]uint64) SA {
	r.t.Helper()
	if len(got.Residue) > 0 {
		r.t.Errorf("residue: %v", got.Residue)
	}
	if len(causes) == 0 {
		if len(got.SAs) > 0 || len(got.Unknown) > 0 {
			r.t.Errorf("drops where there were none: %+v %v", got.SAs, got.Unknown)
		}
		return SA{}
	}
	if len(got.SAs) != 1 || len(got.Unknown) > 0 {
		r.t.Fatalf("want one SA and no unknown SPI, have %+v and %v", got.SAs, got.Unknown)
	}
	sa := got.SAs[0]
	if sa.SPI != r.sa.SPI || sa.Dst != r.tunnel.B.Outer || sa.Proto != 50 || sa.Dir != 0 || sa.ReqID != r.sa.ReqID {
		r.t.Errorf("wrong SA: %+v", sa)
	}
	if diff := cmp.Diff(causes, sa.Causes); diff != "" {
		r.t.Errorf("causes (-want +got):\n%s", diff)
	}
	return sa
}

func rule(action inject.Action, seqs []uint32, after int) inject.Rule {
	return inject.Rule{Direction: inject.AtoB, SPI: tunnel.FirstSPIAtoB, Action: action, Seqs: seqs, After: after}
}

// kinds of tunnel that each fault is tried on.
var kinds = []struct {
	name string
	tunnel.Options
}{
	{"IPv4", tunnel.Options{}},
	{"IPv4 large window", tunnel.Options{ReplayWindow: 128}},
	{"IPv4 ESN", tunnel.Options{ReplayWindow: 64, ESN: true}},
	{"IPv4 UDP", tunnel.Options{UDP: true}},
	{"IPv4 transport", tunnel.Options{Mode: tunnel.TransportMode}},
	{"IPv6", tunnel.Options{Family: 6}},
	{"IPv6 ESN", tunnel.Options{Family: 6, ReplayWindow: 32, ESN: true}},
}

func TestClean(t *testing.T) {
	tunnel.Need(t)
	r := raise(t, tunnel.Options{}, Setup{})
	r.send(100)
	r.only(r.agree(), nil)
}

// One run holds every fault of the receive path that the sequence number explains.
func TestReceiveFaults(t *testing.T) {
	tunnel.Need(t)
	for _, tc := range kinds {
		t.Run(tc.name, func(t *testing.T) {
			window := uint32(32)
			if tc.ReplayWindow > 0 {
				window = tc.ReplayWindow
			}
			late := inject.Every(100, 106, 1)
			r := raise(t, tc.Options, Setup{},
				rule(inject.Duplicate, inject.Every(10, 14, 1), 0),
				rule(inject.Duplicate, inject.Every(20, 22, 1), int(window)-5),
				rule(inject.Delay, []uint32{40}, int(window)-1),
				rule(inject.Delay, late, int(window)+20),
				rule(inject.Corrupt, inject.Every(60, 68, 1), 0))
			r.send(500)
			truth := r.injector.Truth(inject.AtoB, r.sa.SPI).Replay(0, window, tc.ESN)
			t.Logf("truth: %+v", truth)
			want := map[string]uint64{}
			for cause, n := range map[string]int{
				"replay_duplicate": truth.Duplicate, "replay_late": truth.Late,
				"esn_mis_epoch": truth.MisEpoch, "integrity_failed": truth.Integrity,
			} {
				if n > 0 {
					want[cause] = uint64(n)
				}
			}
			sa := r.only(r.agree(), want)
			if beyond := truth.Late + truth.MisEpoch; sa.Window != window || sa.Late != uint64(beyond) {
				t.Errorf("window %d and %d late, want %d and %d", sa.Window, sa.Late, window, beyond)
			}
			if worst := r.checkEvents(truth, late); sa.LateMax != worst || worst < uint64(window)+20 {
				t.Errorf("late by at most %d; the events say %d; injected were at least %d", sa.LateMax, worst, window+20)
			}
		})
	}
}

// checkEvents holds what the events say of late packets against what was injected, and gives the
// largest distance below the top.
func (r *rig) checkEvents(truth inject.Replay, late []uint32) (worst uint64) {
	r.t.Helper()
	events, err := r.watch.Events()
	check(r.t, err)
	if want := truth.Duplicate + truth.Late + truth.MisEpoch + truth.Integrity; len(events) != want {
		r.t.Errorf("%d events, want %d", len(events), want)
	}
	told := map[uint64]bool{}
	for _, e := range events {
		if e.SPI != r.sa.SPI {
			r.t.Errorf("event of another SA: %+v", e)
		}
		switch e.Cause {
		case "replay_late", "esn_mis_epoch":
			told[e.Seq] = true
			worst = max(worst, uint64(e.Distance))
			if e.Top-e.Seq != uint64(e.Distance) || e.Distance < int64(e.Window) {
				r.t.Errorf("late by %d, but number %d below %d with window %d", e.Distance, e.Seq, e.Top, e.Window)
			}
		case "replay_duplicate":
			if e.Seq > e.Top || e.Top-e.Seq >= uint64(e.Window) {
				r.t.Errorf("no duplicate: number %d, top %d, window %d", e.Seq, e.Top, e.Window)
			}
		}
	}
	for _, seq := range late {
		if !told[uint64(seq)] {
			r.t.Errorf("no event says that %d was late", seq)
		}
	}
	if len(events) > 0 {
		e := events[0]
		r.t.Logf("%s freed at %s, reason %q, %s", e.Cause, r.watch.Symbols.Name(e.Location), r.watch.Tables.ReasonName(e.Reason), r.watch.Tables.CounterName(e.Counter))
	}
	return worst
}

// With fewer hooks less is told apart, but as much is counted.
func TestFewerHooks(t *testing.T) {
	tunnel.Need(t)
	for _, tc := range []struct {
		name string
		Setup
		esn  bool
		want map[string]uint64
	}{
		{"kprobes", Setup{Kprobes: true}, false, map[string]uint64{"replay_duplicate": 5, "replay_late": 3, "integrity_failed": 4}},
		{"kprobes ESN", Setup{Kprobes: true}, true, map[string]uint64{"replay_duplicate": 5, "esn_mis_epoch": 3, "integrity_failed": 4}},
		{"no symbols", Setup{NoSymbols: true}, false, map[string]uint64{"replay_duplicate": 5, "replay_late": 3, "integrity_failed": 4}},
		{"no audit hooks", Setup{NoAudit: true}, false, map[string]uint64{"replay_duplicate": 5, "replay_late": 3, "proto_error": 4}},
		{"no audit hooks ESN", Setup{NoAudit: true}, true, map[string]uint64{"replay_duplicate": 5, "esn_mis_epoch": 3, "proto_error": 4}},
		{"audit hooks only", Setup{NoKfree: true}, false, map[string]uint64{"replay_duplicate": 5, "replay_late": 3, "integrity_failed": 4}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := raise(t, tunnel.Options{ESN: tc.esn}, tc.Setup,
				rule(inject.Duplicate, inject.Every(10, 14, 1), 0),
				rule(inject.Delay, inject.Every(50, 52, 1), 60),
				rule(inject.Corrupt, inject.Every(30, 33, 1), 0))
			r.send(200)
			for seq := range 6 {
				r.craft(0xbad00001, uint32(seq), false)
			}
			got := r.agree()
			if n := got.Unknown[fmt.Sprintf("%s 0xbad00001", r.tunnel.B.Outer)]; n != 6 {
				t.Errorf("%d packets of the unknown SPI, want 6", n)
			}
			got.Unknown = nil
			r.only(got, tc.want)
		})
	}
}
