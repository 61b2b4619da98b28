// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/check"
)

// helperVariable turns this test binary into a program that runs its arguments as check does.
const helperVariable = "CHECK_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) == "" {
		os.Exit(m.Run())
	}
	c, err := check.Run(os.Args[1:], nil)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Printf("status %d %s\n", c.ExitStatus, c.Signal)
}

// waitFor is a shell function that waits until a condition holds, and ends the shell if it never does.
const waitFor = `w() { i=0; until eval "$1"; do i=$((i+1)); [ $i -lt 600 ] || exit 99; sleep 0.05; done; }; `

// helper is this test binary, told to run a shell script.
func helper(t *testing.T, dir, script string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "sh", "-c", waitFor+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), helperVariable+"=1")
	return cmd
}

// await waits until a file exists.
func await(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s does not appear", path)
}

func TestRunStatus(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		signal string
		fails  bool
	}{
		{[]string{"true"}, 0, "", false},
		{[]string{"sh", "-c", "exit 3"}, 3, "", false},
		{[]string{"sh", "-c", "kill -USR1 $$"}, 128 + int(unix.SIGUSR1), "SIGUSR1", false},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137, "SIGKILL", false},
		{[]string{"/no/such/program"}, 127, "", true},
		{[]string{"no-such-program"}, 127, "", true},
		{[]string{t.TempDir()}, 126, "", true},
	} {
		got, err := check.Run(c.args, nil)
		if got.ExitStatus != c.status || got.Signal != c.signal || (err != nil) != c.fails {
			t.Errorf("%q: %+v, %v", c.args, got, err)
		}
	}
}

// TestSignalsReachTheGroup sends each signal to the runner only, where there is no terminal: the command and
// what it has started get it, once.
func TestSignalsReachTheGroup(t *testing.T) {
	for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			name := strings.TrimPrefix(unix.SignalName(s), "SIG")
			// Two shells, one the other's child. Each notes what it gets and ends when both have. A shell's
			// child in the background ignores SIGINT and SIGQUIT (POSIX), so of those only one notes.
			inner := fmt.Sprintf(`trap "echo inner >>got" %s; touch inner; i=0; until [ -e done ] || [ $((i+=1)) -gt 600 ]; do sleep 0.05; done`, name)
			both := 2
			if s == unix.SIGINT || s == unix.SIGQUIT {
				inner, both = "touch inner", 1
			}
			script := fmt.Sprintf(`trap 'echo outer >>got' %s; sh -c '%s' & w '[ -e inner ]'; touch ready; `+
				`w '[ "$(sort -u got 2>/dev/null | wc -l)" -ge %d ]'; touch done; exit 9`, name, inner, both)
			cmd := helper(t, dir, script)
			// In a session of its own there is no terminal, wherever the test runs.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			var out strings.Builder
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, filepath.Join(dir, "ready"))
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(out.String()) != "status 9" {
				t.Errorf("the runner says %q", out.String())
			}
			got, err := os.ReadFile(filepath.Join(dir, "got"))
			if err != nil || strings.Count(string(got), "inner") != both-1 || strings.Count(string(got), "outer") != 1 {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestTerminal types Ctrl-C at a terminal: the command gets one SIGINT, not two, may read from the terminal,
// and the runner goes on to tell how it ended.
func TestTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no pseudo terminals here: %v", err)
		}
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := helper(t, dir, `trap 'echo int >>got' INT; read line; echo "$line" >read; touch ready; `+
		`w '[ -e got ]'; touch seen; w '[ -e done ]'; exit 4`)
	result := filepath.Join(dir, "result")
	out, err := os.Create(result)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, out, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := master.WriteString("typed\n"); err != nil {
		t.Fatal(err)
	}
	await(t, filepath.Join(dir, "ready"))
	if _, err := master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	await(t, filepath.Join(dir, "seen"))
	// A second SIGINT would have been sent together with the first; a signal that is passed on for
	// certain comes behind it.
	if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	read, err := os.ReadFile(filepath.Join(dir, "read"))
	if err != nil || string(read) != "typed\n" {
		t.Errorf("the command read %q, %v", read, err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "got"))
	if err != nil || string(got) != "int\n" {
		t.Errorf("the command got %q, %v", got, err)
	}
	told, err := os.ReadFile(result)
	if err != nil || string(told) != "status 138 SIGUSR1\n" {
		t.Errorf("the runner says %q, %v", told, err)
	}
}

// FuzzCompile looks for an expression that does not end in an error or an expectation.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{"loss == 0", "sa.replay_late < 10", `findings.has("path-loss")`, `drops["xfrm_input"] == 0`,
		"all(sas, .ledger.sent > 0)", "let x = loss; x == 0", "observed(loss) ?? true", "findings.none()", "#.x", "sas[0]?.wire?.late == 0"} {
		f.Add(s)
	}
	d := faulty()
	f.Fuzz(func(t *testing.T, s string) {
		e, err := check.Compile(s, "fuzz")
		if err != nil {
			return
		}
		if _, err := check.Judge(check.Facts{Report: d}, []*check.Expectation{e}); err != nil {
			t.Error(err)
		}
	})
}
