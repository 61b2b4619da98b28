// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Release is the running kernel's release string, as uname -r prints it.
func Release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("ask for the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// Capability is one that live observation needs.
type Capability struct {
	Name string
	bit  int
	For  string
}

// Needed are the capabilities that live observation needs.
var Needed = []Capability{
	{"CAP_BPF", unix.CAP_BPF, "load programs and read their maps"},
	{"CAP_PERFMON", unix.CAP_PERFMON, "look into the kernel's memory from them"},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, "attach to interfaces and read the SA database"},
}

// ErrCapability is in the chain of CheckCapabilities' error.
var ErrCapability = errors.New("missing privilege")

// CheckCapabilities says which of them this thread lacks, and what to do. CAP_SYS_ADMIN stands in for
// the first two, as it does in the kernel (bpf_capable(), perfmon_capable()).
func CheckCapabilities() error {
	effective, err := effectiveCapabilities()
	if err != nil {
		return err
	}
	if err := missing(effective); err != nil {
		return err
	}
	return unconfined()
}

func missing(effective uint64) error {
	has := func(bit int) bool { return effective&(1<<bit) != 0 }
	var lacking, purposes []string
	for _, c := range Needed {
		if has(c.bit) || c.bit != unix.CAP_NET_ADMIN && has(unix.CAP_SYS_ADMIN) {
			continue
		}
		lacking = append(lacking, c.Name)
		purposes = append(purposes, c.For)
	}
	if len(lacking) == 0 {
		return nil
	}
	return fmt.Errorf("%w %s (to %s): run as root, or give the binary all that it needs: setcap %s+ep %s; in a container --cap-add each of them",
		ErrCapability, strings.Join(lacking, ", "), strings.Join(purposes, "; "), fileCapabilities, executable())
}

// fileCapabilities is what setcap wants for a binary that is to work without root: Needed, and CAP_SYSLOG
// for the addresses of the kernel's functions.
const fileCapabilities = "cap_bpf,cap_perfmon,cap_net_admin,cap_syslog"

func executable() string {
	path, err := os.Executable()
	if err != nil {
		return "xfrmscope"
	}
	return path
}

func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read the process's capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}
