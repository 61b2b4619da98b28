// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ToWrite keeps what lets root write into folders of others, where one of these files is in such a folder. Each
// is to be created, or overwritten, later. "" and "-" are no files.
func ToWrite(paths ...string) Need {
	return Need{Cap: unix.CAP_DAC_OVERRIDE, Try: func() error {
		var errs []error
		for _, path := range named(paths) {
			errs = append(errs, accessible(path, unix.W_OK), accessible(filepath.Dir(path), unix.W_OK|unix.X_OK))
		}
		return errors.Join(errs...)
	}}
}

// ToRead keeps what lets root read files of others, where one of these is such a file. Each is to be opened later.
func ToRead(paths ...string) Need {
	return Need{Cap: unix.CAP_DAC_READ_SEARCH, Try: func() error {
		var errs []error
		for _, path := range named(paths) {
			errs = append(errs, accessible(path, unix.R_OK))
		}
		return errors.Join(errs...)
	}}
}

// ToConnect keeps what lets root connect to sockets of others, where this is one.
func ToConnect(path string) Need {
	return Need{Cap: unix.CAP_DAC_OVERRIDE, Try: func() error { return accessible(path, unix.W_OK) }}
}

func named(paths []string) (out []string) {
	for _, path := range paths {
		if path != "" && path != "-" {
			out = append(out, path)
		}
	}
	return out
}

// accessible asks the kernel, by the capabilities in force (AT_EACCESS), and opens nothing: to open a pipe and close it
// again would end whoever writes to it. What is not there is not in the way.
func accessible(path string, mode uint32) error {
	err := unix.Faccessat2(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
