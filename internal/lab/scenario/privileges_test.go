// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

// TestLeastPrivilege runs diagnose as a user with the four capabilities of the systemd unit and nothing
// else. It has to attach all that root attaches, and to read the SAs.
func TestLeastPrivilege(t *testing.T) {
	tunnel.Need(t)
	b := raise(t, tunnel.Options{}, func(*tunnel.Tunnel) error { return nil }, nil)
	const nobody = 65534
	// Debian's own level 3 keeps kprobes to CAP_SYS_ADMIN; the report says so where one is missing.
	machineSetting(t, "kernel/perf_event_paranoid", "2")
	// What the test runs may lie where only root can look.
	dir := t.TempDir()
	for path := dir; path != "/" && path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "xfrmscope")
	if err := copyFile(program, binary(t)); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, "diagnose", "--json", "--interface", tunnel.WAN, "--for", "1s")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYSLOG},
	}
	// The process is in the gateway's namespace as any other of the machine is in its own.
	if err := b.tunnel.B.Do(cmd.Run); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr.Bytes())
	}
	var d struct {
		SAs []struct {
			State string `json:"state"`
		} `json:"sas"`
		Hooks []struct {
			Name     string `json:"name"`
			Attached bool   `json:"attached"`
			Why      string `json:"why"`
		} `json:"hooks"`
		Host struct {
			Notes []string `json:"notes"`
		} `json:"host"`
		Policies []json.RawMessage `json:"policies"`
		Kernel   struct {
			XfrmStat map[string]int64 `json:"xfrm_stat"`
		} `json:"kernel"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
		t.Fatalf("%v\n%s", err, stdout.Bytes())
	}
	if len(d.Hooks) < 20 || len(d.SAs) != 2 || d.Policies == nil || d.Kernel.XfrmStat == nil {
		t.Errorf("%d hooks, %d SAs, policies read: %t, counters read: %t", len(d.Hooks), len(d.SAs), d.Policies != nil, d.Kernel.XfrmStat != nil)
	}
	for _, sa := range d.SAs {
		if sa.State != "alive" {
			t.Errorf("an SA is %q", sa.State)
		}
	}
	for _, h := range d.Hooks {
		if !h.Attached {
			t.Errorf("%s is not attached: %s", h.Name, h.Why)
		}
	}
	for _, n := range d.Host.Notes {
		t.Errorf("host: %s", n)
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
