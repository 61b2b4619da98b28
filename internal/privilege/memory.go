// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// HideMemory keeps this process's memory out of core dumps, and from other processes of the same user. It also gives
// the process's files below /proc to root, which before Linux 5.14 takes those of its own descriptors from whoever is
// not root; the sizes of maps are read there, so then all stays as it was. Nothing depends on it.
func HideMemory() {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) != nil {
		return
	}
	if readsOwnDescriptors() != nil {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0)
	}
}

func readsOwnDescriptors() (err error) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	return err
}
