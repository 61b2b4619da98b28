// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"fmt"
	"io"
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
	megabytes = transfer / 1e6
	transfers = 5
	// operatorsFilter is what one gives tcpdump to see a gateway's IPsec.
	operatorsFilter = "udp port 500 or udp port 4500 or esp"
)

// observer is a program that runs beside the traffic; the zero value is none.
type observer struct {
	name  string
	args  func(t *testing.T, dir string, g *tunnel.Gateway) []string
	ready string // a file that appears, or what standard error says, once it is attached
	// check holds what it printed against what the receiving gateway's kernel counted of the SA meanwhile.
	check func(t *testing.T, printed string, sa tunnel.SA, packets uint64)
}

var observers = []observer{
	{name: "nothing"},
	{name: "serve", ready: "ready", args: live("serve", "--listen", "127.0.0.1:0")},
	{name: "serve --no-inner", ready: "ready", args: live("serve", "--no-inner", "--listen", "127.0.0.1:0")},
	{name: "serve --mode xdp", ready: "ready", args: live("serve", "--mode", "xdp", "--listen", "127.0.0.1:0")},
	{name: "serve --mode xdp --no-inner", ready: "ready", args: live("serve", "--mode", "xdp", "--no-inner", "--listen", "127.0.0.1:0")},
	{name: "watch --plain", ready: "ready", args: live("watch", "--plain")},
	{name: "capture", ready: "ready", args: live("capture", "--write", "copies.pcapng")},
	{name: "tcpdump -w", ready: "listening on", args: func(_ *testing.T, _ string, g *tunnel.Gateway) []string {
		return []string{"nsenter", "--net=/run/netns/" + g.Name, "tcpdump", "-Z", "root", "-i", tunnel.WAN, "-w", "frames.pcap", operatorsFilter}
	}},
	{name: "bpftrace", ready: "ready", args: bpftrace("esp.bt"), check: counted},
	{name: "bpftrace in the stack", ready: "ready", args: bpftrace("esp-stack.bt"), check: counted},
}

// live is a command of xfrmscope that watches a gateway.
func live(args ...string) func(*testing.T, string, *tunnel.Gateway) []string {
	return func(_ *testing.T, dir string, g *tunnel.Gateway) []string {
		return append([]string{os.Getenv("XFRMSCOPE_BIN")}, append(args, "--netns", g.Name, "--interface", tunnel.WAN, "--ready-file", filepath.Join(dir, "ready"))...)
	}
}

// cost is what was measured with an observer.
type cost struct {
	megabyte []float64          // instructions of the whole machine, of each transfer
	packet   map[string]float64 // instructions of the whole machine for a packet of a pair, above those without the observer
}

// TestThroughput prints how many instructions the whole machine takes for a megabyte through a tunnel,
// with an observer at the receiving gateway and without, how many for a packet, and how many the observer's own
// programs in the kernel take. Nothing is held against those of a megabyte: the tunnel's own instructions
// depend on how TCP happens to cut and to acknowledge. For a packet serve must cost less than tcpdump, and
// less than the script of bpftrace that sees what serve sees on the wire.
func TestThroughput(t *testing.T) {
	tunnel.Need(t)
	needCounting(t)
	costs := map[string]cost{}
	for _, o := range observers {
		t.Run(o.name, func(t *testing.T) {
			c := o.measure(t)
			if t.Failed() {
				return
			}
			costs[o.name] = c
			m := middle(c.megabyte)
			above := ""
			if nothing, there := costs["nothing"]; there {
				above = fmt.Sprintf("; %+.1f %%", 100*(m/middle(nothing.megabyte)-1))
			}
			t.Logf("MB %-26s %8.0f thousand instructions, %.0f to %.0f%s", o.name, m/1e3, slices.Min(c.megabyte)/1e3, slices.Max(c.megabyte)/1e3, above)
		})
	}
	for _, other := range []string{"tcpdump -w", "bpftrace"} {
		for name, n := range costs[other].packet {
			if serve, there := costs["serve"]; there && serve.packet[name] >= n {
				t.Errorf("serve takes %.0f instructions for a packet of %s, and %s %.0f", serve.packet[name], name, other, n)
			}
		}
	}
}

