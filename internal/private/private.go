// SPDX-License-Identifier: Apache-2.0

// Package private makes files that only their owner may read: captures hold packets, recordings the addresses and
// policies of every tunnel.
package private

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const mode = 0o600

// What Replace refuses.
var (
	ErrLink    = errors.New("it is a symbolic link: name the file that it points to (\"-\" for standard output)")
	ErrForeign = errors.New("it belongs to another user, who could read what is written: remove it, or choose another name")
)

// Create makes a file that must not be there yet.
func Create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// Replace opens a file that may be there, to be written anew; what it holds is still there. Its names can be guessed, and
// the folder may be one where others write: so a link to another file is not followed, a file of another user not
// used, and one that others may read is made private first. A pipe or a device is taken as it is, through a link too.
func Replace(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, mode)
	linked := errors.Is(err, unix.ELOOP)
	if linked {
		f, err = os.OpenFile(path, os.O_WRONLY, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := keepPrivate(f, linked); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, errors.Join(err, f.Close()))
	}
	return f, nil
}

// keepPrivate judges by the open file, which nobody can exchange any more.
func keepPrivate(f *os.File, linked bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil
	case linked:
		return ErrLink
	case int(st.Uid) != unix.Geteuid():
		return ErrForeign
	case st.Mode&0o7777 != mode:
		return f.Chmod(mode)
	}
	return nil
}
