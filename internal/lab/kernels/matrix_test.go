// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// guests stands in for scripts/vm/test: what it prints, and its exit status, by kernel.
var guests = map[string]string{
	"5.10": `echo "--- SKIP: TestA (0.00s)"; echo "ok   smoke TestA 1.0s on 5.10.0-46-cloud-amd64"`,
	"6.1":  `echo "AGAIN smoke TestA 1.0s on 6.1.0-cloud-amd64 (status 1)"; echo "UNSTEADY smoke TestA failed, and passed when it ran again"; echo "[run] kernel 6.1 did not boot: trying once more" >&2; echo "ok   smoke TestA 1.0s on 6.1.0-cloud-amd64"`,
	"6.12": `echo "FAIL smoke TestB 1.0s on 6.12.0-cloud-amd64 (status 1)"; exit 1`,
	"6.18": `echo "[run] kernel 6.18 did not boot: trying once more" >&2; echo "[run] kernel 6.18 did not boot, tried twice" >&2; exit 125`,
	"7":    `echo "ok   smoke TestA 1.0s on 7.3.4-cloud-amd64"; echo "[run] kernel 7 died while the command ran" >&2; exit 126`,
}

// TestMatrix runs scripts/vm/matrix over guests that only pretend, and demands that it tells a kernel that did
// not boot from a test that failed, in what it says and in its exit status.
func TestMatrix(t *testing.T) {
	repo := t.TempDir()
	vm := filepath.Join(repo, "scripts", "vm")
	if err := os.MkdirAll(vm, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum", "internal", "scripts/vm/matrix", "scripts/vm/lib.sh"} {
		to, err := filepath.Abs(filepath.Join("..", "..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(repo, name)); err != nil {
			t.Fatal(err)
		}
	}
	script := "#!/bin/bash\nfor word; do case $word in\n"
	for kernel, does := range guests {
		script += kernel + ") " + does + " ;;\n"
	}
	for name, text := range map[string]string{"test": script + "esac; done\n", "kernel": "#!/bin/bash\necho \"$1\"\n"} {
		if err := os.WriteFile(filepath.Join(vm, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		kernels string
		status  int
		lines   []string
		records string
	}{
		{"5.10 6.1", 0, []string{
			"ok       5.10: 1 tests on 5.10.0-46-cloud-amd64, 1 of them declined",
			"ok       6.1: 1 tests on 6.1.0-cloud-amd64, 0 of them declined; it did not boot the first time; passed only when run again: smoke TestA",
		}, "5.10 6.1"},
		{"5.10 6.12", 1, []string{"ok       5.10: 1 tests on 5.10.0-46-cloud-amd64, 1 of them declined", "FAIL     6.12: smoke TestB; 0 passed"}, "5.10 6.12"},
		{"6.18 5.10", 3, []string{
			"NO BOOT  6.18: [run] kernel 6.18 did not boot, tried twice",
			"ok       5.10: 1 tests on 5.10.0-46-cloud-amd64, 1 of them declined",
		}, "5.10"},
		{"6.18 7", 1, []string{
			"NO BOOT  6.18: [run] kernel 6.18 did not boot, tried twice",
			"FAIL     7: the kernel died after 1 tests",
		}, "7"},
	} {
		t.Run(c.kernels, func(t *testing.T) {
			out := t.TempDir()
			args := append([]string{"-j", "2", "-o", out}, strings.Fields(c.kernels)...)
			printed, err := exec.Command(filepath.Join(vm, "matrix"), args...).Output()
			var exit *exec.ExitError
			status := 0
			if errors.As(err, &exit) {
				status = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if status != c.status {
				t.Errorf("exit status %d, want %d\n%s", status, c.status, printed)
			}
			// The last lines are one for each kernel, in the order in which they were named.
			lines := strings.Split(strings.TrimSpace(regexp.MustCompile(` \(\d+ s\)`).ReplaceAllString(string(printed), "")), "\n")
			if diff := cmp.Diff(c.lines, lines[max(0, len(lines)-len(c.lines)):]); diff != "" {
				t.Errorf("results (-want +got):\n%s\n%s", diff, printed)
			}
			paths, err := filepath.Glob(filepath.Join(out, "*.json"))
			if err != nil {
				t.Fatal(err)
			}
			var records []string
			for _, path := range paths {
				records = append(records, strings.TrimSuffix(filepath.Base(path), ".json"))
			}
			if got := strings.Join(records, " "); got != c.records {
				t.Errorf("records of %q, want %q", got, c.records)
			}
		})
	}
}
