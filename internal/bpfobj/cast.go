// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// WithoutCast takes bpf_rdonly_cast() out of an object's programs (bpf/lib/field.h): its address becomes 0, which
// the programs ask for, and a call that the verifier never gets to stands for its calls. The library does
// so by itself where the kernel lacks the function, but after looking for it in every module.
func WithoutCast(spec *ebpf.CollectionSpec) {
	for _, p := range spec.Programs {
		for i, ins := range p.Instructions {
			if ins.Reference() != "bpf_rdonly_cast" {
				continue
			}
			without := asm.LoadImm(ins.Dst, 0, asm.DWord)
			if ins.OpCode.JumpOp() == asm.Call {
				without = asm.BuiltinFunc(unknownCall).Call()
			}
			p.Instructions[i] = without.WithSymbol(ins.Symbol()).WithSource(ins.Source())
		}
	}
}

// unknownCall is the number of no helper.
const unknownCall = 0xdedc0de
