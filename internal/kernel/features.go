// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Answer to a question about the kernel.
type Answer struct {
	State State
	Err   error // why not, or why it is not known
}

// State of an Answer. Unknown means: try it, and explain if it fails.
type State uint8

// The three states.
const (
	Unknown State = iota
	Yes
	No
)

// String writes an answer as doctor shows it.
func (s State) String() string {
	switch s {
	case Yes:
		return "yes"
	case No:
		return "no"
	default:
		return "unknown"
	}
}

// OK says that the feature is there for certain.
func (a Answer) OK() bool { return a.State == Yes }

// answer sorts the outcome of an attempt: no error is yes, ErrNotSupported is no, and anything else
// (most often a missing privilege) leaves the question open.
func answer(err error) Answer {
	switch {
	case err == nil:
		return Answer{State: Yes}
	case errors.Is(err, ebpf.ErrNotSupported):
		return Answer{No, err}
	default:
		return Answer{Unknown, err}
	}
}

// Features are the kernel's, each found by trying it.
type Features struct {
	BTF           Answer // types of the running kernel, without which no stack program loads
	ReadMemory    Answer // programs may read the kernel's memory: not under lockdown's confidentiality
	RingBuffer    Answer // 5.8
	RawTracepoint Answer // 4.17
	Atomics       Answer // BPF_CMPXCHG and fetching atomics, 5.12: the lock-free wire program
	TCX           Answer // 6.6
	Cast          Answer // bpf_rdonly_cast(), 6.2: programs in the stack read by loads, and not by calls
	RunOnCPU      Answer // BPF_PROG_TEST_RUN of raw tracepoints on a chosen CPU, 5.10
	XDPMetadata   Answer // BPF_PROG_TEST_RUN of XDP with metadata, 5.15: captures
}

// ProbeFeatures tries them all. It attaches nothing. The kernel's types come from the cache, which reads them once for all
// who are given it.
func ProbeFeatures(types *btf.Cache) Features {
	_, err := types.Kernel()
	f := Features{BTF: answer(err)}
	f.ReadMemory = haveReadMemory()
	f.RingBuffer = answer(features.HaveMapType(ebpf.RingBuf))
	f.RawTracepoint = answer(features.HaveProgramType(ebpf.RawTracepoint))
	f.Atomics = haveAtomics()
	f.TCX = haveTCX()
	f.Cast = haveCast(types)
	f.RunOnCPU = haveRunOnCPU()
	f.XDPMetadata = haveXDPMetadata()
	// Loading a kprobe asks for the kernel's version, which the library reads in /proc/self/mem, out of reach once the
	// process hides its memory. It keeps the answer; one that fails here fails there, too, and is told there.
	_, _ = features.LinuxVersionCode()
	return f
}

// load loads a program made for a question only. Unlike for a real program, a refusal by the
// verifier says that the kernel does not know the instruction or call in question.
func load(t ebpf.ProgramType, ins asm.Instructions) (*ebpf.Program, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: t, License: "GPL", Instructions: ins})
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	}
	return prog, err
}

// haveReadMemory runs a program that reads the running task by bpf_probe_read_kernel (5.5). A kernel that is locked down
// takes the call away or, before 5.13, lets it fail (LOCKDOWN_BPF_READ_KERNEL). Every program in the stack reads so.
func haveReadMemory() Answer {
	locked := fmt.Errorf("%w: no program may read the kernel's memory (lockdown=confidentiality, see /sys/kernel/security/lockdown)", ebpf.ErrNotSupported)
	prog, err := load(ebpf.RawTracepoint, asm.Instructions{
		asm.FnGetCurrentTask.Call(),
		asm.Mov.Reg(asm.R3, asm.R0),
		asm.Mov.Imm(asm.R2, 8),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -8),
		asm.FnProbeReadKernel.Call(),
		asm.Return(),
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return answer(locked)
	}
	if err != nil {
		return answer(err)
	}
	defer prog.Close()
	// Where it cannot be run (before 5.10) that it loads has to do.
	if failed, err := prog.Run(&ebpf.RunOptions{}); err == nil && failed != 0 {
		return answer(locked)
	}
	return Answer{State: Yes}
}

