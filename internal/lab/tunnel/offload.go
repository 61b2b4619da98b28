// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value of include/uapi/linux/ethtool.h.
type ethtoolValue struct {
	cmd  uint32
	data uint32
}

// ifreqData is struct ifreq with its union holding a pointer, padded to the full size.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	pad  [16]byte
}

// OffloadsOff makes every frame on an interface of the calling thread's namespace a packet with a
// finished checksum: merged packets would be counted as one, and an unfinished checksum does not
// survive forwarding in user space.
func OffloadsOff(name string) error { return setOffloads(name, 0) }

// OffloadsOn undoes OffloadsOff, for who wants to see packets that are cut into segments late.
func OffloadsOn(name string) error { return setOffloads(name, 1) }

func setOffloads(name string, on uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for interface settings: %w", err)
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{
		unix.ETHTOOL_SRXCSUM, unix.ETHTOOL_STXCSUM,
		unix.ETHTOOL_SGRO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STSO,
	} {
		value := ethtoolValue{cmd: cmd, data: on}
		req := ifreqData{data: unsafe.Pointer(&value)}
		copy(req.name[:unix.IFNAMSIZ-1], name)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
		if errno != 0 {
			return fmt.Errorf("set offload (ethtool command %#x) of %s to %d: %w", cmd, name, on, errno)
		}
	}
	return nil
}
