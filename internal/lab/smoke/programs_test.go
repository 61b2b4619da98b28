// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/lab/kernels"
	"xfrmscope/internal/lab/tunnel"
)

// object is one compiled file and the kernel that it needs.
type object struct {
	name  string
	load  func() (*ebpf.CollectionSpec, error)
	since version
}

var objects = []object{
	{"wire", func() (*ebpf.CollectionSpec, error) { return smallWire(true) }, atomics},
	{"wire_lock", func() (*ebpf.CollectionSpec, error) { return smallWire(false) }, version{}},
	{"stack", bpfobj.LoadStack, version{}},
	{"pmtu", bpfobj.LoadPMTU, version{}},
	{"drop", bpfobj.LoadDrop, version{}},
	{"drops", bpfobj.LoadDrops, version{}},
	{"inner", bpfobj.LoadInner, version{}},
	{"latency", bpfobj.LoadLatency, version{}},
	{"packet", bpfobj.LoadPacket, version{}},
}

// udpLite are programs for one and the same event, whose function went with UDP-Lite, or came: a loader
// takes what there is. True: it came.
var udpLite = map[string]bool{"udp6_told_kprobe": false, "udp6_whole": true, "udp6_whole_kprobe": true}

func smallWire(lockfree bool) (*ebpf.CollectionSpec, error) {
	spec, err := bpfobj.LoadWire(lockfree)
	if err != nil {
		return nil, err
	}
	return spec, bpfobj.SetSAMax(spec, 64)
}

// TestEveryProgramAlone loads each program of each object by itself and attaches it in every way that
// there is for its type.
func TestEveryProgramAlone(t *testing.T) {
	ns := namespace(t)
	kernel, types := running(t), btf.NewCache()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		spec, err := o.load()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
			came, either := udpLite[name]
			t.Run(o.name+"/"+name, func(t *testing.T) {
				seen := kernels.Program{Object: o.name, Name: name}
				coll, err := loadAlone(spec, name, kernel, types)
				if either && came != kernel.has(noUDPLite) {
					if err == nil { // a kprobe's function is looked for when it is attached
						defer coll.Close()
						err = attachNowhere(ns, spec.Programs[name], coll.Programs[name])
					}
					declined(t, "load and attach", err)
					seen.Declined = reason(err)
					kernels.Leave(t, kernels.Note{Program: &seen})
					return
				}
				if !kernel.has(o.since) {
					declined(t, "load", err)
					seen.Declined = reason(err)
					kernels.Leave(t, kernels.Note{Program: &seen})
					return
				}
				if err != nil {
					t.Fatalf("load: %+v", err)
				}
				defer coll.Close()
				seen.Ways = attachEveryWay(t, ns, kernel, spec.Programs[name], coll.Programs[name])
				kernels.Leave(t, kernels.Note{Program: &seen})
			})
		}
	}
}

// declined demands that a step failed, and that the kernel said why.
func declined(t *testing.T, step string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: worked on a kernel that is not known to have what it takes", step)
		return
	}
	t.Logf("SMOKE %s %s: declined: %v", t.Name(), step, err)
}

func loadAlone(spec *ebpf.CollectionSpec, name string, kernel version, types *btf.Cache) (*ebpf.Collection, error) {
	one := spec.Copy()
	maps.DeleteFunc(one.Programs, func(other string, _ *ebpf.ProgramSpec) bool { return other != name })
	// The attach types of tcx mean nothing to a kernel without it.
	if p := one.Programs[name]; p.Type == ebpf.SchedCLS && !kernel.has(tcx) {
		p.AttachType = ebpf.AttachNone
	}
	return ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{Cache: types})
}

// way is one manner of attaching a program and the kernel that it needs.
type way struct {
	name   string
	since  version
	attach func() (io.Closer, error)
}

func attachEveryWay(t *testing.T, ns *tunnel.Namespace, kernel version, spec *ebpf.ProgramSpec, prog *ebpf.Program) (seen []kernels.Way) {
	t.Helper()
	ways := waysOf(spec, prog)
	if len(ways) == 0 {
		t.Fatalf("no way is known to use a %s program in section %q", spec.Type, spec.SectionName)
	}
	for _, w := range ways {
		var held io.Closer
		err := ns.Do(func() (err error) {
			held, err = w.attach()
			return err
		})
		if !kernel.has(w.since) {
			declined(t, w.name, err)
		} else if err != nil {
			t.Errorf("%s: %v", w.name, err)
		} else {
			t.Logf("SMOKE %s %s: ok", t.Name(), w.name)
		}
		seen = append(seen, kernels.Way{Name: w.name, Declined: reason(err)})
		if err != nil {
			continue
		}
		if err := ns.Do(held.Close); err != nil {
			t.Errorf("%s: detach: %v", w.name, err)
		}
	}
	return seen
}

