// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"

	"github.com/google/go-cmp/cmp"
)

// causes of xfrm_stat counters, for the drops that these scenarios cause. Under ESN the kernel counts
// packets below the window as integrity failures; only the cause tells them apart.
var counterOf = map[string]string{
	"replay_duplicate": "XfrmInStateSeqError",
	"replay_late":      "XfrmInStateSeqError",
	"esn_mis_epoch":    "XfrmInStateProtoError",
	"integrity_failed": "XfrmInStateProtoError",
	"no_state":         "XfrmInNoStates",
	"state_expired":    "XfrmInStateExpired",
	"state_invalid":    "XfrmInStateInvalid",
	"state_dir_error":  "XfrmInStateDirError",

	"acquire_error":    "XfrmAcquireError",
	"proto_error":      "XfrmInStateProtoError",
	"in_hdr_error":     "XfrmInHdrError",
	"inner_mode_error": "XfrmInStateModeError",

	"state_mismatch":       "XfrmInStateMismatch",
	"encap_mismatch":       "XfrmInStateMismatch",
	"tmpl_mismatch":        "XfrmInTmplMismatch",
	"no_pols":              "XfrmInNoPols",
	"pol_block":            "XfrmInPolBlock",
	"out_no_states":        "XfrmOutNoStates",
	"out_seq_error":        "XfrmOutStateSeqError",
	"out_pol_block":        "XfrmOutPolBlock",
	"out_pol_error":        "XfrmOutPolError",
	"out_bundle_gen_error": "XfrmOutBundleGenError",
}

