// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// sysfs shows the devices of one network namespace. The /sys that is mounted shows those of whoever
// mounted it, so this is one of its own, mounted nowhere and gone with its descriptor (fsmount(2)).
type sysfs struct {
	fd   int
	root string
}

// openSysfs opens the sysfs of the calling thread's network namespace.
func openSysfs() (s *sysfs, err error) {
	ctx, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open sysfs: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(ctx)) }()
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, fmt.Errorf("open sysfs: %w", err)
	}
	attr := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, fmt.Errorf("open sysfs: %w", err)
	}
	return &sysfs{fd: fd, root: fmt.Sprintf("/proc/self/fd/%d", fd)}, nil
}

// mountedSysfs is what everybody sees. Without CAP_SYS_ADMIN there is no other; it shows the process's own
// network namespace unless somebody mounted it from another.
var mountedSysfs = &sysfs{fd: -1, root: "/sys"}

// rps reads the rps_cpus of each receive queue of a device, in the order of the queues.
func (s *sysfs) rps(device string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(s.root, "class/net", device, "queues/rx-*/rps_cpus"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(paths, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b) // rx-10 after rx-9
		}
		return strings.Compare(a, b)
	})
	out := []string{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return out, nil // the device went
		case err != nil:
			return out, fmt.Errorf("read queues of %s: %w", device, err)
		}
		out = append(out, strings.TrimSpace(string(b)))
	}
	return out, nil
}

// Close lets the mount go.
func (s *sysfs) Close() error {
	if s.fd < 0 {
		return nil
	}
	return unix.Close(s.fd)
}
