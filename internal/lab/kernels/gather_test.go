// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

const output = `=== RUN   TestGood
--- PASS: TestGood (0.10s)
PASS
ok   scenario TestGood 1.5s on 6.12.1+deb12-cloud-amd64
=== RUN   TestCannot
    a_test.go:12: this kernel has no such thing
--- SKIP: TestCannot (0.00s)
PASS
ok   scenario TestCannot 0.2s on 6.12.1+deb12-cloud-amd64
=== RUN   TestPart
=== RUN   TestPart/first
    b_test.go:7: not this half
    --- SKIP: TestPart/first (0.00s)
=== RUN   TestPart/second
--- PASS: TestPart (0.00s)
ok   alpha TestPart 0.2s on 6.12.1+deb12-cloud-amd64
=== RUN   TestBad
    c_test.go:9: wrong
--- FAIL: TestBad (0.00s)
FAIL scenario TestBad 0.2s on 6.12.1+deb12-cloud-amd64 (status 1)
`

// TestGather makes a record of a run, and demands that the notes of a test that failed are left out.
func TestGather(t *testing.T) {
	report := func(sas string) json.RawMessage { return json.RawMessage(`{"sas": [` + sas + `]}`) }
	notes := []Note{
		{Test: "TestGood/a", Program: &Program{Object: "wire", Name: "xdp_ingress", Ways: []Way{{Name: "xdp native"}}}},
		{Test: "TestBad", Features: []Feature{{Name: "tcx (6.6)", State: "no"}}},
		{Test: "TestGood", Features: []Feature{{Name: "tcx (6.6)", State: "yes"}}},
		{Test: "TestGood", Hooks: []ledger.Hook{{Name: "kfree_skb", Attached: true, Why: "raw_tp"}}},
		{Test: "TestGood/b", Report: report(`{"direction": "in", "xfrm": {"integrity_failed": 3, "replay_late": 0},
			"ledger": {"sent": 7, "pending": 0, "lost_in_host": null}}`)},
		{Test: "TestGood/c", Report: report(`{"direction": "in", "ledger": {"sent": 1}}`)},
		{Test: "TestPart", Report: report(`{"direction": "in", "ledger": {"sent": 2}}, {"direction": "out", "ledger": {"offered": 5}}`)},
		{Test: "TestBad", Report: report(`{"direction": "out", "xfrm": {"no_state": 1}, "ledger": {"on_wire": 9}}`)},
	}
	r, err := Gather("6.12", "2026-01-02", strings.NewReader(output), notes)
	if err != nil {
		t.Fatal(err)
	}
	bins := map[string]Bin{}
	for _, b := range r.Bins {
		bins[string(b.Direction)+" "+b.Name] = b
	}
	for name, want := range map[string]Bin{
		"in sent":         {ledger.In, "sent", true, []string{"TestGood", "TestPart"}},
		"in pending":      {ledger.In, "pending", true, nil},
		"in lost_in_host": {ledger.In, "lost_in_host", false, nil},
		"out offered":     {ledger.Out, "offered", true, []string{"TestPart"}},
		"out on_wire":     {ledger.Out, "on_wire", false, nil},
	} {
		if diff := cmp.Diff(want, bins[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	r.Bins = nil
	want := Record{
		Name: "6.12", Release: "6.12.1+deb12-cloud-amd64", Date: "2026-01-02",
		Features: notes[2].Features, Programs: []Program{*notes[0].Program}, Hooks: notes[3].Hooks,
		Causes: []Cause{{"integrity_failed", []string{"TestGood"}}},
		Tests: []Test{
			{"alpha", "TestPart", Passed, "first: not this half"}, {"scenario", "TestBad", Failed, ""},
			{"scenario", "TestCannot", Declined, "this kernel has no such thing"}, {"scenario", "TestGood", Passed, ""},
		},
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

// TestGatherRefuses what would make a record of nothing or of two kernels.
func TestGatherRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":     "[run] kernel 6.12 did not boot, tried twice\n",
		"two kernels": "ok   a TestA 1.0s on 6.1.0\nok   a TestB 1.0s on 6.12.1\n",
	} {
		if _, err := Gather("6.12", "2026-01-02", strings.NewReader(text), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestOf finds a kernel's record by its release.
func TestOf(t *testing.T) {
	records := []Record{
		{Name: "5.10", Release: "5.10.0-46-cloud-amd64"}, {Name: "6.1", Release: "6.1.0-56-cloud-amd64"},
		{Name: "6.12", Release: "6.12.117+deb12-cloud-amd64"}, {Name: "7", Release: "7.3.4+deb13-cloud-amd64"},
		{Name: "6.12-arm64", Release: "6.12.117+deb12-cloud-arm64"},
	}
	for release, want := range map[string]string{
		"6.1.0-99-cloud-amd64": "6.1", "6.12.200+deb12-cloud-amd64": "6.12", "7.10.1+deb14-cloud-amd64": "7",
		"6.12.117+deb12-cloud-arm64": "6.12-arm64", "5.10.0-1-amd64": "5.10", "6.18.15+deb13-cloud-amd64": "", "5.1.0-amd64": "",
	} {
		if r, _ := Of(records, release); r.Name != want {
			t.Errorf("%s: record %q, want %q", release, r.Name, want)
		}
	}
}

// TestOrder puts the oldest kernel first and other processors last.
func TestOrder(t *testing.T) {
	for _, pair := range [][2]string{{"5.10", "6.1"}, {"6.1", "6.12"}, {"6.12", "7"}, {"7", "6.1-arm64"}, {"6.1-arm64", "6.12-arm64"}} {
		if compare(pair[0], pair[1]) >= 0 || compare(pair[1], pair[0]) <= 0 {
			t.Errorf("%s is not before %s", pair[0], pair[1])
		}
	}
}
