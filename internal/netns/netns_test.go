// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root, and CI has to give it")
	}
	t.Skip("needs root")
}

// named makes a namespace with a name and removes it afterwards.
func named(t *testing.T) string {
	t.Helper()
	needRoot(t)
	name := fmt.Sprintf("xst-%d-%s", os.Getpid(), strings.ToLower(t.Name()[len("Test"):]))
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread stays in the new namespace and ends with this goroutine
		h, err := vnetns.NewNamed(name)
		if err == nil {
			err = h.Close()
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatalf("make namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := vnetns.DeleteNamed(name); err != nil {
			t.Errorf("delete namespace: %v", err)
		}
	})
	return name
}

func TestDoRunsInside(t *testing.T) {
	name := named(t)
	h, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	want, err := h.Inode()
	if err != nil {
		t.Fatal(err)
	}
	own, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	outside, err := own.Inode()
	if err != nil {
		t.Fatal(err)
	}
	if outside == want {
		t.Fatal("the new namespace is the old one")
	}
	var inside uint64
	if err := h.Do(func() error {
		var st unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), &st)
		inside = st.Ino
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if inside != want {
		t.Errorf("fn ran in namespace %d, want %d", inside, want)
	}
	// The same namespace by path.
	p, err := Open(filepath.Join(Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, err := p.Inode(); err != nil || got != want {
		t.Errorf("by path: inode %d, %v; want %d", got, err, want)
	}
}

// TestDoStays: all that Do runs is on one thread, which what it runs may ask for again, and which is gone after Close.
func TestDoStays(t *testing.T) {
	h, err := Open(named(t))
	if err != nil {
		t.Fatal(err)
	}
	var threads []int
	note := func() error { threads = append(threads, unix.Gettid()); return nil }
	if err := errors.Join(h.Do(note), h.Do(func() error { return errors.Join(note(), h.Do(note)) })); err != nil {
		t.Fatal(err)
	}
	if len(threads) != 3 || threads[0] != threads[1] || threads[1] != threads[2] {
		t.Errorf("ran on threads %v, want one", threads)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/self/task/%d", threads[0])
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		// Go never ends the main thread, but parks it.
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || threads[0] == os.Getpid() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the thread outlives Close")
		}
	}
	if err := h.Do(note); err == nil {
		t.Error("Do after Close ran")
	}
}

func TestOpenSaysWhatThereIs(t *testing.T) {
	name := named(t)
	_, err := Open("no-such-namespace")
	if err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("error %v does not list %s", err, name)
	}
}

func TestOpenRefusesOtherFiles(t *testing.T) {
	for _, path := range []string{"/proc/self/ns/uts", "/proc/self/status"} {
		_, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), "not a network namespace") {
			t.Errorf("open %s: %v", path, err)
		}
	}
}
