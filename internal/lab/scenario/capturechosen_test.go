// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// TestCaptureChosen keeps the packets of one reqid in memory, beside another tunnel that is as busy. The finding
// about the one, and then a signal, have every packet of it written, once, and none of the other; and an SA that
// takes over, with the same reqid, is followed.
func TestCaptureChosen(t *testing.T) {
	tunnel.Need(t)
	const (
		sent    = 200
		renewed = 0xa2b00101
	)
	b := raise(t, tunnel.Options{Pairs: 2}, func(*tunnel.Tunnel) error { return nil },
		[]inject.Rule{{SPI: tunnel.FirstSPIAtoB, Action: inject.Drop, Seqs: inject.Every(20, 180, 40)}})
	wanted, other := b.tunnel.AtoB[0], b.tunnel.AtoB[1]
	if wanted.ReqID != 1 || other.ReqID == 1 {
		t.Fatalf("reqids %d and %d", wanted.ReqID, other.ReqID)
	}
	dir := t.TempDir()
	b.tool = launch(t, b.tunnel.B, "capture", "-w", filepath.Join(dir, "chosen.pcapng"), "--no-inner", "--reqid", "1",
		"--last", "10m", "--after", "0s", "--trigger", "path-loss")
	for range sent / burst {
		b.send(wanted, burst)
		b.send(other, burst)
	}
	b.settle()
	arrived := b.path.Truth(inject.AtoB, wanted.SPI).Wire().Packets
	b.awaitFiles(dir, 1)

	next, err := b.tunnel.Rekey(wanted, renewed)
	b.must(err)
	// When capture notices the new SA is its own affair.
	for range 20 {
		b.must(b.flows[wanted.SPI].Send(1, 0))
		time.Sleep(100 * time.Millisecond)
	}
	b.settle()
	before := len(b.awaitFiles(dir, 1))
	b.must(b.tool.cmd.Process.Signal(syscall.SIGUSR1))
	b.awaitFiles(dir, before+1)
	if exit := b.tool.end(t); exit != 0 {
		t.Errorf("exit %d", exit)
	}
	b.checkLink()

	// The finding may come while packets still do: what is not in the first file is in a later one.
	got, after := map[string]int{}, 0
	for _, path := range b.awaitFiles(dir, before+1) {
		list, _ := readCopies(t, path)
		for _, c := range list {
			switch {
			case strings.HasPrefix(c.comment, "SA "+name(wanted.SPI)+" in reqid 1 "):
				got[c.iface]++
			case strings.HasPrefix(c.comment, "SA "+name(next.SPI)+" in reqid 1 "):
				after++
			default:
				t.Errorf("neither of the SA nor of its successor: %s: %s", c.iface, c.comment)
			}
		}
	}
	if want := map[string]int{tunnel.WAN + " wire-in": arrived, "xfrmscope decrypted": arrived}; !maps.Equal(got, want) {
		t.Errorf("packets by interface: %v, want %v", got, want)
	}
	if after == 0 {
		t.Error("no packet of the SA that took over")
	}
	for _, why := range []string{"because of: finding path-loss " + name(wanted.SPI), "because of: SIGUSR1"} {
		if !strings.Contains(b.tool.stderr.String(), why) {
			t.Errorf("%q is not told", why)
		}
	}
	if t.Failed() {
		t.Logf("%s", b.tool.stderr.Bytes())
	}
}

// awaitFiles waits until there are so many capture files, and lists them in the order in which they were written.
func (b *bench) awaitFiles(dir string, count int) []string {
	b.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		names, err := filepath.Glob(filepath.Join(dir, "*.pcapng"))
		b.must(err)
		if len(names) >= count {
			return names
		}
	}
	b.t.Fatalf("fewer than %d capture files within %s", count, patience)
	return nil
}
