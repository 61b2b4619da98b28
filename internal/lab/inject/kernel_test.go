// SPDX-License-Identifier: Apache-2.0

package inject_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"

	"github.com/google/go-cmp/cmp"
)

// pace leaves the emulated machines of the lab time for each packet.
const pace = 500 * time.Microsecond

// kernelView is what the receiving kernel says about the traffic, in the words of the prediction.
type kernelView struct {
	inject.Replay
	Delivered int
	Stat      map[string]uint64
}

// TestInjectorAgainstKernel holds the injector's account against the receiving kernel's counters,
// with nothing else there: what the scenarios take for the truth has to be true first.
func TestInjectorAgainstKernel(t *testing.T) {
	tunnel.Need(t)
	const spi, packets = tunnel.FirstSPIAtoB, 200
	rule := func(r inject.Rule) []inject.Rule {
		r.SPI = spi
		return []inject.Rule{r}
	}
	rows := []struct {
		name    string
		options tunnel.Options
		rules   []inject.Rule
		stat    map[string]uint64
	}{
		{name: "clean"},
		{name: "clean v6", options: tunnel.Options{Family: 6}},
		{name: "clean esn", options: tunnel.Options{ESN: true, ReplayWindow: 128}},
		{name: "clean udp", options: tunnel.Options{UDP: true}},
		{name: "clean udp v6", options: tunnel.Options{UDP: true, Family: 6}},
		{name: "clean transport", options: tunnel.Options{Mode: tunnel.TransportMode}},
		{name: "clean transport udp v6", options: tunnel.Options{Mode: tunnel.TransportMode, UDP: true, Family: 6}},
		{name: "esn across the wrap", options: tunnel.Options{ESN: true, ReplayWindow: 64, LastSeq: 0xffffff9b}},
		{name: "drop", rules: rule(inject.Rule{Seqs: []uint32{3, 50, 51, 52, 199}})},
		{name: "duplicate", rules: rule(inject.Rule{Action: inject.Duplicate, Seqs: inject.Every(10, 190, 20), Copies: 2}),
			stat: map[string]uint64{"XfrmInStateSeqError": 20}},
		{name: "duplicate later", rules: rule(inject.Rule{Action: inject.Duplicate, Seqs: []uint32{10, 80}, After: 7}),
			stat: map[string]uint64{"XfrmInStateSeqError": 2}},
		{name: "delay inside the window", rules: rule(inject.Rule{Action: inject.Delay, Seqs: inject.Every(10, 150, 35), After: 31})},
		{name: "delay one beyond the window", rules: rule(inject.Rule{Action: inject.Delay, Seqs: inject.Every(10, 150, 35), After: 32}),
			stat: map[string]uint64{"XfrmInStateSeqError": 5}},
		{name: "delay beyond the window under esn", options: tunnel.Options{ESN: true, ReplayWindow: 32},
			rules: rule(inject.Rule{Action: inject.Delay, Seqs: inject.Every(40, 150, 55), After: 32}),
			stat:  map[string]uint64{"XfrmInStateProtoError": 3}},
		{name: "large window", options: tunnel.Options{ReplayWindow: 100},
			rules: rule(inject.Rule{Action: inject.Delay, Seqs: []uint32{5}, After: 99})},
		{name: "corrupt", rules: rule(inject.Rule{Action: inject.Corrupt, Seqs: []uint32{1, 100, 200}}),
			stat: map[string]uint64{"XfrmInStateProtoError": 3}},
		{name: "corrupt udp v6", options: tunnel.Options{UDP: true, Family: 6},
			rules: rule(inject.Rule{Action: inject.Corrupt, Seqs: []uint32{1, 100, 200}}),
			stat:  map[string]uint64{"XfrmInStateProtoError": 3}},
		{name: "hold", rules: rule(inject.Rule{Action: inject.Hold, Seqs: []uint32{20, 190}}),
			stat: map[string]uint64{"XfrmInStateSeqError": 1}},
		{name: "no window", options: tunnel.Options{NoReplay: true},
			rules: rule(inject.Rule{Action: inject.Duplicate, Seqs: []uint32{7, 9}})},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.stat == nil {
				row.stat = map[string]uint64{}
			}
			truth, got, o := send(t, row.options, row.rules, packets)
			want := kernelView{Replay: truth.Replay(uint64(o.LastSeq), o.ReplayWindow, o.ESN), Stat: row.stat}
			want.Delivered = want.Accepted
			if o.ESN { // the kernel cannot tell the two apart: xfrm_replay_check_esn
				want.Integrity += want.MisEpoch
				want.MisEpoch = 0
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("kernel against injector (-want +got):\n%s", diff)
			}
			if len(truth.In) != packets {
				t.Errorf("the injector saw %d packets, %d were sent", len(truth.In), packets)
			}
		})
	}
}

