// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

// capabilitySets are those of each thread of a process, by the names of /proc/PID/status.
func capabilitySets(t *testing.T, pid int) (threads []map[string]string) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // the thread ended meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		threads = append(threads, capabilityLines(string(b)))
	}
	if len(threads) < 2 {
		t.Fatalf("process %d has %d threads, and Go never has fewer than 2", pid, len(threads))
	}
	return threads
}

func capabilityLines(status string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		// Without new privileges the bounding set has nothing to give.
		if strings.HasPrefix(name, "Cap") && name != "CapBnd" || name == "NoNewPrivs" {
			out[name] = strings.TrimSpace(value)
		}
	}
	return out
}

// left demands that nothing but these capabilities is left to a process, in any thread or set.
func left(t *testing.T, what string, pid int, caps ...int) {
	t.Helper()
	var set uint64
	for _, c := range caps {
		set |= 1 << c
	}
	some, none := fmt.Sprintf("%016x", set), fmt.Sprintf("%016x", 0)
	want := map[string]string{"CapEff": some, "CapPrm": some, "CapInh": none, "CapAmb": none, "NoNewPrivs": "1"}
	for _, got := range capabilitySets(t, pid) {
		diff(t, "privileges of a thread of "+what, want, got)
	}
}

// readsMapsFreely says whether this kernel lets whoever has a map's descriptor read it (since 5.19), whatever
// kernel.unprivileged_bpf_disabled says.
func readsMapsFreely(t *testing.T) bool {
	t.Helper()
	return kernelSince(t, 5, 19)
}

// TestPrivilegesDropped looks at a diagnosis from outside once it says that it is ready: it has the capabilities that
// docs/security.md names and no other. Then it has to do all that it still has to do: see an SA that comes now, take a
// snapshot in another network namespace, and take its filters away at the end.
func TestPrivilegesDropped(t *testing.T) {
	tunnel.Need(t)
	b := raise(t, tunnel.Options{}, func(*tunnel.Tunnel) error { return nil }, nil)
	x := launch(t, b.tunnel.B, "diagnose", "--json", "--for", "10m", "--mode", "tc")
	kept := []int{unix.CAP_NET_ADMIN}
	if !readsMapsFreely(t) {
		kept = append(kept, unix.CAP_BPF)
	}
	left(t, "diagnose", x.cmd.Process.Pid, kept...)
	const sent = 20
	b.renew(sent)
	time.Sleep(horizon)
	d, _ := x.finish(t)
	in := observation{report: d}.find(t, renewed, "in").Ledger
	if in.Sent == nil || in.Decapsulated == nil || *in.Sent != sent || *in.Decapsulated != sent {
		t.Errorf("the SA that came later: %+v", in)
	}
	if strings.Contains(x.stderr.String(), "privileges") || t.Failed() {
		t.Errorf("%s", x.stderr.Bytes())
	}
	b.nothingAttached()
}

// renewed is the SA that takes the place of the first one while xfrmscope watches without privileges.
const renewed = 0xa2b00777

// renew replaces the first SA and sends packets through its successor.
func (b *bench) renew(packets int) {
	b.t.Helper()
	old := b.tunnel.AtoB[0]
	for _, g := range []*tunnel.Gateway{b.tunnel.A, b.tunnel.B} {
		if err := old.Delete(g); err != nil {
			b.t.Fatal(err)
		}
		if err := g.IP(fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid %d mode tunnel replay-window 32 aead rfc4106(gcm(aes)) 0x%040x 128",
			old.From.Outer, old.To.Outer, renewed, old.ReqID, renewed)); err != nil {
			b.t.Fatal(err)
		}
	}
	b.send(old, packets)
	b.settle()
}

// nothingAttached demands that gateway B's outer device is as it was.
func (b *bench) nothingAttached() {
	b.t.Helper()
	found, err := b.tunnel.B.Attached(tunnel.WAN)
	if err != nil || len(found) > 0 {
		b.t.Errorf("%s: %s, %v", tunnel.WAN, found, err)
	}
}
