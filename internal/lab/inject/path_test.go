// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"xfrmscope/internal/lab/tunnel"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// wires is a path with a bare packet socket at each end instead of a gateway.
type wires struct {
	in   *Injector
	a, b *port
}

// opened keeps the names of namespaces apart.
var opened atomic.Uint32

func openWires(t *testing.T, rules ...Rule) *wires {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	spaces := make([]*tunnel.Namespace, 3)
	for i, name := range []string{"a", "b", "p"} {
		ns, err := tunnel.OpenNamespace(fmt.Sprintf("xi%d-%d%s", os.Getpid(), opened.Add(1), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { check(t, ns.Close()) })
		// Whatever the kernel would send by itself is not part of the test.
		check(t, ns.Sysctl("ipv6/conf/default/disable_ipv6", "1"))
		spaces[i] = ns
	}
	w := &wires{}
	path := spaces[2]
	for i, end := range []struct {
		name string
		at   **port
	}{{"to-a", &w.a}, {"to-b", &w.b}} {
		check(t, path.IP("link add "+end.name+" type veth peer name wan netns "+spaces[i].Name, "link set "+end.name+" up"))
		check(t, spaces[i].IP("link set wan up"))
		check(t, spaces[i].Do(func() (err error) {
			*end.at, err = openPort("wan")
			return err
		}))
		t.Cleanup(func() { check(t, (*end.at).close()) })
		check(t, path.WaitUp(end.name))
		check(t, spaces[i].WaitUp("wan"))
	}
	in, err := Open(Path{A: "to-a", B: "to-b", Do: path.Do}, rules...)
	check(t, err)
	w.in = in
	return w
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// drain reads the sequence numbers of what arrives at a port until nothing has come for a while.
func drain(t *testing.T, p *port) (seqs []uint32) {
	t.Helper()
	buf := make([]byte, maxFrameBytes)
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 300)
		if err == unix.EINTR {
			continue
		}
		check(t, err)
		if n == 0 {
			return seqs
		}
		size, err := p.receive(buf)
		check(t, err)
		if at, ok := parse(buf[:size]); ok {
			seqs = append(seqs, at.seq)
		}
	}
}

func TestPathKeepsOrderButForTheFaults(t *testing.T) {
	const spi = 0xdeadbeef
	w := openWires(t,
		Rule{SPI: spi, Action: Drop, Seqs: []uint32{2}},
		Rule{SPI: spi, Action: Delay, After: 3, Seqs: []uint32{4}},
		Rule{SPI: spi, Action: Duplicate, Copies: 2, Seqs: []uint32{5}},
		Rule{SPI: spi, Action: Duplicate, After: 2, Seqs: []uint32{9}},
		Rule{SPI: spi, Action: Corrupt, Seqs: []uint32{10}},
		Rule{SPI: spi, Action: Hold, Seqs: []uint32{11}},
	)
	for seq := uint32(1); seq <= 14; seq++ {
		c := crafted(4, false)
		c.Seq = seq
		check(t, w.a.send(c.frame()))
	}
	want := []uint32{1, 3, 5, 5, 5, 6, 7, 4, 8, 9, 10, 12, 9, 13, 14}
	if diff := cmp.Diff(want, drain(t, w.b)); diff != "" {
		t.Errorf("before the release (-want +got):\n%s", diff)
	}
	if held := w.in.Truth(AtoB, spi).Held; held != 1 {
		t.Errorf("%d packets held, want 1", held)
	}
	w.in.Release()
	if diff := cmp.Diff([]uint32{11}, drain(t, w.b)); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
	truth := w.in.Truth(AtoB, spi)
	got := []int{len(truth.In), len(truth.Out), truth.Dropped, truth.Lost(), truth.Count(Delayed), truth.Count(Copied), truth.Count(Corrupted), truth.Held}
	if diff := cmp.Diff([]int{14, 16, 1, 1, 2, 3, 1, 0}, got); diff != "" {
		t.Errorf("account: in, out, dropped, lost, delayed, copied, corrupted, held (-want +got):\n%s", diff)
	}
	check(t, w.in.Close())
}

func TestPathForwardsBothWaysAndOtherFrames(t *testing.T) {
	const spi = 0xdeadbeef
	w := openWires(t, Rule{Direction: BtoA, SPI: spi, Seqs: []uint32{1}})
	for seq := uint32(1); seq <= 3; seq++ {
		c := crafted(6, true)
		c.Seq = seq
		check(t, w.a.send(c.frame()))
		check(t, w.b.send(c.frame()))
	}
	other := mutate(crafted(4, false).frame(), func(f []byte) { f[ethLen+9] = 1 })
	check(t, w.a.send(other))
	if diff := cmp.Diff([]uint32{1, 2, 3}, drain(t, w.b)); diff != "" {
		t.Errorf("A to B (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint32{2, 3}, drain(t, w.a)); diff != "" {
		t.Errorf("B to A (-want +got):\n%s", diff)
	}
	if got := []int{w.in.Others(AtoB), w.in.Others(BtoA)}; !cmp.Equal(got, []int{1, 0}) {
		t.Errorf("other frames = %v, want 1 and 0", got)
	}
	check(t, w.in.Close())
}

func TestCloseReportsAnInvalidRun(t *testing.T) {
	w := openWires(t, Rule{SPI: 1, Seqs: []uint32{1}})
	if err := w.in.Close(); err == nil {
		t.Error("Close says nothing about a rule that never met its packet")
	}
	w = openWires(t, Rule{SPI: 0xdeadbeef, Action: Hold, Seqs: []uint32{77}})
	check(t, w.a.send(crafted(4, false).frame()))
	check(t, w.in.Quiet(200*time.Millisecond, 5*time.Second))
	if err := w.in.Close(); err == nil {
		t.Error("Close says nothing about a packet that is still held back")
	}
}

// Whoever waits for a quiet path waits for plaintext as well, and for what the injector has not read yet.
func TestQuietWaitsForEveryFrame(t *testing.T) {
	w := openWires(t)
	const quiet = 200 * time.Millisecond
	check(t, w.in.Quiet(quiet, time.Minute))
	other := mutate(crafted(4, false).frame(), func(f []byte) { f[ethLen+9] = 1 })
	w.in.mu.Lock() // keeps the injector from reading
	began := time.Now()
	err := w.a.send(other)
	full := false
	for deadline := began.Add(time.Minute); err == nil && !full && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		full, err = w.in.ports[AtoB].readable()
	}
	w.in.mu.Unlock()
	check(t, err)
	if !full {
		t.Fatal("a frame in the socket is not seen")
	}
	check(t, w.in.Quiet(quiet, time.Minute))
	if took := time.Since(began); took < quiet {
		t.Errorf("the path was called quiet %s after a frame, want %s at least", took, quiet)
	}
	if got := w.in.Others(AtoB); got != 1 {
		t.Errorf("%d frames had come by when the path was quiet, want 1", got)
	}
	check(t, w.in.Close())
}
