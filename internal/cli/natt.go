// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/pflag"
)

// nattPort is the one that always carries ESP in UDP (RFC 3948).
const nattPort = 4500

// furtherMax is how many other ports the kernel programs have room for.
const furtherMax = 7

// addNATTPorts adds --natt-port.
func addNATTPorts(f *pflag.FlagSet, ports *[]uint) {
	f.UintSliceVar(ports, "natt-port", nil, fmt.Sprintf("a further UDP `port` that carries ESP besides %d, repeatable", nattPort))
	f.Lookup("natt-port").DefValue = "" // not "[]"
}

// furtherPorts are the values of --natt-port, each once and without the one that is always there.
func furtherPorts(ports []uint) (out []uint16, err error) {
	for _, p := range ports {
		switch {
		case p == 0 || p > 65535:
			return nil, &usageError{fmt.Errorf("--natt-port %d: a port is 1 to 65535", p)}
		case p != nattPort && !slices.Contains(out, uint16(p)):
			out = append(out, uint16(p))
		}
	}
	if len(out) > furtherMax {
		return nil, &usageError{fmt.Errorf("--natt-port: %d ports besides %d, at most %d", len(out), nattPort, furtherMax)}
	}
	return out, nil
}

// espPorts are all UDP ports that carry ESP.
func espPorts(ports []uint) ([]uint16, error) {
	further, err := furtherPorts(ports)
	return append([]uint16{nattPort}, further...), err
}
