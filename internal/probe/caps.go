// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/kernel"
)

// Ask finds out what the plan depends on, by trying. It leaves nothing attached.
func Ask(features kernel.Features, symbols *kernel.Symbols) Capabilities {
	caps := Capabilities{
		Atomics:  verdict(features.Atomics),
		TCX:      verdict(features.TCX),
		BTF:      verdict(features.BTF),
		Memory:   verdict(features.ReadMemory),
		Cast:     verdict(features.Cast),
		XDPFrags: haveXDPFrags(),
		Missing:  make(map[string]string),
	}
	for _, module := range []string{"esp4_offload", "esp6_offload"} {
		if _, err := os.Stat("/sys/module/" + module); err == nil {
			caps.GROHidesESP = true
		}
	}
	probe := ""
	for _, place := range audits {
		if symbols != nil && len(symbols.Function(place.function)) == 0 {
			caps.Missing[place.function] = "this kernel has no such function (built without CONFIG_AUDITSYSCALL, or without IPsec)"
			continue
		}
		if probe == "" {
			probe = place.function
		}
	}
	if probe != "" && caps.BTF == nil && !refused(caps.Memory) {
		caps.Fentry = attempted(kernel.Fentry(probe))
		if caps.Fentry != nil {
			caps.Kprobe = attempted(kernel.Kprobe(probe))
		}
	}
	return caps
}

// verdict turns a three-valued answer into the form of Capabilities.
func verdict(a kernel.Answer) error {
	switch {
	case a.State == kernel.Yes:
		return nil
	case a.Err != nil:
		return a.Err
	case a.State == kernel.No:
		return ebpf.ErrNotSupported
	}
	return errors.New("not known")
}

// attempted is the verdict on what was done and not just asked about: where a program that does nothing
// could not be attached, ours cannot either. Only a shortage may pass.
func attempted(a kernel.Answer) error {
	err := verdict(a)
	switch {
	case err == nil, refused(err):
		return err
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.EBUSY):
		return err
	case errors.Is(err, unix.EPERM):
		return refusal{errForbidden}
	}
	return refusal{innermost(err)}
}

// refusal is a no with its reason, which is all that it says.
type refusal struct{ why error }

func (r refusal) Error() string        { return r.why.Error() }
func (r refusal) Unwrap() error        { return r.why }
func (r refusal) Is(target error) bool { return target == ebpf.ErrNotSupported }

// haveXDPFrags loads a program that says it can take packets in several buffers (5.18).
func haveXDPFrags() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("load XDP program for several buffers: %w: %w", ebpf.ErrNotSupported, err)
	}
	if err != nil {
		return fmt.Errorf("load XDP program for several buffers: %w", err)
	}
	return prog.Close()
}
