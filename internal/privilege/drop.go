// SPDX-License-Identifier: Apache-2.0

// Package privilege gives up what the process may do once it has done what it took. An observer of a gateway has
// more privileges than most of what runs there, and reads what strangers send: whoever takes it over should find
// nothing to use.
package privilege

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Need is a capability that may be needed to the end.
type Need struct {
	Cap int // unix.CAP_…
	// Or stands in for it, where the process has that and not the other; 0: nothing does.
	Or int
	// Try does what may need it, on the calling goroutine alone. The capability is kept where that fails
	// without it and not with it. nil: it is kept.
	Try func() error
}

// Drop gives up every capability but the needed ones, in all threads, and what could bring one back: the inheritable and
// the ambient set, and programs with privileges of their own, after which the bounding set has nothing to give. There
// is no way back; a command that is to have what the user has must have been started before. An error says what could
// not be given up.
func Drop(needs ...Need) error {
	have, err := read()
	if err != nil {
		return err
	}
	keep := remainder(have, needs)
	var errs []error
	give := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	defer alone()()
	give("forbid programs with privileges of their own", everywhere(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1))
	// What is not inheritable the kernel takes out of the ambient set as well.
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, words(sets{effective: keep, permitted: keep})
	give("drop capabilities", everywhere(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0]))))
	runtime.KeepAlive(&data)
	return errors.Join(errs...)
}

// remainder is what of the permitted capabilities is needed.
func remainder(have sets, needs []Need) (keep uint64) {
	var open []Need
	for _, n := range needs {
		if have.permitted&bit(n.Cap) == 0 && n.Or != 0 {
			n.Cap = n.Or
		}
		switch {
		case have.permitted&bit(n.Cap) == 0:
		case n.Try == nil:
			keep |= bit(n.Cap)
		default:
			open = append(open, n)
		}
	}
	if len(open) == 0 {
		return keep
	}
	done := make(chan uint64)
	go func() {
		// Capabilities are a thread's. It is given back to Go only with those that all others have.
		runtime.LockOSThread()
		with := func(effective uint64, try func() error) bool {
			err := write(sets{effective: effective, permitted: have.permitted, inheritable: have.inheritable})
			return err == nil && try() == nil
		}
		for _, n := range open {
			if !with(keep, n.Try) && with(keep|bit(n.Cap), n.Try) {
				keep |= bit(n.Cap)
			}
		}
		if write(have) == nil {
			runtime.UnlockOSThread()
		}
		done <- keep
	}()
	return <-done
}

// alone has goroutines run one at a time until the returned function is called. To reach all threads Go stops them, and
// Go 1.26 waits for ever, now and then, for one that goes into a blocking system call at that moment (a reader of a
// ring buffer does, each time that it is reached). While one goroutine has the only processor, no other does.
func alone() (end func()) {
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}

// everywhere makes a system call on every thread.
//
//go:uintptrescapes
func everywhere(call, a, b uintptr) error {
	// The others are 0, as prctl(2) demands of what it does not use.
	if _, _, errno := psx.Syscall6(call, a, b, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// sets are a thread's capabilities, a bit each.
type sets struct{ effective, permitted, inheritable uint64 }

func bit(c int) uint64 { return 1 << c }

func words(s sets) [2]unix.CapUserData {
	return [2]unix.CapUserData{
		{Effective: uint32(s.effective), Permitted: uint32(s.permitted), Inheritable: uint32(s.inheritable)},
		{Effective: uint32(s.effective >> 32), Permitted: uint32(s.permitted >> 32), Inheritable: uint32(s.inheritable >> 32)},
	}
}

// read reads the calling thread's.
func read() (sets, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&header, &d[0]); err != nil {
		return sets{}, fmt.Errorf("read capabilities: %w", err)
	}
	join := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return sets{join(d[0].Effective, d[1].Effective), join(d[0].Permitted, d[1].Permitted), join(d[0].Inheritable, d[1].Inheritable)}, nil
}

// write sets the calling thread's.
func write(s sets) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d := words(s)
	return unix.Capset(&header, &d[0])
}
