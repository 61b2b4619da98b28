// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"testing"
	"time"

	"xfrmscope/internal/check"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
)

// transit is a host that forwards somebody else's ESP and dropped two packets of it.
func transit() report.Document {
	d := faulty()
	sa := ledger.SA{SPI: 0xdead0001, Src: d.SAs[0].Src, Dst: d.SAs[0].Src, Proto: ledger.ESP, Direction: ledger.Unknown,
		State: ledger.Absent, Wire: d.SAs[0].Wire}
	sa.Ledger.In = &ledger.Inbound{Sent: new(int64(50)), LostOnPath: new(int64(3)), Arrivals: new(int64(47))}
	d.SAs = []ledger.SA{sa}
	d.Kernel.WithoutSA = map[ledger.Cause]int64{}
	d.UnknownSPIs = []ledger.Stranger{}
	d.Drops = []ledger.Drop{{Stage: ledger.BeforeXfrm, SPI: sa.SPI, Dst: sa.Dst, Proto: sa.Proto, Direction: sa.Direction,
		Function: "ip_forward", Lost: true, Packets: 2}}
	return d
}

// TestTransit holds that an SA which passes through is judged by the wire and by what this host dropped of it,
// and that xfrm's bins, which it has none of, neither fail nor pass it.
func TestTransit(t *testing.T) {
	d := transit()
	for source, want := range map[string]bool{
		"loss == 5":                true,
		"sa.loss == 5":             true,
		"lost_on_path == 3":        true,
		"unattributed == 0":        true,
		"sa.unattributed == 0":     false, // there is no SA that it could be judged for
		"sa.lost_in_host == 0":     false,
		`drops["ip_forward"] == 2`: true,
	} {
		if r := judge(t, d, source); r.Passed != want {
			t.Errorf("%s: %+v", source, r)
		}
	}
	// Where nobody watches for drops, nobody knows what was lost here.
	d.Drops = nil
	if r := judge(t, d, "loss == 3"); r.Passed {
		t.Errorf("%+v", r)
	}
}

// TestManySAs judges a gateway of ten thousand.
func TestManySAs(t *testing.T) {
	d := faulty()
	one := d.SAs[1]
	d.SAs = nil
	for i := range 10000 {
		one.SPI = ledger.SPI(i)
		d.SAs = append(d.SAs, one)
	}
	var expected []*check.Expectation
	want := []bool{}
	for _, c := range []struct {
		source string
		passes bool
	}{
		{"sa.replay_late < 10 and sa.unattributed == 0", true},
		{"all(sas, .lost_on_path == 0)", true},
		{"sum(inbound, .sent) == 540000", true},
		{"len(filter(sas, .ledger.lost_in_host == 4)) == 10000", true},
		{"sa.lost_in_host == 0", false},
	} {
		e, err := check.Compile(c.source, "test")
		if err != nil {
			t.Fatal(err)
		}
		expected, want = append(expected, e), append(want, c.passes)
	}
	begin := time.Now()
	results, err := check.Judge(check.Facts{Report: d}, expected)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("judged in %s", time.Since(begin))
	for i, r := range results {
		if r.Passed != want[i] || len(r.Figures) > 32 || len(r.Reason) > 1000 {
			t.Errorf("%+v", r)
		}
	}
}
