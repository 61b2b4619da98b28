// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/kernel"
)

// nobody is a user without any privilege of its own.
const nobody = 65534

// program builds xfrmscope where every user can run it.
func program(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("becoming another user needs root, and CI has to give it")
		}
		t.Skip("becoming another user needs root")
	}
	dir, err := os.MkdirTemp("", "xfrmscope-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "xfrmscope")
	if out, err := exec.Command("go", "build", "-o", path, "xfrmscope/cmd/xfrmscope").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// TestDoctorConfined runs doctor with less than it needs: it has to say exactly what is missing.
func TestDoctorConfined(t *testing.T) {
	bin := program(t)
	all := []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYSLOG}
	as := func(caps ...uintptr) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: caps}
	}
	for _, c := range []struct {
		name    string
		attr    *syscall.SysProcAttr
		wrap    []string // runs the program
		exit    []int
		privs   []string // what must be named as missing
		not     []string // what must not
		symbols string   // what is said of kernel symbols, "" for nothing
		confine string
	}{
		{name: "plain user", attr: as(), exit: []int{ExitObserve},
			privs: []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "run as root", "setcap cap_bpf,cap_perfmon,cap_net_admin,cap_syslog+ep " + bin, "--cap-add"}},
		{name: "no CAP_NET_ADMIN", attr: as(unix.CAP_BPF, unix.CAP_PERFMON), exit: []int{ExitObserve},
			privs: []string{"missing privilege CAP_NET_ADMIN ("}, not: []string{"CAP_BPF,", "CAP_PERFMON"}},
		{name: "all capabilities", attr: as(all...), exit: []int{ExitClean, ExitFindings}},
		{name: "no CAP_SYSLOG", attr: as(all[:3]...), exit: []int{ExitClean, ExitFindings}, symbols: "CAP_SYSLOG"},
		{name: "user namespace", exit: []int{ExitObserve}, privs: []string{"user namespace", "podman as root"}, confine: "a user namespace",
			attr: &syscall.SysProcAttr{
				Credential:  &syscall.Credential{NoSetGroups: true}, // root, inside
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
			}},
		{name: "masked kallsyms", attr: &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}, exit: []int{ExitClean, ExitFindings},
			wrap: []string{"sh", "-c", `mount --bind /dev/null /proc/kallsyms && exec "$0" "$@"`}, symbols: "/proc/kallsyms"},
		{name: "seccomp without bpf", exit: []int{ExitObserve}, privs: []string{"operation not permitted"}, confine: "a seccomp filter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			argv := slices.Concat(c.wrap, []string{bin, "doctor", "--json", "--interface", "lo"})
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &stdout, &stderr, c.attr
			run := cmd.Run
			if c.confine == "a seccomp filter" {
				run = func() error { return withoutBPF(cmd) }
			}
			if err := run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); !slices.Contains(c.exit, code) {
				t.Errorf("exit %d, want one of %v\n%s", code, c.exit, stderr.Bytes())
			}
			var d diagnosis
			if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
				t.Fatalf("%v\n%s\n%s", err, stdout.Bytes(), stderr.Bytes())
			}
			for _, want := range c.privs {
				if !strings.Contains(d.Privileges, want) {
					t.Errorf("%q is not in %q", want, d.Privileges)
				}
			}
			if len(c.privs) == 0 && d.Privileges != "" {
				t.Errorf("said to be missing: %s", d.Privileges)
			}
			for _, wrong := range c.not {
				if strings.Contains(d.Privileges, wrong) {
					t.Errorf("%q is in %q", wrong, d.Privileges)
				}
			}
			if why := symbols(d); c.symbols == "" != (why == "") || !strings.Contains(why, c.symbols) {
				t.Errorf("kernel symbols: %q, want %q in it", why, c.symbols)
			}
			found := slices.ContainsFunc(d.Confined, func(x kernel.Confinement) bool { return strings.HasPrefix(x.Name, c.confine) })
			if c.confine != "" && !found {
				t.Errorf("confinements: %+v, want %q", d.Confined, c.confine)
			}
		})
	}
}

// symbols is why kernel symbols are not readable; empty where they are, or where nobody got that far.
func symbols(d diagnosis) string {
	for _, f := range d.Features {
		if f.Name == "kernel symbols" {
			return f.Why
		}
	}
	return ""
}

// withoutBPF runs a command under a seccomp filter that refuses bpf(2), as those of containers do.
func withoutBPF(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the filter stays with the thread, which ends with this goroutine
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- err
			return
		}
		if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
			done <- fmt.Errorf("set seccomp filter: %w", err)
			return
		}
		done <- cmd.Run()
	}()
	return <-done
}

// TestNetnsWithoutPrivilege enters another namespace with everything but what that takes.
func TestNetnsWithoutPrivilege(t *testing.T) {
	bin := program(t)
	name := fmt.Sprintf("xsc-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v\n%s", err, out)
		}
	})
	cmd := exec.Command(bin, "doctor", "--netns", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYSLOG}}
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != ExitObserve || !strings.Contains(string(out), "CAP_SYS_ADMIN") {
		t.Errorf("%v, want exit %d and CAP_SYS_ADMIN named\n%s", err, ExitObserve, out)
	}
}
