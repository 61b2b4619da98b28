// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/tunnel"
	"xfrmscope/internal/probe"
)

// auditFunctions is what xfrm calls for packets that it is about to drop (net/xfrm/xfrm_state.c).
var auditFunctions = []string{
	"xfrm_audit_state_replay", "xfrm_audit_state_icvfail", "xfrm_audit_state_notfound",
	"xfrm_audit_state_notfound_simple", "xfrm_audit_state_replay_overflow",
}

// TestEveryPlan opens the whole set in each mode and with each feature of the kernel denied in turn,
// so that the ways of older kernels are also walked on newer ones, and demands that every hook is
// attached in just the way that is expected.
func TestEveryPlan(t *testing.T) {
	ns := namespace(t)
	kernel := running(t)
	tc := "clsact"
	if kernel.has(tcx) {
		tc = "tcx"
	}
	onVeth := "xdp"
	if kernel.has(tcx) {
		onVeth = tc // XDP hinders a veth pair, and clsact is no better
	}
	rows := []struct {
		name     string
		mode     probe.Mode
		deny     func(*probe.Capabilities)
		ingress  string // way on the Ethernet device
		tc       string // way of everything else on the wire
		audit    string
		lockfree bool
	}{
		{"auto", probe.ModeAuto, nil, onVeth, tc, "fentry", kernel.has(atomics)},
		{"auto where GRO hides ESP from TC", probe.ModeAuto, func(c *probe.Capabilities) { c.GROHidesESP = true },
			"xdp", tc, "fentry", kernel.has(atomics)},
		{"xdp", probe.ModeXDP, nil, "xdp", tc, "fentry", kernel.has(atomics)},
		{"xdp generic", probe.ModeXDPGeneric, nil, "xdp-generic", tc, "fentry", kernel.has(atomics)},
		{"tc", probe.ModeTC, nil, tc, tc, "fentry", kernel.has(atomics)},
		{"without fentry", probe.ModeAuto, func(c *probe.Capabilities) { c.Fentry = ebpf.ErrNotSupported },
			onVeth, tc, "kprobe", kernel.has(atomics)},
		{"without tcx and XDP", probe.ModeAuto, func(c *probe.Capabilities) {
			c.TCX, c.XDPLink = ebpf.ErrNotSupported, ebpf.ErrNotSupported
		}, "clsact", "clsact", "fentry", kernel.has(atomics)},
		{"without atomics", probe.ModeAuto, func(c *probe.Capabilities) { c.Atomics = ebpf.ErrNotSupported },
			onVeth, tc, "fentry", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			k, err := probe.AskKernel()
			if err != nil {
				t.Fatal(err)
			}
			if row.deny != nil {
				row.deny(&k.Capabilities)
			}
			opts := probe.Options{Netns: ns.Name, Interfaces: []string{ethernet}, Mode: row.mode, SATableSize: 64}
			want := map[string]string{
				"wire ingress " + ethernet: row.ingress, "wire egress " + ethernet: row.tc, "kfree_skb": "raw_tp",
			}
			// XDP wants an Ethernet header, and a mode that was asked for has to hold.
			if row.mode != probe.ModeXDP && row.mode != probe.ModeXDPGeneric {
				opts.Interfaces = append(opts.Interfaces, bare)
				want["wire ingress "+bare], want["wire egress "+bare] = row.tc, row.tc
			}
			for _, function := range auditFunctions {
				want[function] = row.audit
			}
			set := open(t, k, opts)
			if got := set.Plan().LockFree; got != row.lockfree {
				t.Errorf("lock-free = %v, want %v", got, row.lockfree)
			}
			held := waysHeld(t, set)
			diffObjects(t, set, held)
			if diff := cmp.Diff(want, held); diff != "" {
				t.Errorf("hooks and how they are attached (-want +got):\n%s", diff)
			}
			restoreNothingLeft(t, ns, set)
		})
	}
}

