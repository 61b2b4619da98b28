// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/terminal"
	"xfrmscope/internal/lab/tunnel"
)

// TestWatchLooksInside drives watch in a real terminal while a reader inside the tunnel stops, an SA is
// renewed and the path narrows, and looks into the SAs that this happens to: their flows with zero windows,
// their rekeys and their path MTU are on the screen, with the figures that the kernels counted.
func TestWatchLooksInside(t *testing.T) {
	tunnel.Need(t)
	terminal.Need(t)
	const (
		stalls  = 2
		each    = 1500 * time.Millisecond
		big     = 7
		renewed = 0xa2b00101
	)
	p := &pmtuBench{bench: raise(t, tunnel.Options{Hosts: true, Router: true}, func(*tunnel.Tunnel) error { return nil }, nil)}
	in, out := p.tunnel.AtoB[0], p.tunnel.BtoA[0]
	p.to = out.To.Inside()
	ready := filepath.Join(t.TempDir(), "ready")
	term := terminal.Open(t, 150, 100, fmt.Sprintf("export LC_ALL=C.UTF-8; %s watch --netns %s --interface %s --interval 500ms --ready-file %s; echo exit $?; exec sleep 600",
		binary(t), p.tunnel.B.Name, tunnel.WAN, ready))
	awaitFile(t, ready)
	term.Await("2 SAs, 2 tunnels|2 SAs, 1 tunnel", name(in.SPI), name(out.SPI))

	before := zeroWindows(t, p.tunnel.B.Inside())
	p.stall(p.connect(0, 5001, 32<<10), stalls, each, 5*time.Second)
	// The last one is over when the reader has gone on.
	var moved [2]int64
	for end := time.Now().Add(patience); moved[1] < stalls && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		now := zeroWindows(t, p.tunnel.B.Inside())
		moved = [2]int64{now[0] - before[0], now[1] - before[1]}
	}
	diff(t, "episodes by the reader's kernel: begun, over", [2]int64{stalls, stalls}, moved)

	look := func(spi uint32, patterns ...string) string {
		term.Keys("/", name(spi), "Enter", "Enter")
		screen := term.Await(append(patterns, "SA "+name(spi))...)
		// One at a time: two in a row are another key.
		term.Keys("Escape")
		term.Await("enter SA")
		term.Keys("Escape")
		term.Await(name(in.SPI), name(out.SPI))
		return screen
	}
	screen := look(in.SPI,
		fmt.Sprintf(`ZERO WINDOW %d times, \d+\.\d+ s in all, 1\.\d+ s at the longest`, stalls))
	// Below the sum stands when each began and how long it lasted.
	_, list, _ := strings.Cut(screen, "ZERO WINDOW")
	episodes := 0
	for _, line := range strings.Split(list, "\n")[1:] {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "s" || !strings.HasPrefix(f[1], "1.") {
			break
		}
		episodes++
	}
	diff(t, "episodes listed", stalls, episodes)

	// Too big for the tunnel; then the path narrows, which the router says of the first that does not fit.
	p.datagrams(out, linkMTU, big, true, 5*time.Millisecond)
	p.narrowPath()
	p.datagrams(out, innerMTU, 1, true, 0)
	p.settle()

	flow := p.flows[in.SPI]
	p.must(flow.Send(20, pace))
	p.settle()
	next, err := p.tunnel.Rekey(in, renewed)
	p.must(err)
	p.must(flow.Send(30, pace))
	p.settle()
	p.must(in.Delete(p.tunnel.B))

	look(in.SPI, name(renewed)+` came to take over`, `deleted, \d+\.\d{3} s after its successor came`)
	look(next.SPI, `took over from `+name(in.SPI), `its first packet`)
	look(out.SPI,
		fmt.Sprintf(`path MTU %d of a link's %d, a router asked for %d; .*inner MTU %d, TCP MSS %d `, narrow, linkMTU, narrow, squeezed, squeezed-40),
		fmt.Sprintf(`tell_sender: %d packets, %s > %s, MTU %d, size up to %d,`, big, out.Src, out.Dst, innerMTU, linkMTU),
		fmt.Sprintf(`told: 1 packets?, %s > %s, MTU %d,`, p.tunnel.B.Outer, p.tunnel.A.Outer, narrow))

	term.Keys("q")
	term.Await(`exit [01]`, `watched 3 SAs for .*: 0 packets lost, 0 unattributed`)
}

// awaitFile waits until a file is there.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s does not appear within %s", path, patience)
}
