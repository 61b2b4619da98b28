// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"xfrmscope/internal/lab/tunnel"
)

// kinds of programs, by how the kernel gets into them. What it does on the way is in what it measures.
const (
	kindXDP    = "xdp"
	kindTC     = "tc"
	kindFentry = "fentry"
	kindKprobe = "kprobe"
	kindRawTP  = "raw_tp"
)

// kindOf is the kind of a program of xfrmscope.
func kindOf(p *ebpf.Program) string {
	switch p.Type() {
	case ebpf.XDP:
		return kindXDP
	case ebpf.SchedCLS:
		return kindTC
	case ebpf.Tracing:
		return kindFentry
	case ebpf.Kprobe:
		return kindKprobe
	default:
		return kindRawTP
	}
}

// empties are programs that do nothing, one of each kind, attached where packets pass.
type empties struct {
	progs map[string]*ebpf.Program
	links []io.Closer
}

// attachEmpties attaches them to the path between the gateways, so that every packet meets them outside
// the namespace that is observed.
func attachEmpties(path *tunnel.Namespace) (e *empties, err error) {
	e = &empties{progs: map[string]*ebpf.Program{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	for kind, spec := range map[string]*ebpf.ProgramSpec{
		kindXDP:    {Type: ebpf.XDP, Instructions: nothing(2)},
		kindTC:     {Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, Instructions: nothing(-1)},
		kindFentry: {Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "xfrm_input", Instructions: nothing(0)},
		kindKprobe: {Type: ebpf.Kprobe, Instructions: nothing(0)},
		kindRawTP:  {Type: ebpf.RawTracepoint, Instructions: nothing(0)},
	} {
		spec.License = "Dual BSD/GPL"
		if e.progs[kind], err = ebpf.NewProgram(spec); err != nil {
			return e, fmt.Errorf("load an empty %s program: %w", kind, err)
		}
	}
	err = path.Do(func() error {
		for name, d := range map[string]string{"xdp": tunnel.PathA, "tc": tunnel.PathA} {
			dev, err := net.InterfaceByName(d)
			if err != nil {
				return err
			}
			var l link.Link
			if name == "xdp" {
				l, err = link.AttachXDP(link.XDPOptions{Program: e.progs[kindXDP], Interface: dev.Index, Flags: link.XDPDriverMode})
			} else {
				l, err = link.AttachTCX(link.TCXOptions{Program: e.progs[kindTC], Interface: dev.Index, Attach: ebpf.AttachTCXIngress})
			}
			if err := e.hold(l, err); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	fentry, err := link.AttachTracing(link.TracingOptions{Program: e.progs[kindFentry]})
	if err := e.hold(fentry, err); err != nil {
		return e, err
	}
	kprobe, err := link.Kprobe("xfrm_input", e.progs[kindKprobe], nil)
	if err := e.hold(kprobe, err); err != nil {
		return e, err
	}
	raw, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "netif_receive_skb", Program: e.progs[kindRawTP]})
	return e, e.hold(raw, err)
}

func nothing(ret int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, ret), asm.Return()}
}

func (e *empties) hold(l io.Closer, err error) error {
	if err != nil {
		return fmt.Errorf("attach an empty program: %w", err)
	}
	e.links = append(e.links, l)
	return nil
}

// Close detaches them.
func (e *empties) Close() error {
	var errs []error
	for _, l := range e.links {
		errs = append(errs, l.Close())
	}
	for _, p := range e.progs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