// TestHooksDeclineWithReasons denies everything at once that a kernel may lack in the stack and
// demands that each hook says why it is not there and what that costs.
func TestHooksDeclineWithReasons(t *testing.T) {
	ns := namespace(t)
	k, err := probe.AskKernel()
	if err != nil {
		t.Fatal(err)
	}
	k.Capabilities.Fentry = fmt.Errorf("denied by the test: %w", ebpf.ErrNotSupported)
	k.Capabilities.Kprobe = fmt.Errorf("denied by the test: %w", ebpf.ErrNotSupported)
	set := open(t, k, probe.Options{Netns: ns.Name, Interfaces: []string{ethernet}, SATableSize: 64})
	declined, want := 0, len(auditFunctions)
	for _, h := range set.Plan().Objects {
		if len(h.Try) == 0 {
			want++
		}
	}
	for _, h := range set.Hooks() {
		if h.Attached {
			continue
		}
		declined++
		_, missing := k.Capabilities.Missing[h.Name]
		if !missing && !strings.Contains(h.Why, "denied by the test") || h.Costs == "" {
			t.Errorf("%s: why %q, costs %q", h.Name, h.Why, h.Costs)
		}
	}
	if declined != want {
		t.Errorf("%d hooks are declined, want %d: %+v", declined, want, set.Hooks())
	}
}

// TestCapabilities holds the kernel's answers against its version.
func TestCapabilities(t *testing.T) {
	namespace(t)
	kernel := running(t)
	k, err := probe.AskKernel()
	if err != nil {
		t.Fatal(err)
	}
	if k.SymbolsErr != nil || k.TablesErr != nil {
		t.Errorf("symbols: %v, tables: %v", k.SymbolsErr, k.TablesErr)
	}
	caps := k.Capabilities
	for _, row := range []struct {
		name  string
		err   error
		since version
	}{
		{"atomics", caps.Atomics, atomics},
		{"tcx", caps.TCX, tcx},
		{"XDP link", caps.XDPLink, version{5, 9}},
		{"XDP frags", caps.XDPFrags, version{5, 18}},
		{"BTF", caps.BTF, version{5, 4}},
		{"reading memory", caps.Memory, version{5, 5}},
		{"fentry", caps.Fentry, version{5, 5}},
		{"kprobe", caps.Kprobe, version{4, 1}},
	} {
		switch {
		case kernel.has(row.since) && row.err != nil:
			t.Errorf("%s: %v, want nil on this kernel", row.name, row.err)
		case !kernel.has(row.since) && !errors.Is(row.err, ebpf.ErrNotSupported):
			t.Errorf("%s: %v, want ErrNotSupported on this kernel", row.name, row.err)
		}
	}
	if len(caps.Missing) > 0 {
		t.Errorf("functions that cannot be hooked: %v", caps.Missing)
	}
}

func open(t *testing.T, k *probe.Kernel, opts probe.Options) *probe.Set {
	t.Helper()
	set, err := probe.Open(k, opts)
	if err != nil {
		t.Fatalf("open: %+v", err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

// diffObjects takes the hooks of the further objects out of what is held. They are many and differ from
// kernel to kernel: each is attached, or says why not. The raw tracepoints among them are everywhere.
func diffObjects(t *testing.T, set *probe.Set, held map[string]string) {
	t.Helper()
	for _, h := range set.Plan().Objects {
		if len(h.Try) > 0 && h.Try[0].Way == probe.WayRawTP && held[h.Name] != "raw_tp" {
			t.Errorf("%s: %s", h.Name, held[h.Name])
		}
		delete(held, h.Name)
	}
}

// waysHeld maps each attached hook to its way, and each other one to its reason.
func waysHeld(t *testing.T, set *probe.Set) map[string]string {
	t.Helper()
	held := make(map[string]string)
	for _, h := range set.Hooks() {
		if !h.Attached {
			held[h.Name] = "not attached: " + h.Why
			if h.Why == "" || h.Costs == "" {
				t.Errorf("%s is not attached; why %q, costs %q: want both", h.Name, h.Why, h.Costs)
			}
			continue
		}
		held[h.Name], _, _ = strings.Cut(h.Why, " ")
		t.Logf("SMOKE %s %s: %s", t.Name(), h.Name, h.Why)
	}
	return held
}

// restoreNothingLeft closes the set and demands that the devices are as they were before.
func restoreNothingLeft(t *testing.T, ns *tunnel.Namespace, set *probe.Set) {
	t.Helper()
	if found, err := ns.Attached(ethernet); err != nil || len(found) == 0 {
		t.Errorf("invalid run: nothing is seen on %s while the set is open: %v", ethernet, err)
	}
	if err := set.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	for _, device := range []string{ethernet, bare} {
		found, err := ns.Attached(device)
		if err != nil || len(found) > 0 {
			t.Errorf("after Close %s has %s, %v", device, found, err)
		}
	}
}
