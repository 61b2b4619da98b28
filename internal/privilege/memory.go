// SPDX-License-Identifier: Apache-2.0

package privilege

import "golang.org/x/sys/unix"

// HideMemory keeps this process's memory out of core dumps, and from other processes of the same user. Where even that
// is forbidden nothing can be done about it, and nothing else depends on it.
func HideMemory() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
