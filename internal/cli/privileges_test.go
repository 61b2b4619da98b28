// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/kernel"
)

// privilegesCmd looks at a running xfrmscope from outside, whose command line has a word, and demands that each of its
// threads has just these capabilities, in each set: privileges [-wait] WORD CAP... "maps" stands for what this
// kernel asks for where a map is read. With -wait they may come about within a minute.
func privilegesCmd(ts *testscript.TestScript, neg bool, args []string) {
	wait := len(args) > 0 && args[0] == "-wait"
	if wait {
		args = args[1:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: privileges [-wait] word cap...")
	}
	var keep uint64
	for _, name := range args[1:] {
		switch name {
		case "net_admin":
			keep |= 1 << unix.CAP_NET_ADMIN
		case "dac_override":
			keep |= 1 << unix.CAP_DAC_OVERRIDE
		case "maps":
			if !readsMapsFreely(ts) {
				keep |= 1 << unix.CAP_BPF
			}
		default:
			ts.Fatalf("no capability %s here", name)
		}
	}
	wrong := "no such process"
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if pid := xfrmscopeWith(ts, args[0]); pid != "" {
			if wrong = others(ts, pid, keep); wrong == "" {
				return
			}
		}
		if !wait || time.Now().After(end) {
			ts.Fatalf("%s: want %#x: %s", args[0], keep, wrong)
		}
	}
}

// readsMapsFreely says whether this kernel lets whoever has a map's descriptor read it (since 5.19).
func readsMapsFreely(ts *testscript.TestScript) bool {
	release, err := kernel.Release()
	ts.Check(err)
	var major, minor int
	_, err = fmt.Sscanf(release, "%d.%d", &major, &minor)
	ts.Check(err)
	return major > 5 || major == 5 && minor >= 19
}

// xfrmscopeWith finds the process in whose command line a word stands; "" where there is none.
func xfrmscopeWith(ts *testscript.TestScript, word string) string {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	ts.Check(err)
	for _, path := range paths {
		line, err := os.ReadFile(path)
		dir := filepath.Dir(path)
		if cwd, _ := os.Readlink(dir + "/cwd"); err != nil || cwd != ts.MkAbs(".") {
			continue
		}
		argv := bytes.Split(line, []byte{0})
		if filepath.Base(string(argv[0])) == "xfrmscope" && bytes.Contains(line, []byte(word)) {
			return filepath.Base(dir)
		}
	}
	return ""
}

// others says what a process has that it should not, or lacks; "" where all is as it should be.
func others(ts *testscript.TestScript, pid string, keep uint64) string {
	tasks, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	ts.Check(err)
	if len(tasks) == 0 {
		return "it has ended"
	}
	for _, path := range tasks {
		status, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // the thread has ended
		}
		ts.Check(err)
		for _, want := range []struct {
			set  string
			caps uint64
		}{{"CapEff", keep}, {"CapPrm", keep}, {"CapInh", 0}, {"CapAmb", 0}} {
			if !strings.Contains(string(status), fmt.Sprintf("\n%s:\t%016x\n", want.set, want.caps)) {
				return fmt.Sprintf("%s:\n%s", path, status)
			}
		}
		if !strings.Contains(string(status), "\nNoNewPrivs:\t1\n") {
			return fmt.Sprintf("%s:\n%s", path, status)
		}
	}
	return ""
}
