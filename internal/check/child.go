// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The statuses of a command that could not be started, as shells have them.
const (
	statusNotExecutable = 126
	statusNotFound      = 127
	statusSignal        = 128 // plus the signal's number
)

// forwarded are the signals that are meant for the command while it runs.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

// Run runs a command with this process's own standard input, output and error, passes signals on to it, and
// says how it ended. err is only for what keeps it from starting; the status then says so as well.
//
// started is called once the command runs, with the privileges that this process had until then; may be nil.
//
// Where this process is in the foreground of a terminal, the command stays in its process group, so that
// the terminal treats both alike; Ctrl-C and Ctrl-\ then reach the command by themselves and are not
// passed on a second time. Elsewhere it gets a group of its own, and signals go to all of that.
func Run(args []string, started func()) (*Command, error) {
	out := &Command{Args: args}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	together := inForeground()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !together}

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		out.ExitStatus = statusNotExecutable
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			out.ExitStatus = statusNotFound
		}
		return out, fmt.Errorf("start command: %w", err)
	}
	if started != nil {
		started()
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			pass(cmd.Process.Pid, s.(syscall.Signal), together)
			continue
		case err := <-done:
			out.DurationS = time.Since(begin).Round(time.Millisecond).Seconds()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				out.ExitStatus = statusNotExecutable
				return out, fmt.Errorf("wait for command: %w", err)
			}
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			out.ExitStatus = status.ExitStatus()
			if status.Signaled() {
				out.ExitStatus = statusSignal + int(status.Signal())
				out.Signal = unix.SignalName(status.Signal())
			}
			return out, nil
		}
	}
}

// pass sends a signal on. A command that has just ended needs none, so errors are no news.
func pass(pid int, s syscall.Signal, together bool) {
	switch {
	case !together:
		_ = unix.Kill(-pid, s)
	case s != unix.SIGINT && s != unix.SIGQUIT:
		_ = unix.Kill(pid, s)
	}
}

// inForeground says whether a terminal sends its signals to this process's group.
func inForeground() bool {
	for fd := range 3 {
		if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil {
			return group == unix.Getpgrp()
		}
	}
	return false
}
