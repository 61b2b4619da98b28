// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// nobody is a user without any privilege of its own.
const nobody = 65534

// caseVariable tells a child process of this test what to drop.
const caseVariable = "PRIVILEGE_TEST_CASE"

func TestMain(m *testing.M) {
	switch name := os.Getenv(caseVariable); name {
	case "":
	case hiding:
		HideMemory()
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		fmt.Println(dumpable, err, readsOwnDescriptors())
		os.Exit(0)
	default:
		os.Exit(child(name))
	}
	os.Exit(m.Run())
}

// cases are what child processes drop, and what each of their threads must have left.
var cases = map[string]struct {
	needs func(dir string) []Need
	keep  []int
}{
	"nothing needed": {needs: func(string) []Need { return nil }},
	"one needed":     {needs: func(string) []Need { return []Need{{Cap: unix.CAP_NET_ADMIN}} }, keep: []int{unix.CAP_NET_ADMIN}},
	"another stands in": {needs: func(string) []Need { return []Need{{Cap: 63, Or: unix.CAP_SYS_ADMIN}} },
		keep: []int{unix.CAP_SYS_ADMIN}},
	"tried and needed": {needs: func(string) []Need { return []Need{{Cap: unix.CAP_NET_RAW, Try: openRaw}} },
		keep: []int{unix.CAP_NET_RAW}},
	"tried and not needed": {needs: func(string) []Need {
		return []Need{{Cap: unix.CAP_NET_RAW, Try: func() error { return nil }}}
	}},
	"tried and of no use": {needs: func(string) []Need {
		return []Need{{Cap: unix.CAP_NET_RAW, Try: func() error { return errors.New("it fails in any case") }}}
	}},
	"a folder of others": {needs: func(dir string) []Need { return []Need{ToWrite("", "-", filepath.Join(dir, "theirs", "new"))} },
		keep: []int{unix.CAP_DAC_OVERRIDE}},
	"a folder of our own": {needs: func(dir string) []Need { return []Need{ToWrite(filepath.Join(dir, "new"))} }},
	"a file of others": {needs: func(dir string) []Need { return []Need{ToRead(filepath.Join(dir, "theirs", "file"))} },
		keep: []int{unix.CAP_DAC_READ_SEARCH}},
	"a file of our own": {needs: func(dir string) []Need { return []Need{ToRead(filepath.Join(dir, "file"), filepath.Join(dir, "none"))} }},
}

func openRaw() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// child drops, and then prints the status of each of its threads, those included that were there before and are locked.
func child(name string) int {
	dir := os.Getenv("PRIVILEGE_TEST_DIR")
	running, end := make(chan struct{}), make(chan struct{})
	for range 4 {
		go func() {
			runtime.LockOSThread()
			running <- struct{}{}
			<-end
		}()
		<-running
	}
	defer close(end)
	if err := Drop(cases[name].needs(dir)...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) < 5 {
		fmt.Fprintf(os.Stderr, "%d threads, %v\n", len(tasks), err)
		return 1
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		os.Stdout.Write(b)
	}
	// A program started now gets nothing back, although it is root that starts it.
	out, err := exec.Command("cat", "/proc/self/status").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Stdout.Write(out)
	return 0
}

// TestDrop: what is left is what is needed, in each thread, in every set, for good.
func TestDrop(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("having capabilities needs root, and CI has to give it")
		}
		t.Skip("having capabilities needs root")
	}
	dir := t.TempDir()
	theirs := filepath.Join(dir, "theirs")
	if err := errors.Join(os.Mkdir(theirs, 0o700), os.WriteFile(filepath.Join(theirs, "file"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o600),
		os.Chown(theirs, nobody, nobody), os.Chown(filepath.Join(theirs, "file"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var want uint64
			for _, n := range c.keep {
				want |= bit(n)
			}
			for _, status := range statuses(t, name, dir, nil) {
				wantSets(t, status, map[string]uint64{"CapEff": want, "CapPrm": want, "CapInh": 0, "CapAmb": 0})
			}
		})
	}
	// The user of the systemd unit.
	t.Run("ambient", func(t *testing.T) {
		attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_BPF}}
		for _, status := range statuses(t, "one needed", dir, attr) {
			if strings.HasPrefix(status, "Name:\tcat\n") {
				wantSets(t, status, map[string]uint64{"CapEff": 0, "CapPrm": 0, "CapInh": 0, "CapAmb": 0})
				continue
			}
			want := bit(unix.CAP_NET_ADMIN)
			wantSets(t, status, map[string]uint64{"CapEff": want, "CapPrm": want, "CapInh": 0, "CapAmb": 0})
		}
	})
}

const hiding = "hiding"

// TestHideMemory: hidden as far as the process still gets at what is its own.
func TestHideMemory(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = append(os.Environ(), caseVariable+"="+hiding), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// The other way, and only before Linux 5.14: shown, with what is its own.
	if got := string(out); got != "0 <nil> <nil>\n" && got != "1 <nil> <nil>\n" {
		t.Errorf("dumpable, and whether its descriptors can be read: %s", got)
	}
	if os.Getuid() == 0 && !strings.HasPrefix(string(out), "0 ") {
		t.Errorf("root's memory is not hidden: %s", out)
	}
}

// statuses are those of the child's threads and of the program that it started.
func statuses(t *testing.T, name, dir string, attr *syscall.SysProcAttr) []string {
	t.Helper()
	self := filepath.Join(t.TempDir(), "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for path := filepath.Dir(self); path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), caseVariable+"="+name, "PRIVILEGE_TEST_DIR="+dir)
	cmd.SysProcAttr, cmd.Stderr = attr, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	list := strings.SplitAfter(string(out), "\nName:")
	if len(list) < 6 {
		t.Fatalf("%d statuses, want those of 5 threads and a program:\n%s", len(list), out)
	}
	for i := range list[1:] {
		list[i] = strings.TrimSuffix(list[i], "Name:")
		list[i+1] = "Name:" + list[i+1]
	}
	return list
}

func wantSets(t *testing.T, status string, want map[string]uint64) {
	t.Helper()
	found := []string{}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if name == "NoNewPrivs" && value != "1" {
			t.Errorf("NoNewPrivs %s", value)
		}
		w, ok := want[name]
		if !ok {
			continue
		}
		found = append(found, name)
		if value != fmt.Sprintf("%016x", w) {
			t.Errorf("%s %s, want %016x", name, value, w)
		}
	}
	if len(found) != len(want) {
		t.Errorf("the status tells of %v only:\n%s", slices.Sorted(slices.Values(found)), status)
	}
}

// TestToConnect keeps what a socket of others takes.
func TestToConnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := ToConnect(path).Try(); err != nil {
		t.Errorf("one's own socket: %v", err)
	}
	if err := ToConnect(path + "-none").Try(); err != nil {
		t.Errorf("no socket: %v", err)
	}
}