// measure takes the observer's cost. The kernel's statistics of programs cost something themselves, so that
// those have transfers of their own, after the others.
func (o observer) measure(t *testing.T) cost {
	t.Helper()
	tun, err := tunnel.Build(tunnel.Options{Router: true})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, tun)
	sa := tun.AtoB[0]
	ends := traffic.Ends{From: tun.A.Do, To: tun.B.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port}
	pairs := openPairs(t, ends)
	without := map[string]float64{}
	for _, p := range pairs {
		p.measure(t, 1) // opens the SA and fills caches
		without[p.name] = mean(p.measure(t, pairRounds))
	}
	before := programs(t)
	var run *running
	if o.args != nil {
		run = o.start(t, tun.B)
		defer run.stop(t)
	}
	began := quiet(t, sa, tun.B)
	c := cost{packet: map[string]float64{}}
	for _, p := range pairs {
		p.measure(t, 1)
		ran := run.ran(t)
		with := p.measure(t, pairRounds)
		ran = run.ran(t) - ran
		c.packet[p.name] = mean(with) - without[p.name]
		t.Logf("PACKET %-26s %s %8.0f instructions, rounds %.0f to %.0f; without it %.0f: %+.0f, of which its process %.0f", o.name, p.name,
			mean(with), slices.Min(with), slices.Max(with), without[p.name], c.packet[p.name], float64(ran.Nanoseconds())/pairRounds/pairPerRound)
	}
	for i := range transfers + 1 {
		took := machine(t, func() { stream(t, ends) })
		if i > 0 { // the first one fills caches
			c.megabyte = append(c.megabyte, float64(took.Nanoseconds())/megabytes)
		}
	}
	if o.args != nil {
		ownCost(t, o.name, before, func() { stream(t, ends) })
	}
	if o.check != nil {
		packets := quiet(t, sa, tun.B) - began
		run.stop(t)
		o.check(t, contents(run.printed), sa, packets)
	}
	return c
}

func stream(t *testing.T, ends traffic.Ends) {
	t.Helper()
	if err := traffic.Stream(ends, transfer); err != nil {
		t.Fatal(err)
	}
}

// machine is how long the processor was busy while f ran.
func machine(t *testing.T, f func()) time.Duration {
	t.Helper()
	idle := idleTime(t)
	began := time.Now()
	f()
	took := time.Since(began)
	if idle = idleTime(t) - idle; idle > took/20 {
		t.Logf("the machine was idle for %s of %s", idle, took)
	}
	return took - idle
}

// quiet waits until no packet of the SA is under way, and returns how many the gateway's kernel has counted.
func quiet(t *testing.T, sa tunnel.SA, g *tunnel.Gateway) uint64 {
	t.Helper()
	var last uint64
	for i := 0; ; i++ {
		c, err := sa.Counters(g)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && c.Packets == last {
			return last
		}
		if i > 100 {
			t.Fatalf("SA %#x is never quiet", sa.SPI)
		}
		last = c.Packets
		time.Sleep(100 * time.Millisecond)
	}
}

// running is an observer that runs.
type running struct {
	name    string
	cmd     *exec.Cmd
	printed string // the files that standard output and standard error go to
	said    string
	done    chan error
	stopped bool
}

// ran is how long its process has had the processor so far, in user space and in the kernel.
func (r *running) ran(t *testing.T) (total time.Duration) {
	t.Helper()
	if r == nil {
		return 0
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", r.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("the threads of %s: %v, %v", r.name, tasks, err)
	}
	for _, task := range tasks {
		var ns int64
		if _, err := fmt.Sscan(contents(task), &ns); err != nil {
			t.Fatalf("%s: %v", task, err)
		}
		total += time.Duration(ns)
	}
	return total
}

// stop ends it, if it runs.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.stopped {
		return
	}
	r.stopped = true
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := <-r.done; err != nil && r.cmd.ProcessState.ExitCode() != 1 { // 1: it found something
		t.Errorf("%s: %v\n%s", r.name, err, contents(r.said))
	}
}

// start runs the observer until it is stopped.
func (o observer) start(t *testing.T, g *tunnel.Gateway) *running {
	t.Helper()
	dir := t.TempDir()
	args := o.args(t, dir, g)
	run := &running{name: o.name, cmd: exec.Command(args[0], args[1:]...), done: make(chan error, 1)}
	run.printed, run.said = filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")
	run.cmd.Dir = dir
	for name, into := range map[string]*io.Writer{run.printed: &run.cmd.Stdout, run.said: &run.cmd.Stderr} {
		file, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, file)
		*into = file
	}
	if _, err := run.cmd.StdinPipe(); err != nil { // stays open, and empty
		t.Fatal(err)
	}
	if err := run.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { run.done <- run.cmd.Wait() }()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, o.ready)); err == nil || strings.Contains(contents(run.said), o.ready) {
			return run
		}
		select {
		case err := <-run.done:
			t.Fatalf("%s ended before it was ready: %v\n%s", o.name, err, contents(run.said))
		default:
		}
	}
	run.stop(t)
	t.Fatalf("%s was not ready within %s\n%s", o.name, patience, contents(run.said))
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
