// SPDX-License-Identifier: Apache-2.0

// Package netns finds a network namespace by name or path and runs functions inside it.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Dir is where iproute2 keeps named network namespaces (ip-netns(8)).
const Dir = "/run/netns"

// Handle is an open network namespace. The zero Handle is not usable; see Open.
type Handle struct {
	file *os.File
	name string
	here bool // the process is in it already: entering it takes no privilege

	mu     sync.Mutex
	inside chan<- job // to the thread that is in the namespace; nil: none is, see Do
	thread atomic.Int64
}

// Open opens the namespace NAME of Dir, the one a path points to, or, for "", the caller's own.
// A caller in a locked thread gets that thread's namespace.
func Open(nameOrPath string) (*Handle, error) {
	path := nameOrPath
	switch {
	case nameOrPath == "":
		path = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	case !strings.Contains(nameOrPath, "/"):
		path = filepath.Join(Dir, nameOrPath)
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open network namespace %q: there is no %s; %s", nameOrPath, path, known())
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open network namespace %q: %w; run as root", nameOrPath, err)
	case err != nil:
		return nil, fmt.Errorf("open network namespace %q: %w", nameOrPath, err)
	}
	// NS_GET_NSTYPE answers with the CLONE_NEW* flag, so a file that is no namespace, or one of
	// another kind, is found before anything is attached.
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return nil, errors.Join(
			fmt.Errorf("open network namespace %q: %s is not a network namespace; %s", nameOrPath, path, known()),
			f.Close())
	}
	h := &Handle{file: f, name: nameOrPath}
	own, err := common()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	it, err := h.Inode()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	h.here = own == it
	return h, nil
}

// common identifies the namespace that the process's threads are in: not the caller's, which may be locked
// to a thread in another, nor that of /proc/self, whose thread may be stuck in one.
func common() (uint64, error) {
	type answer struct {
		inode uint64
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			got <- answer{err: fmt.Errorf("identify the process's network namespace: %w", err)}
			return
		}
		got <- answer{inode: st.Ino}
	}()
	a := <-got
	return a.inode, a.err
}

// Names lists the namespaces that have a name, sorted.
func Names() ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

func known() string {
	names, err := Names()
	switch {
	case err != nil:
		return err.Error()
	case len(names) == 0:
		return "no network namespace has a name here (see `ip netns list`): give a path such as /proc/PID/ns/net"
	default:
		return "known names: " + strings.Join(names, ", ")
	}
}

// Name is what Open was given; empty for the caller's own namespace.
func (h *Handle) Name() string { return h.name }

// FD is the namespace's file descriptor, valid until Close.
func (h *Handle) FD() int { return int(h.file.Fd()) }

// SocketFD is what libraries want that open sockets in a namespace: its descriptor, or 0 where the process
// is in it anyway. Entering a namespace takes CAP_SYS_ADMIN, even where it changes nothing.
func (h *Handle) SocketFD() int {
	if h.here {
		return 0
	}
	return h.FD()
}

// Inode identifies the namespace on this machine.
func (h *Handle) Inode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(h.FD(), &st); err != nil {
		return 0, fmt.Errorf("identify network namespace: %w", err)
	}
	return st.Ino, nil
}

// Close gives the descriptor back and ends the thread in the namespace, which lives on.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inside != nil {
		close(h.inside)
		h.inside = nil
	}
	return h.file.Close()
}

// Do runs fn in the namespace and waits for it; a call from elsewhere waits for the one before it to end. Calls by fn
// itself are run at once, if they come from its own goroutine. fn runs on an operating system thread that enters the
// namespace once and stays in it until Close, and never returns to Go's pool. So the privilege to enter it is needed
// for the first call only, and may be given up then. Sockets that fn opens stay in the namespace and may be used
// elsewhere afterwards.
func (h *Handle) Do(fn func() error) error {
	if h.here {
		done := make(chan error, 1)
		go func() {
			// The caller may be locked to a thread that is elsewhere.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread() // nothing was changed
			done <- fn()
		}()
		return <-done
	}
	if h.thread.Load() == int64(unix.Gettid()) {
		return fn() // called by what Do runs
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inside == nil {
		inside, err := h.enter()
		if err != nil {
			return err
		}
		h.inside = inside
	}
	j := job{fn, make(chan error, 1)}
	h.inside <- j
	return <-j.done
}

// job is a function that a namespace's thread is to run.
type job struct {
	fn   func() error
	done chan error
}

// enter starts the thread that runs what Do is given.
func (h *Handle) enter() (chan<- job, error) {
	entered, jobs := make(chan error, 1), make(chan job)
	go func() {
		// Deliberately never unlocked: the thread ends with this goroutine.
		runtime.LockOSThread()
		err := unix.Setns(h.FD(), unix.CLONE_NEWNET)
		entered <- err
		if err != nil {
			return
		}
		h.thread.Store(int64(unix.Gettid()))
		defer h.thread.Store(0)
		for j := range jobs {
			j.done <- j.fn()
		}
	}()
	err := <-entered
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w; run as root or with CAP_SYS_ADMIN", err)
	}
	if err != nil {
		return nil, fmt.Errorf("enter network namespace %q: %w", h.name, err)
	}
	return jobs, nil
}