// send runs packets through a tunnel with faults and returns both sides' account of it.
func send(t *testing.T, o tunnel.Options, rules []inject.Rule, packets int) (inject.Truth, kernelView, tunnel.Options) {
	t.Helper()
	tun, err := tunnel.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, tun.Close)
	before, err := tun.B.XfrmStat()
	if err != nil {
		t.Fatal(err)
	}
	in, err := inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: tun.Path.Do}, rules...)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, in.Close)
	sa := tun.AtoB[0]
	flow, err := traffic.Open(traffic.Ends{From: tun.A.Do, To: tun.B.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, flow.Close)
	if err := flow.Send(packets, pace); err != nil {
		t.Fatal(err)
	}
	settle(t, in)
	in.Release()
	settle(t, in)
	delivered, repeated := flow.Delivered()
	got := kernelView{Delivered: delivered + repeated, Stat: moved(t, tun.B, before)}
	counters, err := sa.Counters(tun.B)
	if err != nil {
		t.Fatal(err)
	}
	got.Replay = inject.Replay{Accepted: int(counters.Packets), Duplicate: int(counters.ReplayDuplicate),
		Late: int(counters.ReplayLate), Integrity: int(counters.IntegrityFailed)}
	return in.Truth(inject.AtoB, sa.SPI), got, tun.Options
}

func settle(t *testing.T, in *inject.Injector) {
	t.Helper()
	if err := in.Quiet(200*time.Millisecond, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func closing(t *testing.T, close func() error) {
	t.Helper()
	if err := close(); err != nil {
		t.Error(err)
	}
}

// moved is the counters that grew.
func moved(t *testing.T, g *tunnel.Gateway, before map[string]uint64) map[string]uint64 {
	t.Helper()
	after, err := g.XfrmStat()
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range after {
		if after[name] = n - before[name]; after[name] == 0 {
			delete(after, name)
		}
	}
	return after
}

func TestUnknownSPI(t *testing.T) {
	tunnel.Need(t)
	for _, udp := range []bool{false, true} {
		for _, family := range []int{4, 6} {
			unknownSPI(t, tunnel.Options{Family: family, UDP: udp})
		}
	}
}

func unknownSPI(t *testing.T, o tunnel.Options) {
	t.Helper()
	tun, err := tunnel.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, tun.Close)
	before, err := tun.B.XfrmStat()
	if err != nil {
		t.Fatal(err)
	}
	in, err := inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: tun.Path.Do})
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, in.Close)
	for seq := range uint32(5) {
		in.Send(inject.AtoB, inject.Crafted{
			SrcMAC: tun.A.MAC, DstMAC: tun.B.MAC, Src: tun.A.Outer, Dst: tun.B.Outer, UDP: o.UDP,
			SPI: 0xdeadbeef, Seq: 1 + seq, Payload: bytes.Repeat([]byte{1}, 100),
		})
	}
	settle(t, in)
	if diff := cmp.Diff(map[string]uint64{"XfrmInNoStates": 5}, moved(t, tun.B, before)); diff != "" {
		t.Errorf("family %d, udp %v (-want +got):\n%s", o.Family, o.UDP, diff)
	}
	if got := in.Truth(inject.AtoB, 0xdeadbeef).Count(inject.Made); got != 5 {
		t.Errorf("the injector's account has %d made packets, want 5", got)
	}
}

func TestDeletedSA(t *testing.T) {
	tunnel.Need(t)
	tun, err := tunnel.Build(tunnel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, tun.Close)
	if err := tun.AtoB[0].Delete(tun.B); err != nil {
		t.Fatal(err)
	}
	if _, err := tun.AtoB[0].Counters(tun.B); !errors.Is(err, tunnel.ErrNoSA) {
		t.Errorf("Counters = %v, want %v", err, tunnel.ErrNoSA)
	}
}
