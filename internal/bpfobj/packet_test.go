// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// The kernel at hand takes every program of the object that it can take natively.
func TestPacketLoads(t *testing.T) {
	spec, err := LoadPacket()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range spec.Programs {
		if p.Type == ebpf.Tracing {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		t.Fatalf("%s", strings.Join(ve.Log[max(0, len(ve.Log)-40):], "\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	coll.Close()
}
