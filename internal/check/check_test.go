// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"errors"
	"strings"
	"testing"

	"xfrmscope/internal/check"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/report"
)

// faulty is a gateway with one of each: an inbound SA that lost 7 packets on the path and 3 to its replay
// window, one that is well, and an outbound one that xfrm refused 6 packets for.
func faulty() report.Document {
	w := ledgertest.New()
	bad, well, out := w.Inbound(0xc0ffee01, 32, false), w.Inbound(0xc0ffee03, 32, false), w.Outbound(0xc0ffee02)
	return report.New(w.Run(func() {
		bad.Deliver(100)
		bad.Lose(7)
		bad.Deliver(100)
		bad.Reorder(3, 90)
		bad.Repeat(2, 1)
		well.Deliver(50)
		well.Stop(4, "nf_hook_slow", "NETFILTER_DROP", "input")
		out.Send(40)
		out.Drop(6, ledger.OutModeError)
		w.DropLone(5, ledger.OutNoStates)
	}))
}

func judge(t *testing.T, d report.Document, source string) check.Result {
	t.Helper()
	e, err := check.Compile(source, "test")
	if err != nil {
		t.Fatal(err)
	}
	known := func(name string) error {
		if name != "ip_rcv" {
			return errors.New("this kernel has no function " + name)
		}
		return nil
	}
	r, err := check.Judge(check.Facts{Report: d, Function: known}, []*check.Expectation{e})
	if err != nil {
		t.Fatal(err)
	}
	return r[0]
}

func TestExpressions(t *testing.T) {
	d := faulty()
	for source, want := range map[string]bool{
		"lost_on_path == 7":                          true,
		"lost_on_path == 0":                          false,
		"loss == 7 + 3 + 4 + 6 + 5":                  true, // the 2 copies are none
		"replay_duplicate == 2 && replay_late == 3":  true,
		"unattributed == 0":                          true,
		"self.events_lost == 0":                      true,
		"duration >= 0":                              true,
		"duration >= 3600":                           false,
		"duration == source.duration_s":              true,
		"sa.replay_late < 10":                        true,
		"sa.replay_late < 3":                         false,
		"sa.lost_on_path == 0":                       false,
		"sa.lost_on_path <= 7":                       true,
		"sa.ledger.lost_on_path <= 7":                true,
		"sa.xfrm.replay_late <= 3":                   true,
		"sa.out_mode_error <= 6":                     true,
		"sa.on_wire == 40":                           true, // the inbound SAs have no such bin
		"sa.loss <= 10":                              true,
		"sa.loss <= 9":                               false,
		`sa.spi != "0xc0ffee09"`:                     true,
		"sa.replay_window == 32":                     false, // the outbound SA's is not known to matter, but it is 0
		"sa.ledger.sent > 0 and sa.state == 'alive'": true,
		"all(inbound, .ledger.decapsulated > 40)":    true,
		"any(sas, .spi == '0xc0ffee02')":             true,
		"len(filter(sas, .direction == 'in')) == 2":  true,
		"sum(outbound, .out_mode_error) == 6":        true,
		"sa.on_wire == 40 or sa.offered == 0":        true,
		// Nothing is of both directions, so nothing is proved; in either order.
		"sa.lost_on_path == 0 or sa.on_wire == 40":        false,
		"sa.on_wire == 40 or sa.lost_on_path == 0":        false,
		"sa.lost_on_path >= 0 or sa.ledger.on_wire == 40": false,
		"len(sas) == 3":                     true,
		"sas[0].wire.duplicates == 2":       true,
		"findings.none":                     false,
		"findings.none()":                   false,
		`findings.has("path-loss")`:         true,
		`!findings.has("integrity-failed")`: true,
		`any(findings, .id == "path-loss" && .severity == "warning")`: true,
		`drops["nf_hook_slow"] == 4`:                                  true,
		`drops.nf_hook_slow == 4`:                                     true,
		`drops["xfrm_input"] == 5`:                                    true, // 3 late and 2 copies
		`drops["ip_rcv"] == 0`:                                        true,
		`any(drops, .place == "netfilter")`:                           true,
		`xfrm_stat["XfrmInStateSeqError"] == 5`:                       true,
		`xfrm_stat.XfrmInNoStates == 0`:                               true,
		`kernel.xfrm_stat["XfrmOutNoStates"] == 5`:                    true,
		"kernel.reconciled":                                           true,
		"let late = replay_late; late == 3":                           true,
		"observed(loss) and loss < 100":                               true,
		"(host == nil) || true":                                       false, // host was not looked at
		"loss in 20..30":                                              true,
	} {
		if r := judge(t, d, source); r.Passed != want {
			t.Errorf("%s: passed is %v, want %v: %+v", source, r.Passed, want, r)
		} else {
			t.Logf("%-60s %v %s | %v", source, r.Passed, r.Reason, r.Figures)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for source, want := range map[string][]string{
		"los == 0":                         {"unknown name los", "did you mean loss?", "line 1, column 1"},
		"sa.replay_lat < 3":                {"unknown field replay_lat", "did you mean replay_late?", "column 4"},
		`loss == "none"`:                   {"mismatched types int and string", "column 6"},
		"loss":                             {"expected bool"},
		"loss ==":                          {"unexpected token EOF", "line 1"},
		`findings.has("path-los")`:         {`no finding is called "path-los"`, "did you mean path-loss?"},
		"findings.has(3)":                  {"cannot use int as"},
		"findings.has()":                   {"takes one identifier"},
		"findings.non":                     {"an integer"},
		`xfrm_stat["XfrmInNoState"] == 0`:  {"did you mean XfrmInNoStates?"},
		"$env.loss == 0":                   {"unknown name $env"},
		`get(sas[0], "loss") == 0`:         {"unknown name get"},
		"all(sas, .ledger.lost_path == 0)": {"did you mean lost_on_path?"},
		"len(sas":                          {"line 1"},
	} {
		_, err := check.Compile(source, "--expect")
		if err == nil {
			t.Errorf("%s compiles", source)
			continue
		}
		for _, part := range append(want, "--expect: ") {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", source, err, part)
			}
		}
	}
}
