// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// CastTypes are what the programs cast to (bpf/lib/field.h). A type that the kernel has twice would make a program
// fail that has no other to fall back to.
var CastTypes = []string{"dst_entry", "in6_addr", "rt6_info", "rtable", "sec_path", "sk_buff", "skb_shared_info"}

// haveCast loads a program that reads the running task by a load, after bpf_rdonly_cast() has told the
// verifier what it is.
func haveCast(cache *btf.Cache) Answer {
	types, err := cache.Kernel()
	if err != nil {
		return answer(err)
	}
	cast, err := typeID[*btf.Func](types, "bpf_rdonly_cast")
	if err != nil {
		return answer(err)
	}
	task, err := typeID[*btf.Struct](types, "task_struct")
	if err != nil {
		return answer(err)
	}
	for _, name := range CastTypes {
		if _, err := typeID[*btf.Struct](types, name); errors.Is(err, btf.ErrMultipleMatches) {
			return answer(fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err))
		}
	}
	prog, err := load(ebpf.RawTracepoint, asm.Instructions{
		asm.FnGetCurrentTask.Call(),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Mov.Imm(asm.R2, int32(task)),
		asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(cast)},
		asm.LoadMem(asm.R0, asm.R0, 0, asm.Byte),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
	if err == nil {
		err = prog.Close()
	}
	return answer(err)
}

// typeID finds a type of the kernel's by its name; ebpf.ErrNotSupported if there is none.
func typeID[T btf.Type](types *btf.Spec, name string) (btf.TypeID, error) {
	var t T
	err := types.TypeByName(name, &t)
	if errors.Is(err, btf.ErrNotFound) {
		return 0, fmt.Errorf("find %s among the kernel's types: %w", name, ebpf.ErrNotSupported)
	}
	if err != nil {
		return 0, err
	}
	return types.TypeID(t)
}
