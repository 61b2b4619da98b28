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

	"golang.org/x/sys/unix"
)

// Dir is where iproute2 keeps named network namespaces (ip-netns(8)).
const Dir = "/run/netns"

// Handle is an open network namespace. The zero Handle is not usable; see Open.
type Handle struct {
	file *os.File
	name string
	here bool // the process is in it already: entering it takes no privilege
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

// Close gives the descriptor back; the namespace lives on.
func (h *Handle) Close() error { return h.file.Close() }

// Do runs fn in the namespace and waits for it. fn runs on an operating system thread of its own,
// which, if it had to enter the namespace, ends with it: a thread that changed its namespace never returns to Go's pool. Sockets that
// fn opens stay in the namespace and may be used elsewhere afterwards.
func (h *Handle) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Deliberately never unlocked: see above.
		runtime.LockOSThread()
		if h.here {
			defer runtime.UnlockOSThread() // nothing was changed
			done <- fn()
			return
		}
		if err := unix.Setns(h.FD(), unix.CLONE_NEWNET); err != nil {
			if errors.Is(err, unix.EPERM) {
				err = fmt.Errorf("%w; run as root or with CAP_SYS_ADMIN", err)
			}
			done <- fmt.Errorf("enter network namespace %q: %w", h.name, err)
			return
		}
		done <- fn()
	}()
	return <-done
}
