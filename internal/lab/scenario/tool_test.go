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
	"slices"
	"testing"
	"time"

	"xfrmscope/internal/lab/kernels"
	"xfrmscope/internal/lab/tunnel"
)

// tool is a running xfrmscope.
type tool struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan struct{}
	ready          string
	hidden         bool // packets pass where no hook can see them, on purpose
}

// startTool starts `xfrmscope diagnose` and waits until it says that it is ready.
func startTool(t *testing.T, g *tunnel.Gateway, flags ...string) *tool {
	t.Helper()
	return launch(t, g, append([]string{"diagnose", "--json", "--for", "10m"}, flags...)...)
}

// launch starts any of xfrmscope's live commands on a gateway and waits until it says that it is ready.
func launch(t *testing.T, g *tunnel.Gateway, args ...string) *tool {
	t.Helper()
	x := start(t, g, args...)
	x.await(t)
	return x
}

// start starts a command and does not wait: several may get ready at the same time.
func start(t *testing.T, g *tunnel.Gateway, args ...string) *tool {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	args = slices.Insert(slices.Clone(args), 1, "--netns", g.Name, "--interface", tunnel.WAN, "--ready-file", ready)
	x := &tool{cmd: exec.Command(binary(t), args...), done: make(chan struct{}), ready: ready}
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
	return x
}

// await waits until the command says that it is ready.
func (x *tool) await(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := os.Stat(x.ready); err == nil {
			return
		}
		select {
		case <-x.done:
			t.Fatalf("xfrmscope ended before it was ready: %v\n%s", x.cmd.ProcessState, x.stderr.Bytes())
		case <-time.After(50 * time.Millisecond):
		}
	}
	x.kill()
	t.Fatalf("xfrmscope was not ready within %s\n%s", patience, x.stderr.Bytes())
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

// end asks the command to end with SIGINT, as a user does, and gives its exit code: 0 or 1.
func (x *tool) end(t *testing.T) int {
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
	return exit
}

// finish ends a diagnosis and reads its report.
func (x *tool) finish(t *testing.T) (document, int) {
	t.Helper()
	exit := x.end(t)
	var d document
	if err := json.Unmarshal(x.stdout.Bytes(), &d); err != nil {
		t.Fatalf("read report: %v\n%s\n%s", err, x.stdout.Bytes(), x.stderr.Bytes())
	}
	valid(t, "report", x.stdout.Bytes())
	kernels.Leave(t, kernels.Note{Report: slices.Clone(x.stdout.Bytes())})
	// Whatever a scenario is about: every packet has to be in a bin.
	for _, s := range d.SAs {
		switch u := s.Ledger.Unattributed; {
		case x.hidden:
		case u == nil && s.Mode != "": // the SA database had it, so there was something to hold it against
			t.Errorf("whether packets of SA %s %s are unattributed is not known", s.SPI, s.Direction)
		case u != nil && *u != 0:
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
