// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

const (
	transfer  = 4 << 20 // bytes
	transfers = 5
	// operatorsFilter is what one gives tcpdump to see a gateway's IPsec.
	operatorsFilter = "udp port 500 or udp port 4500 or esp"
)

// observer is a program that runs beside the traffic; the zero value is none.
type observer struct {
	name  string
	args  func(dir string, g *tunnel.Gateway) []string
	ready string // a file that appears, or what standard error says, once it is attached
}

var observers = []observer{
	{name: "nothing"},
	{"serve", live("serve", "--listen", "127.0.0.1:0"), "ready"},
	{"serve --no-inner", live("serve", "--no-inner", "--listen", "127.0.0.1:0"), "ready"},
	{"watch --plain", live("watch", "--plain"), "ready"},
	{"capture", live("capture", "--write", "copies.pcapng"), "ready"},
	{"tcpdump -w", func(_ string, g *tunnel.Gateway) []string {
		return []string{"nsenter", "--net=/run/netns/" + g.Name, "tcpdump", "-Z", "root", "-i", tunnel.WAN, "-w", "frames.pcap", operatorsFilter}
	}, "listening on"},
}

// live is a command of xfrmscope that watches a gateway.
func live(args ...string) func(string, *tunnel.Gateway) []string {
	return func(dir string, g *tunnel.Gateway) []string {
		return append([]string{os.Getenv("XFRMSCOPE_BIN")}, append(args, "--netns", g.Name, "--interface", tunnel.WAN, "--ready-file", filepath.Join(dir, "ready"))...)
	}
}

// TestThroughput prints how many instructions the whole machine takes for a megabyte through a tunnel,
// with an observer at the receiving gateway and without. Nothing is held against it: the tunnel's own
// instructions depend on how TCP happens to cut and to acknowledge.
func TestThroughput(t *testing.T) {
	tunnel.Need(t)
	needCounting(t)
	var nothing float64
	for _, o := range observers {
		t.Run(o.name, func(t *testing.T) {
			per := o.measure(t)
			slices.Sort(per)
			middle := per[len(per)/2]
			if nothing == 0 {
				nothing = middle
			}
			t.Logf("MB %-26s %8.0f thousand instructions, %.0f to %.0f; %+.1f %%", o.name, middle/1e3, per[0]/1e3, per[len(per)-1]/1e3,
				100*(middle/nothing-1))
		})
	}
}

// measure returns the instructions for a megabyte, of each transfer.
func (o observer) measure(t *testing.T) []float64 {
	t.Helper()
	tun, err := tunnel.Build(tunnel.Options{Router: true})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, tun)
	sa := tun.AtoB[0]
	ends := traffic.Ends{From: tun.A.Do, To: tun.B.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port}
	if o.args != nil {
		stop := o.start(t, tun.B)
		defer stop()
	}
	var per []float64
	for i := range transfers + 1 {
		idle := idleTime(t)
		began := time.Now()
		if err := traffic.Stream(ends, transfer); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if idle = idleTime(t) - idle; idle > took/20 {
			t.Logf("the machine was idle for %s of %s", idle, took)
		}
		if i > 0 { // the first one opens the SA and fills caches
			per = append(per, float64((took-idle).Nanoseconds())/(transfer/1e6))
		}
	}
	return per
}

// start runs the observer until stop is called.
func (o observer) start(t *testing.T, g *tunnel.Gateway) (stop func()) {
	t.Helper()
	dir := t.TempDir()
	args := o.args(dir, g)
	cmd := exec.Command(args[0], args[1:]...)
	said, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, said)
	cmd.Dir, cmd.Stderr = dir, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stop = func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil && cmd.ProcessState.ExitCode() != 1 { // 1: it found something
			t.Errorf("%s: %v\n%s", o.name, err, contents(said.Name()))
		}
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, o.ready)); err == nil || strings.Contains(contents(said.Name()), o.ready) {
			return stop
		}
		select {
		case err := <-done:
			t.Fatalf("%s ended before it was ready: %v\n%s", o.name, err, contents(said.Name()))
		default:
		}
	}
	stop()
	t.Fatalf("%s was not ready within %s\n%s", o.name, patience, contents(said.Name()))
	return nil
}

func contents(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// idleTime is how long the processor has had nothing to do.
func idleTime(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	var up, idle float64
	if _, err := fmt.Sscan(string(b), &up, &idle); err != nil {
		t.Fatal(err)
	}
	return time.Duration(idle * float64(time.Second))
}
