// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"os"
	"slices"
	"strings"
	"testing"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/lab/kernels"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/probe"
)

// TestEverything attaches at once whatever any command can ask for, and demands that the kernel offers no
// less than the page of kernels promises: what the record says is attached there has to be attached here.
func TestEverything(t *testing.T) {
	ns := namespace(t)
	k, err := probe.AskKernel()
	if err != nil {
		t.Fatal(err)
	}
	// `drops` wants its program alone beside the stack's, so that takes a set of its own.
	set := open(t, k, probe.Options{Netns: ns.Name, Interfaces: []string{ethernet, bare}, SATableSize: 64,
		Latency: true, Packets: &probe.PacketOptions{}})
	all := set.Hooks()
	// What holds one set is in nobody's way while another is attached.
	drops := open(t, k, probe.Options{Netns: ns.Name, StackOnly: true, SATableSize: 64, Drops: &bpfobj.DropsConfig{}})
	for _, h := range drops.Hooks() {
		if h.Name == probe.AnyDropHook {
			all = append(all, h)
		}
	}
	names := map[string]bool{}
	for i, h := range all {
		if h.Why == "" || !h.Attached && h.Costs == "" {
			t.Errorf("%+v: want how it is attached, or why not and what that costs", h)
		}
		// Hooks of one function in two objects have one name; the second object's are told apart by it.
		if names[h.Name] {
			all[i].Name += " (latency)"
		}
		names[all[i].Name] = true
	}
	promised(t, all)
	kernels.Leave(t, kernels.Note{Hooks: all})
}

// promised holds the hooks against the record of this kernel's series. A kernel that there is no record of is
// not one that the page speaks of.
func promised(t *testing.T, hooks []ledger.Hook) {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	records, err := kernels.Records()
	if err != nil {
		t.Fatal(err)
	}
	record, ok := kernels.Of(records, strings.TrimSpace(string(release)))
	if !ok {
		t.Logf("no record of %s", release)
		return
	}
	for _, want := range record.Hooks {
		i := slices.IndexFunc(hooks, func(h ledger.Hook) bool { return h.Name == want.Name })
		switch {
		case i < 0:
			t.Errorf("%s: there is no such hook any more; the record of %s has it", want.Name, record.Release)
		case want.Attached && !hooks[i].Attached:
			t.Errorf("%s is not attached (%s); the record of %s says it is", want.Name, hooks[i].Why, record.Release)
		case want.Attached && wayOf(want) != wayOf(hooks[i]):
			t.Errorf("%s is attached by %s; the record of %s says %s", want.Name, wayOf(hooks[i]), record.Release, wayOf(want))
		}
	}
}

func wayOf(h ledger.Hook) string {
	way, _, _ := strings.Cut(h.Why, " ")
	return way
}
