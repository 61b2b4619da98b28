// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"fmt"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" PMTU ../../bpf/pmtu.bpf.c

// The kernel's types of bpf/lib/pmtu_abi.h.
type (
	PMTUKey   = PMTUPmtuKey
	PMTUCount = PMTUPmtuCount
)

// ConfigurePMTU tells the path MTU programs which UDP ports carry ESP; nil leaves port 4500.
func ConfigurePMTU(spec *ebpf.CollectionSpec, nattPorts []uint16) error {
	if len(nattPorts) == 0 {
		return nil
	}
	v, ok := spec.Variables["cfg_natt_ports"]
	if !ok {
		return fmt.Errorf("set UDP ports of the path MTU programs: the object has none")
	}
	ports := make([]uint16, v.Size()/2)
	if len(nattPorts) > len(ports) {
		return fmt.Errorf("set UDP ports of the path MTU programs: %d, room for %d", len(nattPorts), len(ports))
	}
	copy(ports, nattPorts)
	if err := v.Set(ports); err != nil {
		return fmt.Errorf("set UDP ports of the path MTU programs: %w", err)
	}
	return nil
}