// attachNowhere attaches a program for whose function there is no place here, and gives the reason.
func attachNowhere(ns *tunnel.Namespace, spec *ebpf.ProgramSpec, prog *ebpf.Program) error {
	for _, w := range waysOf(spec, prog) {
		var held io.Closer
		err := ns.Do(func() (err error) {
			held, err = w.attach()
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if err := ns.Do(held.Close); err != nil {
			return fmt.Errorf("%s: detach: %w", w.name, err)
		}
	}
	return nil
}

// reason is an error in one line.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

func waysOf(spec *ebpf.ProgramSpec, prog *ebpf.Program) []way {
	device := ethernet
	if strings.HasSuffix(spec.Name, "_l3") {
		device = bare
	}
	switch spec.Type {
	case ebpf.XDP:
		return []way{
			{"xdp native", version{}, func() (io.Closer, error) { return attachXDP(device, prog, link.XDPDriverMode) }},
			{"xdp generic", version{}, func() (io.Closer, error) { return attachXDP(device, prog, link.XDPGenericMode) }},
		}
	case ebpf.SchedCLS:
		if spec.AttachType == ebpf.AttachNone { // run by tests, attached nowhere
			return []way{{"test run", version{}, func() (io.Closer, error) { return nothing{}, runOnFrame(prog) }}}
		}
		return []way{
			{"tcx", tcx, func() (io.Closer, error) { return attachTCX(device, prog, spec.AttachType) }},
			{"clsact", version{}, func() (io.Closer, error) { return attachClsact(device, prog, spec.AttachType) }},
		}
	case ebpf.Tracing:
		return []way{{"fentry", version{}, func() (io.Closer, error) {
			return link.AttachTracing(link.TracingOptions{Program: prog})
		}}}
	case ebpf.Kprobe:
		return []way{{"kprobe", version{}, func() (io.Closer, error) { return link.Kprobe(spec.AttachTo, prog, nil) }}}
	case ebpf.RawTracepoint:
		_, event, attached := strings.Cut(spec.SectionName, "/")
		if !attached { // run by user space, attached nowhere
			return []way{{"test run", version{}, func() (io.Closer, error) { return nothing{}, runOnce(prog) }}}
		}
		return []way{{"raw tracepoint", version{}, func() (io.Closer, error) {
			return link.AttachRawTracepoint(link.RawTracepointOptions{Name: event, Program: prog})
		}}}
	}
	return nil
}

type nothing struct{}

func (nothing) Close() error { return nil }

func runOnce(prog *ebpf.Program) error {
	_, err := prog.Run(&ebpf.RunOptions{Context: [12]uint64{}})
	return err
}

// runOnFrame runs a program on a frame that is too short to hold anything.
func runOnFrame(prog *ebpf.Program) error {
	_, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	return err
}

func indexOf(device string) (int, error) {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", device, err)
	}
	return dev.Index, nil
}

func attachXDP(device string, prog *ebpf.Program, mode link.XDPAttachFlags) (io.Closer, error) {
	index, err := indexOf(device)
	if err != nil {
		return nil, err
	}
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: index, Flags: mode})
}

func attachTCX(device string, prog *ebpf.Program, where ebpf.AttachType) (io.Closer, error) {
	index, err := indexOf(device)
	if err != nil {
		return nil, err
	}
	return link.AttachTCX(link.TCXOptions{Program: prog, Interface: index, Attach: where})
}

// clsact is a queueing discipline and a filter on it, put there by other code than the one under test.
type clsact struct{ qdisc netlink.Qdisc }

func (c clsact) Close() error { return netlink.QdiscDel(c.qdisc) }

func attachClsact(device string, prog *ebpf.Program, where ebpf.AttachType) (io.Closer, error) {
	index, err := indexOf(device)
	if err != nil {
		return nil, err
	}
	held := clsact{&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}}
	if err := netlink.QdiscAdd(held.qdisc); err != nil {
		return nil, fmt.Errorf("add clsact: %w", err)
	}
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if where == ebpf.AttachTCXEgress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1,
		},
		Fd: prog.FD(), Name: "smoke", DirectAction: true,
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return nil, errors.Join(fmt.Errorf("add filter: %w", err), held.Close())
	}
	return held, nil
}
