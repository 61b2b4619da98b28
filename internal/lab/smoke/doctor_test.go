// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"

	"xfrmscope/internal/lab/kernels"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/probe"
)

// TestDoctor holds what `xfrmscope doctor` foretells against what then happens: each hook is attached in the
// first way that it names, and one that it calls missing is not.
func TestDoctor(t *testing.T) {
	ns := namespace(t)
	cmd := exec.Command(os.Getenv("XFRMSCOPE_BIN"), "doctor", "--json", "--netns", ns.Name, "--interface", ethernet, "--interface", bare)
	out, err := cmd.Output()
	var exit *exec.ExitError
	// Status 1 says that something is missing, which is a result.
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("%s: %v", cmd, err)
	}
	var d struct {
		Verdict  string            `json:"verdict"`
		Features []kernels.Feature `json:"features"`
		Hooks    []struct {
			Name string   `json:"name"`
			Try  []string `json:"try"`
		} `json:"hooks"`
	}
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("read the report of doctor: %v\n%s", err, out)
	}
	if len(d.Features) == 0 || len(d.Hooks) == 0 || (d.Verdict == "all") != (err == nil) {
		t.Fatalf("doctor ended with %v and says\n%s", err, out)
	}
	k, err := probe.AskKernel()
	if err != nil {
		t.Fatal(err)
	}
	set := open(t, k, probe.Options{Netns: ns.Name, Interfaces: []string{ethernet, bare}, SATableSize: 64})
	for _, foretold := range d.Hooks {
		i := slices.IndexFunc(set.Hooks(), func(h ledger.Hook) bool { return h.Name == foretold.Name })
		if i < 0 {
			t.Errorf("doctor names a hook %q that nobody attaches", foretold.Name)
			continue
		}
		h := set.Hooks()[i]
		if h.Attached != (len(foretold.Try) > 0) || h.Attached && wayOf(h) != foretold.Try[0] {
			t.Errorf("%s: doctor foretold %q, it is attached: %v, %s", h.Name, foretold.Try, h.Attached, h.Why)
		}
	}
	reasons := kernels.Feature{Name: "reasons of drops (5.17)", State: "yes"}
	if k.Tables == nil || len(k.Tables.Reasons) == 0 {
		reasons.State, reasons.Costs = "no", "drops have a function and no reason"
	}
	kernels.Leave(t, kernels.Note{Features: append(d.Features, reasons)})
}
