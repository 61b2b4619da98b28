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

	stall := p.stall(p.connect(0, 5001, 32<<10), p.tunnel.B.Inside(), stalls, each)

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
		fmt.Sprintf(`ZERO WINDOW %d times, \d+\.\d+ s in all, [12]\.\d+ s at the longest`, stall.episodes))
	// Below the sum stands when each began and how long it lasted.
	_, list, _ := strings.Cut(screen, "ZERO WINDOW")
	listed, paused := int64(0), 0
	for _, line := range strings.Split(list, "\n")[1:] {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "s" {
			break
		}
		listed++
		if !strings.HasPrefix(f[1], "0.") {
			paused++
		}
	}
	diff(t, "episodes listed", stall.episodes, listed)
	diff(t, "of them pauses", stalls, paused)

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
