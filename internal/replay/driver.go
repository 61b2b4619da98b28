// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"xfrmscope/internal/bpfobj"
)

const (
	wireProgram   = "xdp_ingress"
	driverProgram = "replay_driver"
)

// Offsets in struct xdp_md.
const (
	mdData     = 0
	mdDataEnd  = 4
	mdDataMeta = 8
)

// A frame is preceded by struct offline_meta, which the wire program reads, and by how far it is from
// here to the next frame, which the driver reads.
const (
	metaSize   = 16 // struct offline_meta
	offHead    = metaSize
	offTail    = metaSize + 4
	prefixSize = metaSize + 8 // a multiple of 4 and at most 32, as XDP metadata has to be
)

// driverBase is added to the number of packets that the driver returns, so that no count is one of the
// XDP verdicts, which some kernels act upon.
const driverBase = 256

// driverMax is how many packets one call may hold; the verifier follows the loop that often.
const driverMax = 64

// addDriver puts in place of the wire program one that runs the wire program over all packets of a buffer.
//
// Packets are laid out backwards, the first one at the buffer's end: data_end can be moved towards the
// start at will, but moving it towards the end clears what it passes (bpf_xdp_adjust_tail).
func addDriver(spec *ebpf.CollectionSpec) error {
	wire, ok := spec.Programs[wireProgram]
	if !ok || len(wire.Instructions) == 0 {
		return fmt.Errorf("add driver: the object has no program %s", wireProgram)
	}
	entry := wire.Instructions[0]
	fn := btf.FuncMetadata(&entry)
	if fn == nil || fn.Linkage != btf.GlobalFunc {
		return fmt.Errorf("add driver: %s is no global function with type information", wireProgram)
	}
	code := driverCode()
	code[0] = btf.WithFuncMetadata(code[0].WithSymbol(driverProgram).WithSource(entry.Source()),
		&btf.Func{Name: driverProgram, Type: fn.Type, Linkage: btf.GlobalFunc})
	wire.Instructions = append(code, wire.Instructions...)
	wire.Name = driverProgram
	// The wire program is not loaded a second time by itself: verifying it takes half a second.
	delete(spec.Programs, wireProgram)
	spec.Programs[driverProgram] = wire
	return nil
}

func driverCode() asm.Instructions {
	const ctx, data, end, next, head, tail, count = asm.R6, asm.R2, asm.R3, asm.R4, asm.R8, asm.R9, asm.R7
	var code asm.Instructions
	add := func(ins ...asm.Instruction) { code = append(code, ins...) }
	// adjust calls one of the helpers that move a border of the packet.
	adjust := func(helper asm.BuiltinFunc, by ...asm.Instruction) {
		add(by...)
		add(asm.Mov.Reg(asm.R1, ctx), helper.Call(), asm.JNE.Imm(asm.R0, 0, "fail"))
	}
	add(
		asm.Mov.Reg(ctx, asm.R1),
		asm.Mov.Imm(count, 0),
		// The buffer begins with the way from there to the first packet.
		asm.LoadMem(data, ctx, mdData, asm.Word),
		asm.LoadMem(end, ctx, mdDataEnd, asm.Word),
		asm.Mov.Reg(next, data),
		asm.Add.Imm(next, 4),
		asm.JGT.Reg(next, end, "fail"),
		asm.LoadMem(asm.R2, data, 0, asm.Word),
	)
	adjust(asm.FnXdpAdjustHead)

	loop := len(code)
	adjust(asm.FnXdpAdjustMeta, asm.Mov.Imm(asm.R2, -prefixSize))
	code[loop] = code[loop].WithSymbol("loop")
	add(
		asm.LoadMem(data, ctx, mdDataMeta, asm.Word),
		asm.LoadMem(end, ctx, mdData, asm.Word),
		asm.Mov.Reg(next, data),
		asm.Add.Imm(next, prefixSize),
		asm.JGT.Reg(next, end, "fail"),
		asm.LoadMem(head, data, offHead, asm.Word),
		asm.LoadMem(tail, data, offTail, asm.Word),
		asm.Mov.Reg(asm.R1, ctx),
		asm.Call.Label(wireProgram),
		asm.Add.Imm(count, 1),
		asm.JEq.Imm(head, 0, "done"),
	)
	// Metadata would travel along with data, over the bytes of other packets, so it ends first.
	adjust(asm.FnXdpAdjustMeta, asm.Mov.Imm(asm.R2, prefixSize))
	adjust(asm.FnXdpAdjustHead, asm.Mov.Reg(asm.R2, head))
	adjust(asm.FnXdpAdjustTail, asm.Mov.Reg(asm.R2, tail))
	add(
		asm.JLT.Imm(count, driverMax, "loop"),
		// A helper refused: tell the count nevertheless, it does not match what was fed.
		asm.Mov.Reg(asm.R0, count).WithSymbol("fail"),
		asm.Ja.Label("out"),
		asm.Mov.Reg(asm.R0, count).WithSymbol("done"),
		asm.Add.Imm(asm.R0, driverBase),
		asm.Return().WithSymbol("out"),
	)
	return code
}

// way is one way to load.
type way struct{ lockfree, driver bool }

// ways are tried in this order. Kernels before 5.12 lack the atomic instructions of the lock-free
// build; a kernel that refuses the driver gets the wire program alone.
var ways = []way{{true, true}, {false, true}, {true, false}, {false, false}}

// load loads the wire program in the first way that the kernel accepts.
func load(configure func(*ebpf.CollectionSpec) error, ways []way) (*ebpf.Collection, error) {
	var errs []error
	for _, try := range ways {
		spec, err := bpfobj.LoadWire(try.lockfree)
		if err != nil {
			return nil, err
		}
		for name := range spec.Programs {
			if name != wireProgram {
				delete(spec.Programs, name)
			}
		}
		if err := configure(spec); err != nil {
			return nil, err
		}
		if try.driver {
			if err := addDriver(spec); err != nil {
				return nil, err
			}
		}
		coll, err := ebpf.NewCollection(spec)
		if err == nil {
			return coll, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
