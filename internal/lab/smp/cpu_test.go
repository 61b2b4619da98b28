// SPDX-License-Identifier: Apache-2.0

package smp

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Everything of the lab stays on the first processor, so that the second has nothing to do but what a
// test gives it.
const (
	labCPU  = 0
	busyCPU = 1
)

// spinning in the environment makes the test binary a program that does nothing but use its processor.
const spinning = "XFRMSCOPE_LAB_SPIN"

func TestMain(m *testing.M) {
	if os.Getenv(spinning) != "" {
		for turns := uint64(0); ; turns++ { // until it is killed
		}
	}
	if runtime.NumCPU() > busyCPU {
		if err := stayOn(labCPU); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// stayOn moves all threads of this process to one processor. What they start stays there as well.
func stayOn(cpu int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list own threads: %w", err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return fmt.Errorf("list own threads: %w", err)
		}
		if err := affine(tid, cpu); err != nil {
			return err
		}
	}
	return nil
}

func affine(tid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("move thread %d to processor %d: %w", tid, cpu, err)
	}
	return nil
}

// spin keeps the busy processor busy with a program until the test ends.
func spin(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), spinning+"=1", "GOMAXPROCS=1")
	started := make(chan error)
	go func() {
		// A process begins where the thread is that starts it; the thread ends with this goroutine.
		runtime.LockOSThread()
		err := affine(unix.Gettid(), busyCPU)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // says that it was killed
	})
}

// times are clock ticks of one processor since boot.
type times struct{ total, idle, softirq uint64 }

// share is part of the time from one reading to a later one, in percent.
func share(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// The columns of a processor's line in /proc/stat, after its name (proc(5)).
const (
	idleColumn    = 3
	iowaitColumn  = 4
	softirqColumn = 6
	columns       = 8
)

// readTimes is a reader of /proc/stat that is not the one under test.
func readTimes(t *testing.T, cpu int) times {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) <= columns || fields[0] != fmt.Sprintf("cpu%d", cpu) {
			continue
		}
		var out times
		for i, field := range fields[1 : 1+columns] {
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			out.total += n
			switch i {
			case idleColumn, iowaitColumn:
				out.idle += n
			case softirqColumn:
				out.softirq = n
			}
		}
		return out
	}
	t.Fatalf("/proc/stat has no processor %d", cpu)
	return times{}
}