func haveAtomics() Answer {
	// v0.22.0 of the library encodes atomic instructions without their immediate, which makes all of
	// them the plain addition that every kernel has.
	exchange, fetch := asm.CmpXchg.Mem(asm.RFP, asm.R1, asm.DWord, -8), asm.FetchAdd.Mem(asm.RFP, asm.R1, asm.DWord, -8)
	exchange.Constant, fetch.Constant = 0xf1, 0x01 // BPF_CMPXCHG, BPF_ADD|BPF_FETCH
	prog, err := load(ebpf.SocketFilter, asm.Instructions{
		asm.Mov.Imm(asm.R0, 0),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		exchange,
		fetch,
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
	if err == nil {
		err = prog.Close()
	}
	return answer(err)
}

// haveTCX asks for an interface that cannot exist: a kernel that knows tcx gets as far as to miss it.
func haveTCX() Answer {
	prog, err := load(ebpf.SchedCLS, asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()})
	if err != nil {
		return answer(err)
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: prog, Attach: ebpf.AttachTCXIngress})
	switch {
	case err == nil:
		return answer(l.Close())
	case errors.Is(err, unix.ENODEV):
		return Answer{State: Yes}
	default:
		return answer(err)
	}
}

func haveRunOnCPU() Answer {
	prog, err := load(ebpf.RawTracepoint, asm.Instructions{asm.Mov.Imm(asm.R0, 7), asm.Return()})
	if err != nil {
		return answer(err)
	}
	defer prog.Close()
	ret, err := RunOn(prog, 0)
	if err == nil && ret != 7 {
		err = fmt.Errorf("run a program on CPU 0: it returned %d, want 7", ret)
	}
	return answer(err)
}

// RunOn runs a raw tracepoint program once on a CPU and gives what it returned. A CPU that is not
// online is unix.ENXIO.
func RunOn(prog *ebpf.Program, cpu int) (uint32, error) {
	const runOnCPU = 1 // BPF_F_TEST_RUN_ON_CPU
	ret, err := prog.Run(&ebpf.RunOptions{Flags: runOnCPU, CPU: uint32(cpu)})
	if err != nil {
		return 0, fmt.Errorf("run %s on CPU %d: %w", prog, cpu, err)
	}
	return ret, nil
}

// haveXDPMetadata runs a program that returns the four bytes in front of the packet.
func haveXDPMetadata() Answer {
	prog, err := load(ebpf.XDP, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 8, asm.Word), // xdp_md.data_meta
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), // xdp_md.data
		asm.Mov.Imm(asm.R0, 0),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 4),
		asm.JGT.Reg(asm.R4, asm.R3, "out"),
		asm.LoadMem(asm.R0, asm.R2, 0, asm.Word),
		asm.Return().WithSymbol("out"),
	})
	if err != nil {
		return answer(err)
	}
	defer prog.Close()
	packet := make([]byte, 4+64)
	packet[0] = 9
	// struct xdp_md: with metadata, `data` says where in the input the packet begins.
	context := struct{ Data, DataEnd, DataMeta, IngressIfindex, RxQueue, EgressIfindex uint32 }{Data: 4, DataEnd: uint32(len(packet))}
	ret, err := prog.Run(&ebpf.RunOptions{Data: packet, Context: context})
	switch {
	case errors.Is(err, unix.EINVAL):
		return Answer{No, fmt.Errorf("pass metadata with a packet: %w", ebpf.ErrNotSupported)}
	case err == nil && ret != 9:
		return Answer{No, fmt.Errorf("pass metadata with a packet: the program did not see it: %w", ebpf.ErrNotSupported)}
	}
	return answer(err)
}

// Fentry says whether an fentry program can be put on a function. That some program can be loaded
// proves little (the trampoline is made on attachment), so a program that does nothing is attached
// to it for an instant.
func Fentry(function string) Answer {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: function, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if errors.Is(err, btf.ErrNotFound) {
		return Answer{No, fmt.Errorf("find function %s in the kernel's types: %w", function, ebpf.ErrNotSupported)}
	}
	if err != nil {
		return answer(fmt.Errorf("load fentry program for %s: %w", function, err))
	}
	defer prog.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return answer(fmt.Errorf("attach fentry program to %s: %w", function, err))
	}
	return answer(l.Close())
}

// Kprobe says whether a kprobe can be put on a function, by doing so for an instant.
func Kprobe(function string) Answer {
	prog, err := load(ebpf.Kprobe, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
	if err != nil {
		return answer(fmt.Errorf("load kprobe program: %w", err))
	}
	defer prog.Close()
	l, err := link.Kprobe(function, prog, nil)
	if err != nil {
		return answer(fmt.Errorf("attach kprobe to %s: %w", function, err))
	}
	return answer(l.Close())
}
