// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/tunnel"
)

// baseline is a namespace under watch and its counters from before.
type baseline struct {
	t      *testing.T
	ns     *tunnel.Namespace
	watch  *Watch
	before map[string]uint64
}

func watch(t *testing.T, ns *tunnel.Namespace, s Setup) *baseline {
	t.Helper()
	w, err := Open(ns.Do, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	before, err := ns.XfrmStat()
	if err != nil {
		t.Fatal(err)
	}
	return &baseline{t, ns, w, before}
}

// moved are the kernel's counters that changed since.
func (b *baseline) moved() map[string]uint64 {
	b.t.Helper()
	after, err := b.ns.XfrmStat()
	if err != nil {
		b.t.Fatal(err)
	}
	for name := range after {
		if after[name] -= b.before[name]; after[name] == 0 {
			delete(after, name)
		}
	}
	return after
}

// agree demands that what was attributed equals what the kernel counted, and nothing was lost.
func (b *baseline) agree() Reading {
	b.t.Helper()
	r, err := b.watch.Read()
	if err != nil {
		b.t.Fatal(err)
	}
	moved := b.moved()
	b.t.Logf("kernel: %v; SAs: %+v; unknown: %v; residue: %v", moved, r.SAs, r.Unknown, r.Residue)
	if diff := cmp.Diff(moved, r.ByCounter()); diff != "" {
		b.t.Errorf("kernel counters against attributed packets (-kernel +attributed):\n%s", diff)
	}
	if len(r.Lost) > 0 {
		b.t.Errorf("lost: %v", r.Lost)
	}
	return r
}

// router is a namespace that forwards from one veth to another and drops by policy.
func router(t *testing.T) (from, router *tunnel.Namespace) {
	t.Helper()
	var out []*tunnel.Namespace
	for _, name := range []string{"sp%d-from", "sp%d-router"} {
		ns, err := tunnel.OpenNamespace(fmt.Sprintf(name, os.Getpid()))
		if err != nil {
			need(t, err)
		}
		t.Cleanup(func() {
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		})
		out = append(out, ns)
	}
	from, router = out[0], out[1]
	check(t, from.IP("link add v0 type veth peer name v1 netns "+router.Name,
		"addr add 192.0.2.1/24 dev v0", "link set v0 up"))
	check(t, router.IP("addr add 192.0.2.2/24 dev v1", "link set v1 up",
		"link add v2 type veth peer name v3", "addr add 203.0.113.2/24 dev v2", "link set v2 up", "link set v3 up",
		"neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 nud permanent dev v2",
		"route add 198.51.100.0/24 via 203.0.113.1"))
	check(t, from.IP("route add default via 192.0.2.2"))
	check(t, router.Sysctl("ipv4/ip_forward", "1"))
	check(t, from.WaitUp("v0"))
	check(t, router.WaitUp("v1"))
	check(t, router.WaitUp("v2"))
	return from, router
}
