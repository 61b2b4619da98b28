// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

const (
	// pace leaves an emulated machine time for each packet, so that no queue ever fills.
	pace = 500 * time.Microsecond
	// calm without a packet means that nothing is under way any more.
	calm = 250 * time.Millisecond
	// horizon is longer than xfrmscope waits for late packets before it calls them lost.
	horizon = 1500 * time.Millisecond
	// patience bounds everything that an emulated machine does slowly.
	patience = 90 * time.Second
)

// bench is a tunnel with faults on its path, under the eyes of xfrmscope on gateway B.
type bench struct {
	t      *testing.T
	tunnel *tunnel.Tunnel
	path   *inject.Injector         // nil where the path is a router
	flows  map[uint32]*traffic.Flow // by SPI
	before map[string]uint64        // xfrm counters of gateway B
	tool   *tool
}

// open builds the tunnel and starts xfrmscope. Everything is taken down with the test.
func open(t *testing.T, o tunnel.Options, rules []inject.Rule, flags ...string) *bench {
	t.Helper()
	return openPrepared(t, o, func(*tunnel.Tunnel) error { return nil }, rules, flags...)
}

// openPrepared is open with something done to the tunnel before xfrmscope looks at it.
func openPrepared(t *testing.T, o tunnel.Options, prepare func(*tunnel.Tunnel) error, rules []inject.Rule, flags ...string) *bench {
	t.Helper()
	b := &bench{t: t, flows: map[uint32]*traffic.Flow{}}
	var err error
	if b.tunnel, err = tunnel.Build(o); err != nil {
		t.Fatal(err)
	}
	b.closing("tunnel", b.tunnel.Close)
	if err := prepare(b.tunnel); err != nil {
		t.Fatal(err)
	}
	if !o.Router {
		if b.path, err = inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: b.tunnel.Path.Do}, rules...); err != nil {
			t.Fatal(err)
		}
		b.closing("injector", b.path.Close)
	}
	for _, sa := range append(append([]tunnel.SA{}, b.tunnel.AtoB...), b.tunnel.BtoA...) {
		flow, err := traffic.Open(traffic.Ends{From: sa.From.Inside().Do, To: sa.To.Inside().Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port})
		if err != nil {
			t.Fatal(err)
		}
		b.closing("flow", flow.Close)
		b.flows[sa.SPI] = flow
	}
	if b.before, err = b.tunnel.B.XfrmStat(); err != nil {
		t.Fatal(err)
	}
	b.tool = startTool(t, b.tunnel.B, flags...)
	return b
}

// as is the bench for the checks of a subtest.
func (b *bench) as(t *testing.T) *bench {
	c := *b
	c.t = t
	return &c
}

func (b *bench) closing(what string, close func() error) {
	b.t.Cleanup(func() {
		if err := close(); err != nil {
			b.t.Errorf("%s: %v", what, err)
		}
	})
}

// send sends packets through an SA.
func (b *bench) send(sa tunnel.SA, packets int) {
	b.t.Helper()
	if err := b.flows[sa.SPI].Send(packets, pace); err != nil {
		b.t.Fatal(err)
	}
}

// settle waits until nothing is under way.
func (b *bench) settle() {
	b.t.Helper()
	if b.path == nil {
		time.Sleep(calm)
		return
	}
	if err := b.path.Quiet(calm, patience); err != nil {
		b.t.Fatal(err)
	}
}

// observation is everything that is known about a run once it is over.
type observation struct {
	report document
	exit   int
	stat   map[string]int64 // xfrm counters of gateway B that moved
}

// finish lets the last packets settle and the horizon pass, and takes all readings.
func (b *bench) finish() observation {
	b.t.Helper()
	b.settle()
	time.Sleep(horizon)
	var o observation
	o.report, o.exit = b.tool.finish(b.t)
	o.stat = b.moved()
	if b.path != nil {
		if err := b.path.Err(); err != nil {
			b.t.Fatal(err)
		}
	}
	b.checkLink()
	return o
}

