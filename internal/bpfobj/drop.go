// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"fmt"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem drop -type drop_key -type drop_stage -type drop_hook -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Drop ../../bpf/drop.bpf.c

// The kernel's types of bpf/lib/drop_abi.h.
type DropKey = DropDropKey

// Bits of DropKey.Flags: DROP_FLAG_*.
const (
	DropNoNetns = 1 << 0 // its network namespace is not known
	DropMoved   = 1 << 1 // it is at another device than the one it was received from
)

// ConfigureDrop writes into the object's constants what it must be told about the kernel: whether
// there is an enum skb_drop_reason, and the ports of UDP encapsulation (nil: as compiled).
func ConfigureDrop(spec *ebpf.CollectionSpec, hasReason bool, nattPorts []uint16) error {
	var vars DropVariableSpecs
	if err := spec.Assign(&vars); err != nil {
		return fmt.Errorf("find the drop program's settings: %w", err)
	}
	if err := vars.CfgHasReason.Set(flag(hasReason)); err != nil {
		return fmt.Errorf("set cfg_has_reason of the drop program: %w", err)
	}
	if len(nattPorts) == 0 {
		return nil
	}
	ports := make([]uint16, vars.CfgNattPorts.Size()/2)
	if len(nattPorts) > len(ports) {
		return fmt.Errorf("set UDP encapsulation ports: %d, room for %d", len(nattPorts), len(ports))
	}
	copy(ports, nattPorts)
	if err := vars.CfgNattPorts.Set(ports); err != nil {
		return fmt.Errorf("set cfg_natt_ports of the drop program: %w", err)
	}
	return nil
}
