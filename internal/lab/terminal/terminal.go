// SPDX-License-Identifier: Apache-2.0

// Package terminal runs a command in a real terminal, presses keys there and reads the screen.
package terminal

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Terminal is a tmux server of its own, with one window in which a command runs.
type Terminal struct {
	t      testing.TB
	socket string
}

// Need demands root and tmux; CI has both.
func Need(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("tmux")
	if err == nil && os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test drives a terminal with tmux as root: uid %d, %v", os.Getuid(), err)
	}
	t.Skipf("this test drives a terminal with tmux as root: uid %d, %v", os.Getuid(), err)
}

// Open runs a shell command in a terminal of the given size. It ends with the test.
func Open(t testing.TB, width, height int, command string) *Terminal {
	t.Helper()
	m := &Terminal{t, filepath.Join(t.TempDir(), "tmux")}
	// What is drawn with characters beyond ASCII is shown whatever the locale of the test.
	m.Tmux("-u", "-f", "/dev/null", "new-session", "-d", "-s", "w", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height), command)
	// The server ends with its session, and whatever still runs in it is hung up on.
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", m.socket, "kill-session", "-t", "w").Run() })
	return m
}

// Tmux gives the server a command.
func (m *Terminal) Tmux(args ...string) string {
	m.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", m.socket}, args...)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("tmux %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Keys presses keys, by tmux's names or, where it has none of that name, letter by letter.
func (m *Terminal) Keys(names ...string) {
	m.t.Helper()
	for _, n := range names {
		m.Tmux("send-keys", "-t", "w", n)
	}
}

// patience bounds what an emulated machine may take to draw a screen.
const patience = 2 * time.Minute

// Await waits until everything that is asked for is on the screen, and returns the screen.
func (m *Terminal) Await(patterns ...string) string {
	m.t.Helper()
	var screen, missing string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		screen, missing = m.Tmux("capture-pane", "-p", "-t", "w"), ""
		for _, p := range patterns {
			if !regexp.MustCompile(p).MatchString(screen) {
				missing = p
			}
		}
		if missing == "" {
			return screen
		}
	}
	m.t.Fatalf("%q does not appear on the screen:\n%s", missing, screen)
	return ""
}