// checkLink makes sure that the kernel dropped nothing between the injector and gateway B: such a
// packet would be in the injector's account and in no other.
func (b *bench) checkLink() {
	b.t.Helper()
	for ns, name := range map[*tunnel.Namespace]string{b.tunnel.B.Namespace: tunnel.WAN, b.tunnel.Path: tunnel.PathB} {
		c, err := ns.Link(name)
		if err != nil {
			b.t.Fatal(err)
		}
		if c.RxDropped != 0 || c.TxDropped != 0 {
			b.t.Fatalf("invalid run: the kernel dropped frames on %s: %+v", name, c)
		}
	}
}

func (b *bench) moved() map[string]int64 {
	b.t.Helper()
	after, err := b.tunnel.B.XfrmStat()
	if err != nil {
		b.t.Fatal(err)
	}
	moved := map[string]int64{}
	for name, n := range after {
		if d := int64(n - b.before[name]); d != 0 {
			moved[name] = d
		}
	}
	return moved
}

// tool is a running xfrmscope.
type tool struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan struct{}
	hidden         bool // packets pass where no hook can see them, on purpose
}

// startTool starts `xfrmscope diagnose` and waits until it says that it is ready.
func startTool(t *testing.T, g *tunnel.Gateway, flags ...string) *tool {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	args := append([]string{"diagnose", "--json", "--netns", g.Name, "--interface", tunnel.WAN,
		"--ready-file", ready, "--for", "10m"}, flags...)
	x := &tool{cmd: exec.Command(binary(t), args...), done: make(chan struct{})}
	x.cmd.Stdout, x.cmd.Stderr = &x.stdout, &x.stderr
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(x.done)
		// The exit status is read from ProcessState: a finding is no failure of the command.
		_ = x.cmd.Wait()
	}()
	t.Cleanup(x.kill)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := os.Stat(ready); err == nil {
			return x
		}
		select {
		case <-x.done:
			t.Fatalf("xfrmscope ended before it was ready: %v\n%s", x.cmd.ProcessState, x.stderr.Bytes())
		case <-time.After(50 * time.Millisecond):
		}
	}
	x.kill()
	t.Fatalf("xfrmscope was not ready within %s\n%s", patience, x.stderr.Bytes())
	return nil
}

// kill ends a tool that finish has not ended.
func (x *tool) kill() {
	select {
	case <-x.done:
	default:
		if err := x.cmd.Process.Kill(); err == nil || errors.Is(err, os.ErrProcessDone) {
			<-x.done
		}
	}
}

// finish asks for the report with SIGINT, as a user does, and reads it.
func (x *tool) finish(t *testing.T) (document, int) {
	t.Helper()
	if err := x.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("interrupt xfrmscope: %v\n%s", err, x.stderr.Bytes())
	}
	select {
	case <-x.done:
	case <-time.After(patience):
		t.Fatalf("xfrmscope did not end within %s of SIGINT", patience)
	}
	exit := x.cmd.ProcessState.ExitCode()
	if exit != 0 && exit != 1 {
		t.Fatalf("xfrmscope: %v\n%s", x.cmd.ProcessState, x.stderr.Bytes())
	}
	var d document
	if err := json.Unmarshal(x.stdout.Bytes(), &d); err != nil {
		t.Fatalf("read report: %v\n%s\n%s", err, x.stdout.Bytes(), x.stderr.Bytes())
	}
	// Whatever a scenario is about: every packet has to be in a bin.
	for _, s := range d.SAs {
		if u := s.Ledger.Unattributed; u != nil && *u != 0 && !x.hidden {
			t.Errorf("%d packets of SA %s %s are unattributed", *u, s.SPI, s.Direction)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("report:\n%s\n%s", x.stdout.Bytes(), x.stderr.Bytes())
		}
	})
	return d, exit
}

// binary finds the program under test: where the environment says, beside the test binary, or where
// `make build` puts it.
func binary(t *testing.T) string {
	t.Helper()
	candidates := []string{os.Getenv("XFRMSCOPE_BIN")}
	if self, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(self), "xfrmscope"))
	}
	candidates = append(candidates, filepath.Join("..", "..", "..", "bin", "xfrmscope"))
	for _, path := range candidates {
		if info, err := os.Stat(path); path != "" && err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	t.Fatal(fmt.Errorf("no xfrmscope binary in %q: run make build or set XFRMSCOPE_BIN", candidates))
	return ""
}
