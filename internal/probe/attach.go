// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attach tries a hook's candidates in turn and says which one holds. The caller's thread is in the
// device's network namespace. Nothing that is already attached is ever replaced.
func (w *wireSet) attach(h Hook) (io.Closer, Candidate, []string) {
	why := slices.Clone(h.Why)
	for _, c := range h.Try {
		prog, err := w.program(c)
		if err != nil {
			why = append(why, fmt.Sprintf("%s: %v", c.Way, err))
			continue
		}
		l, err := attachOne(h, c, prog)
		if err == nil {
			return l, c, why
		}
		why = append(why, fmt.Sprintf("%s: %v", c.Way, explainAttach(err, c.Way, h.Device)))
	}
	return nil, Candidate{}, why
}

func attachOne(h Hook, c Candidate, prog *ebpf.Program) (io.Closer, error) {
	switch c.Way {
	case WayXDP:
		return link.AttachXDP(link.XDPOptions{Program: prog, Interface: h.Device.Index, Flags: link.XDPDriverMode})
	case WayXDPGeneric:
		return link.AttachXDP(link.XDPOptions{Program: prog, Interface: h.Device.Index, Flags: link.XDPGenericMode})
	case WayTCX:
		// At the head: a program before ours that drops, redirects or accepts a packet ends the
		// chain, and what it takes would not be counted. Ours always lets the next one decide.
		return link.AttachTCX(link.TCXOptions{
			Interface: h.Device.Index, Program: prog, Attach: tcxAttach(h.Direction), Anchor: link.Head(),
		})
	case WayClsact:
		return attachClsact(h.Device.Index, h.Direction, prog, c.LoadAs)
	}
	return nil, fmt.Errorf("%s is no way to attach to a device", c.Way)
}

func tcxAttach(d Direction) ebpf.AttachType {
	if d == Egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// explainAttach adds to the kernel's error numbers what they mean at this hook.
func explainAttach(err error, way Way, d Device) error {
	xdp := way == WayXDP || way == WayXDPGeneric
	switch {
	case xdp && errors.Is(err, unix.EBUSY):
		return fmt.Errorf("another XDP program is already on %s and stays there", d.Name)
	case xdp && errors.Is(err, unix.EEXIST):
		return fmt.Errorf("XDP of the other mode (native or generic) is already on %s and stays there", d.Name)
	case xdp && errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the driver of %s has no native XDP or refuses it as configured: %w", d.Name, err)
	case xdp && errors.Is(err, unix.ERANGE), xdp && errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the driver of %s refuses XDP at MTU %d or with the offloads now on: %w", d.Name, d.MTU, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%s went away: %w", d.Name, err)
	case errors.Is(err, unix.EPERM):
		return errForbidden
	}
	return err
}

// attachStack attaches one program in the stack by what it was compiled for.
func attachStack(spec *ebpf.ProgramSpec, prog *ebpf.Program) (io.Closer, error) {
	switch spec.Type {
	case ebpf.RawTracepoint:
		_, name, ok := strings.Cut(spec.SectionName, "/")
		if !ok {
			return nil, fmt.Errorf("section %q names no tracepoint", spec.SectionName)
		}
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: prog})
	case ebpf.Tracing:
		return link.AttachTracing(link.TracingOptions{Program: prog})
	case ebpf.Kprobe:
		l, err := link.Kprobe(spec.AttachTo, prog, nil)
		switch {
		case errors.Is(err, unix.EACCES):
			return nil, fmt.Errorf("%w: Debian's kernels let only CAP_SYS_ADMIN place kprobes while sysctl kernel.perf_event_paranoid is 3; with 2, CAP_PERFMON is enough", innermost(err))
		case err != nil:
			return nil, innermost(err)
		}
		return l, nil
	}
	return nil, fmt.Errorf("no way to attach a program of type %s", spec.Type)
}

// innermost is what went wrong, without how the library came there: random names of trace events
// tell the user nothing, and would make one cause look like several.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// attachHook tries the candidates of a hook in the stack in turn.
func attachHook(h Hook, specs map[string]*ebpf.ProgramSpec, progs map[string]*ebpf.Program,
	dropped map[string]error,
) (io.Closer, Candidate, []string) {
	why := slices.Clone(h.Why)
	for _, c := range h.Try {
		prog := progs[c.Program]
		if prog == nil {
			reason := dropped[c.Program]
			if reason == nil {
				reason = errors.New("not in this build's object")
			}
			why = append(why, fmt.Sprintf("%s: %v", c.Way, reason))
			continue
		}
		l, err := attachStack(specs[c.Program], prog)
		if err == nil {
			return l, c, why
		}
		if errors.Is(err, unix.EPERM) {
			err = errForbidden
		}
		why = append(why, fmt.Sprintf("%s: %v", c.Way, err))
	}
	return nil, Candidate{}, why
}