// find picks an SA of the report by SPI and direction.
func (o observation) find(t *testing.T, spi uint32, direction string) sa {
	t.Helper()
	var found []sa
	for _, s := range o.report.SAs {
		if s.SPI == name(spi) && s.Direction == direction {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("the report has %d SAs %s %s, want one", len(found), name(spi), direction)
	}
	return found[0]
}

func name(spi uint32) string { return fmt.Sprintf("0x%08x", spi) }

// number is the SPI of a name.
func number(t *testing.T, name string) uint32 {
	t.Helper()
	spi, err := strconv.ParseUint(name, 0, 32)
	if err != nil {
		t.Fatalf("the report names an SPI %q: %v", name, err)
	}
	return uint32(spi)
}

// value is a figure of the report; what was not observed counts as nothing, and as a difference.
func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// checkIn demands that everything said about an SA inbound at gateway B equals what is known of it:
// the packets that the injector put on the wire, and what xfrm did to them by cause.
func (b *bench) checkIn(o observation, s tunnel.SA, causes map[string]int64) {
	b.t.Helper()
	spi := s.SPI
	truth := b.path.Truth(inject.AtoB, spi)
	got, want := o.find(b.t, spi, "in"), truth.Wire()
	dropped := sum(causes)
	diff(b.t, "wire of "+name(spi), &wire{
		Packets: int64(want.Packets), Bytes: int64(want.Bytes), FirstSeq: want.First, HighestSeq: want.Highest,
		Unique: int64(want.Unique), Duplicates: int64(want.Duplicates), Late: int64(want.Late), Missing: int64(want.Missing),
		ReorderExtent: int64(want.Extent), DisplacementMax: int64(want.Displacement), CE: int64(truth.Marked),
	}, got.Wire)
	diff(b.t, "causes of "+name(spi), causes, nonzero(got.Xfrm))
	accepted := int64(want.Packets) - dropped
	diff(b.t, "ledger of "+name(spi), bins{
		Sent: new(int64(want.Unique + want.Missing)), LostOnPath: new(int64(want.Missing)), Pending: new(int64(0)),
		Arrivals: new(int64(want.Packets)), Duplicates: new(int64(want.Duplicates)),
		LostInHost: new(int64(0)), XfrmDropped: new(dropped), Decapsulated: new(accepted), PolicyDropped: new(int64(0)),
		InnerDropped: new(int64(0)), Delivered: new(accepted),
		InFlight: new(int64(0)), Unattributed: new(int64(0)),
	}, got.Ledger)
	distinct, repeated := b.flows[spi].Delivered()
	diff(b.t, "datagrams delivered", accepted, int64(distinct+repeated))
}

// checkCarried holds an inbound SA of which xfrm dropped nothing against the truth, whatever it carried.
func (b *bench) checkCarried(s sa, truth inject.Truth) {
	b.t.Helper()
	want := truth.Wire()
	if want.Packets == 0 {
		if s.Wire != nil && s.Wire.Packets != 0 {
			b.t.Errorf("SA %s: nothing was on the wire, the report has %+v", s.SPI, s.Wire)
		}
		return
	}
	diff(b.t, "wire of "+s.SPI, &wire{
		Packets: int64(want.Packets), Bytes: int64(want.Bytes), FirstSeq: want.First, HighestSeq: want.Highest,
		Unique: int64(want.Unique), Duplicates: int64(want.Duplicates), Late: int64(want.Late), Missing: int64(want.Missing),
		ReorderExtent: int64(want.Extent), DisplacementMax: int64(want.Displacement), CE: int64(truth.Marked),
	}, s.Wire)
	diff(b.t, "ledger of "+s.SPI, bins{
		Sent: new(int64(want.Unique + want.Missing)), LostOnPath: new(int64(want.Missing)), Pending: new(int64(0)),
		Arrivals: new(int64(want.Packets)), Duplicates: new(int64(want.Duplicates)),
		LostInHost: new(int64(0)), XfrmDropped: new(int64(0)), Decapsulated: new(int64(want.Packets)), PolicyDropped: new(int64(0)),
		InnerDropped: new(int64(0)), Delivered: new(int64(want.Packets)),
		InFlight: new(int64(0)), Unattributed: new(int64(0)),
	}, s.Ledger)
}

// checkOut does the same for an SA outbound at gateway B, which sent packets and lost none.
func (b *bench) checkOut(o observation, spi uint32, packets int64) {
	b.t.Helper()
	got := o.find(b.t, spi, "out")
	diff(b.t, "packets on the path of "+name(spi), packets, int64(len(b.path.Truth(inject.BtoA, spi).In)))
	diff(b.t, "ledger of "+name(spi), bins{
		Offered: new(packets), XfrmOutDropped: new(int64(0)), Encapsulated: new(packets), OnWire: new(packets), LostOnEgress: new(int64(0)),
		InFlight: new(int64(0)), Unattributed: new(int64(0)),
	}, got.Ledger)
}

// checkSA demands that the report describes the SA as it was configured.
func (b *bench) checkSA(o observation, s tunnel.SA) {
	b.t.Helper()
	opt := b.tunnel.Options
	got := o.find(b.t, s.SPI, "in")
	got.Wire, got.Xfrm, got.Ledger = nil, nil, bins{}
	want := sa{SPI: name(s.SPI), Src: s.From.Outer.String(), Dst: s.To.Outer.String(), Proto: "esp", Direction: "in",
		Encap: "none", Mode: string(opt.Mode), ReqID: s.ReqID, ReplayWindow: new(s.ReplayWindow), ESN: new(opt.ESN)}
	if opt.UDP {
		want.Encap = "udp"
	}
	diff(b.t, "description of "+want.SPI, want, got)
}

// checkStat demands that the counters of gateway B's namespace moved by these causes and by nothing
// else: read by the test, and in the report.
func (b *bench) checkStat(o observation, causes map[string]int64) {
	b.t.Helper()
	expected := map[string]int64{}
	for cause, n := range causes {
		counter, ok := counterOf[cause]
		if !ok {
			b.t.Fatalf("no counter is known for cause %q", cause)
		}
		expected[counter] += n
	}
	diff(b.t, "xfrm_stat read by the test", expected, o.stat)
	diff(b.t, "xfrm_stat in the report", expected, nonzero(o.report.Kernel.XfrmStat))
	if o.report.Kernel.Reconciled == nil || !*o.report.Kernel.Reconciled || len(o.report.Kernel.Disagreements) != 0 {
		b.t.Errorf("the report is not reconciled with the kernel: %q", o.report.Kernel.Disagreements)
	}
}

// checkCounters demands that the SA's own counters in gateway B's kernel say the same. An SA that is
// gone has none any more.
func (b *bench) checkCounters(s tunnel.SA, causes map[string]int64) {
	b.t.Helper()
	counters, err := s.Counters(b.tunnel.B)
	if errors.Is(err, tunnel.ErrNoSA) && causes["no_state"]+causes["state_expired"] > 0 {
		return
	}
	if err != nil {
		b.t.Fatal(err)
	}
	diff(b.t, "counters of SA "+name(s.SPI), tunnel.SACounters{
		Packets: uint64(b.path.Truth(inject.AtoB, s.SPI).Wire().Packets) - uint64(sum(causes)),
		Bytes:   counters.Bytes, ReplayLate: uint64(causes["replay_late"]), ReplayDuplicate: uint64(causes["replay_duplicate"]),
		IntegrityFailed: uint64(causes["integrity_failed"] + causes["esn_mis_epoch"]),
	}, counters)
}

// checkOne is the whole check of a run in which one SA carried everything.
func (b *bench) checkOne(o observation, s tunnel.SA, causes map[string]int64) {
	b.t.Helper()
	b.checkIn(o, s, causes)
	b.checkCounters(s, causes)
	b.checkStat(o, causes)
	o.checkSelf(b.t)
}

// checkFindings demands exactly these findings, each written as "id" or "id spi".
func (o observation) checkFindings(t *testing.T, want ...string) {
	t.Helper()
	got, alarming := []string{}, false
	for _, f := range o.report.Findings {
		got = append(got, strings.TrimSpace(f.ID+" "+f.Subject.SPI))
		alarming = alarming || f.Severity != "info"
		if f.Confidence <= 0 || f.Confidence > 1 || len(f.Evidence) == 0 || len(f.Remedy) == 0 || f.Summary == "" {
			t.Errorf("finding %s lacks confidence, evidence, remedy or summary: %+v", f.ID, f)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	diff(t, "findings", append([]string{}, want...), got)
	exit := 0
	if alarming {
		exit = 1
	}
	diff(t, "exit status", exit, o.exit)
}

// skippedRuns is how many runs of a program the kernel may skip in a scenario: a program does not begin on a processor where it
// is running already, and where the kernel takes the processor from it in the middle (PREEMPT_LAZY, from 6.13 on), a packet of
// another task finds it so. It is told in the report.
const skippedRuns = 2

// checkSelf demands that xfrmscope lost nothing itself.
func (o observation) checkSelf(t *testing.T) {
	t.Helper()
	diff(t, "schema", "xfrmscope/1", o.report.Schema)
	got := o.report.Self
	got.NsPerRun = nil
	if kernelSince(t, 6, 13) && got.RecursionMisses <= skippedRuns {
		got.RecursionMisses = 0
	}
	diff(t, "self", self{}, got)
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// nonzero leaves out what did not occur: whether a zero is spelled out is not the question here.
func nonzero(m map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for k, v := range m {
		if v != 0 {
			out[k] = v
		}
	}
	return out
}

// predicted turns the replay check's prediction into the report's causes.
func predicted(r inject.Replay) map[string]int64 {
	return nonzero(map[string]int64{
		"replay_duplicate": int64(r.Duplicate), "replay_late": int64(r.Late),
		"esn_mis_epoch": int64(r.MisEpoch), "integrity_failed": int64(r.Integrity),
	})
}
