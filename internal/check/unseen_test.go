// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"strings"
	"testing"

	"xfrmscope/internal/check"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/report"
)

// blind is a host where the stack hooks could not be attached.
func blind() report.Document {
	w := ledgertest.New()
	w.BlindStack = true
	in := w.Inbound(0xc0ffee01, 32, false)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.SetHooks([]ledger.Hook{
		{Name: "wire ingress wan", Attached: true},
		{Name: "kfree_skb", Why: "no BTF"},
		{Name: "kfree_skb outside xfrm", Why: "no BTF"},
	})
	l.Observe(w.Snapshot())
	in.Deliver(100)
	l.Observe(w.Snapshot())
	return report.New(l.Report())
}

// TestUnseen holds that what nobody observed passes no expectation, and says which hook it lacks.
func TestUnseen(t *testing.T) {
	d := blind()
	for source, want := range map[string]string{
		"loss == 0":                    "loss was not observed: hook kfree_skb is missing (no BTF)",
		"loss < 5":                     "loss was not observed",
		"loss >= 0":                    "loss was not observed",
		"!(loss > 0)":                  "loss was not observed",
		"sa.no_state == 0":             "sa.no_state was not observed: hook kfree_skb is missing (no BTF)",
		"sa.lost_in_host == 0":         "hook kfree_skb outside xfrm is missing",
		"all(sas, .pol_block == 0)":    ".pol_block was not observed",
		"sum(sas, .pol_block) == 0":    ".pol_block was not observed",
		`drops["ip_rcv"] == 0`:         "drops outside xfrm are not observed",
		`drops["xfrm_input"] == 0`:     "drops outside xfrm are not observed",
		"len(drops) == 0":              "drops was not observed",
		"flows.seen == 0":              "flows was not observed",
		"observed(loss)":               "",
		"sa.replay_late == 0":          "-", // the SA's own counter tells
		"lost_on_path == 0":            "-",
		"!observed(loss) or loss == 0": "-",
		"(loss ?? 0) == 0":             "-",
		"(sa.ledger.lost_in_host ?? 0) + sa.lost_on_path == 0": "-",
		"!observed(drops)":      "-",
		"!observed(flows.seen)": "-",
	} {
		e, err := check.Compile(source, "test")
		if err != nil {
			t.Fatal(err)
		}
		r, err := check.Judge(check.Facts{Report: d}, []*check.Expectation{e})
		if err != nil {
			t.Fatal(err)
		}
		if want == "-" {
			if !r[0].Passed {
				t.Errorf("%s: %+v", source, r[0])
			}
			continue
		}
		if r[0].Passed || !strings.Contains(r[0].Reason, want) {
			t.Errorf("%s: %+v, want %q", source, r[0], want)
		}
	}
}

// TestNothingSeen holds that a quantifier over no SA proves nothing.
func TestNothingSeen(t *testing.T) {
	w := ledgertest.New()
	d := report.New(w.Run(func() {}))
	if r := judge(t, d, "sa.replay_late == 0"); r.Passed || r.Reason != "there is no SA that this can be judged for" {
		t.Errorf("%+v", r)
	}
	// Without an SA the sums are 0 only where an SA would have been seen.
	if r := judge(t, d, "loss == 0"); r.Passed {
		t.Errorf("%+v", r)
	}
	d.Packets = &ledger.PacketStats{}
	for _, source := range []string{"all(sas, .replay_late == 0)", "loss == 0", "findings.none", "unattributed == 0"} {
		if r := judge(t, d, source); !r.Passed {
			t.Errorf("%+v", r)
		}
	}
	// A function that this kernel does not have is not one that dropped nothing.
	if r := judge(t, d, `drops["ip_rvc"] == 0`); r.Passed || !strings.Contains(r.Reason, "this kernel has no function ip_rvc") {
		t.Errorf("%+v", r)
	}
}

func TestDefaults(t *testing.T) {
	r, err := check.Judge(check.Facts{Report: faulty()}, check.Defaults(faulty()))
	if err != nil {
		t.Fatal(err)
	}
	if r[0].Passed || !r[1].Passed {
		t.Errorf("%+v", r)
	}
}
