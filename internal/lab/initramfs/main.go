// SPDX-License-Identifier: Apache-2.0

// Initramfs is the only program beside xfrmscope in a virtual machine that has nothing else: no shell, no
// libc, no /etc, no /tmp, no /dev. As first process it mounts /proc and /sys, loads the modules that it was
// given, raises an ESP tunnel between network namespaces, and has `xfrmscope check` watch itself send a
// known number of packets of which a known number is lost. docs/ci.md shows how it is packed and run.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// xfrmscope is where the program under test is; it has to be static as well.
const xfrmscope = "/xfrmscope"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "send" {
		if err := send(); err != nil {
			fmt.Fprintln(os.Stderr, "send:", err)
			os.Exit(1)
		}
		return
	}
	status := 0
	if err := guest(); err != nil {
		fmt.Println("init:", err)
		status = 1
	}
	// The line that whoever started the machine waits for.
	fmt.Printf("kernel-test: exit status %d\n", status)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("power off:", err)
	}
}

// guest is what the first process does.
func guest() error {
	debug.SetTraceback("all")
	for _, m := range []string{"proc", "sysfs"} {
		at := map[string]string{"proc": "/proc", "sysfs": "/sys"}[m]
		if err := unix.Mount(m, at, m, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	if err := bare(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	w, err := raise()
	if err != nil {
		return err
	}
	defer w.close()
	return w.test()
}

// bare makes sure that the machine is as empty as it is meant to be: a test that passes because somebody
// mounted a /tmp proves nothing.
func bare() error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	// The kernel's own initramfs brings /dev with the console, and /root.
	extra := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return slices.Contains([]string{"init", "modules", "proc", "sys", "xfrmscope", "dev", "root"}, n)
	})
	if len(extra) > 0 {
		return fmt.Errorf("there is more here than there should be: %s", strings.Join(extra, ", "))
	}
	for _, dir := range []string{"/dev", "/root", "/sys/fs/bpf", "/sys/kernel/tracing"} {
		inside, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range inside {
			if e.Name() != "console" {
				return fmt.Errorf("%s is not empty: it has %s", dir, e.Name())
			}
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	fmt.Printf("init: / holds %s; mounted are:\n%s", strings.Join(names, ", "), mounts)
	return nil
}

// loadModules inserts every module of a folder, in the order of their names.
func loadModules(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel that has everything built in
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := loadModule(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	fmt.Printf("init: loaded %d modules\n", len(entries))
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// A driver of a processor feature that this machine does not have is no loss.
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// test runs the checks and compares what they end with.
func (w *world) test() error {
	for _, c := range []struct {
		name   string
		want   int
		flags  []string
		expect []string
	}{
		{"every fault is accounted for", 0, nil, []string{
			fmt.Sprintf("lost_on_path == %d", len(lost)),
			fmt.Sprintf("integrity_failed == %d", len(corrupted)),
			fmt.Sprintf("sum(inbound, .sent) == %d", packets),
			fmt.Sprintf("loss == %d", len(lost)+len(corrupted)),
			fmt.Sprintf("sum(inbound, .delivered) == %d", packets-len(lost)-len(corrupted)),
			"sa.unattributed == 0",
			fmt.Sprintf(`drops["xfrm_input"] == %d`, len(corrupted)),
			fmt.Sprintf(`xfrm_stat["XfrmInStateProtoError"] == %d`, len(corrupted)),
			`findings.has("path-loss") and findings.has("integrity-failed")`,
			"kernel.reconciled",
			"self.events_lost == 0",
		}},
		// The faults work once on each number, so nothing is lost this time.
		{"nothing is lost, though some is expected", 1, []string{"--no-inner"}, []string{"loss == 1", "sum(inbound, .sent) == 100"}},
	} {
		args := []string{"check", "--interface", wan, "--settle", "2s"}
		args = append(args, c.flags...)
		for _, e := range c.expect {
			args = append(args, "--expect", e)
		}
		cmd := exec.Command(xfrmscope, append(args, "--", "/init", "send")...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stdout
		cmd.Env = w.environment()
		begin := time.Now()
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return fmt.Errorf("run xfrmscope: %w", err)
		}
		got := cmd.ProcessState.ExitCode()
		fmt.Printf("init: %s: exit status %d after %s\n", c.name, got, time.Since(begin).Round(100*time.Millisecond))
		if got != c.want {
			return fmt.Errorf("%s: xfrmscope ended with status %d, want %d", c.name, got, c.want)
		}
	}
	return nil
}
