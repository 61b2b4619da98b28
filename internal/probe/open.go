// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/kernel"
	"xfrmscope/internal/netns"
)

// Kernel is what Open and Preview know of the running kernel; it is read once.
type Kernel struct {
	Capabilities Capabilities
	Features     kernel.Features
	Symbols      *kernel.Symbols // nil: see SymbolsErr
	SymbolsErr   error
	Tables       *kernel.Tables // nil: see TablesErr
	TablesErr    error
	types        *btf.Cache // nil: read when they are asked for
}

// AskKernel finds out what the running kernel offers. It attaches nothing for longer than an instant.
func AskKernel() (*Kernel, error) {
	if err := kernel.CheckCapabilities(); err != nil {
		return nil, err
	}
	if err := mayUseBPF(); err != nil {
		return nil, err
	}
	k := &Kernel{}
	k.Features = kernel.ProbeFeatures(k.Types())
	k.Symbols, k.SymbolsErr = kernel.LoadSymbols()
	k.Tables, k.TablesErr = kernel.LoadTables(k.Types())
	k.Capabilities = Ask(k.Features, k.Symbols)
	return k, nil
}

// Types spares everybody who needs the kernel's types to read them anew. Open gives back the memory that they take.
func (k *Kernel) Types() *btf.Cache {
	if k.types == nil {
		k.types = btf.NewCache()
	}
	return k.types
}

// mayUseBPF makes a map, which needs no more than the call itself and the memory for it.
func mayUseBPF() error {
	// Below 5.11 the kernel counts BPF memory against a limit that is far too small.
	limit := rlimit.RemoveMemlock()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err == nil {
		err = m.Close()
	}
	switch {
	case errors.Is(err, unix.EPERM) && limit != nil:
		return fmt.Errorf("make a BPF map: %w, although the capabilities are there: a seccomp filter or another policy "+
			"forbids bpf(2), or, below Linux 5.11, the limit on locked memory does, which could not be lifted (%w)", err, limit)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("make a BPF map: %w, although the capabilities are there: a seccomp filter or another policy forbids bpf(2)", err)
	case err != nil:
		return fmt.Errorf("make a BPF map: %w", err)
	case limit != nil:
		return fmt.Errorf("lift the limit on locked memory: %w: run as root or with CAP_SYS_RESOURCE", limit)
	}
	return nil
}

// Preview plans without loading or attaching anything, for doctor.
func Preview(k *Kernel, opts Options) (Plan, error) {
	ns, err := netns.Open(opts.Netns)
	if err != nil {
		return Plan{}, err
	}
	var plan Plan
	err = ns.Do(func() error {
		devices, err := Devices()
		if err != nil {
			return err
		}
		plan, err = Make(k.Capabilities, devices, opts)
		return err
	})
	return plan, errors.Join(err, ns.Close())
}

// Open plans, loads and attaches. k may be nil: then the kernel is asked first. All of it happens in
// the network namespace that opts name; the caller's thread stays where it is.
func Open(k *Kernel, opts Options) (*Set, error) {
	if k == nil {
		var err error
		if k, err = AskKernel(); err != nil {
			return nil, err
		}
	}
	ns, err := netns.Open(opts.Netns)
	if err != nil {
		return nil, err
	}
	s := &Set{ns: ns, types: &kernelTypes{k.Types()}}
	defer func() {
		s.types.forget()
		k.types = nil
	}()
	if err := ns.Do(func() error { return s.open(k, opts) }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// kernelTypes spares each object that is loaded to read the kernel's types by itself.
type kernelTypes struct {
	cache *btf.Cache // nil: what is loaded later reads its own
}

// forget gives back the memory that they take.
func (t *kernelTypes) forget() { t.cache = nil }

// open runs in the observed namespace.
func (s *Set) open(k *Kernel, opts Options) error {
	devices, err := Devices()
	if err != nil {
		return err
	}
	if s.plan, err = Make(k.Capabilities, devices, opts); err != nil {
		return err
	}
	s.notes = s.plan.Notes
	if k.SymbolsErr != nil {
		s.notes = append(s.notes, "drops are not filtered by function: "+k.SymbolsErr.Error())
	}
	if len(s.plan.Wire) > 0 {
		if err := s.attachWire(); err != nil {
			return err
		}
	}
	f := facts{k.Tables, k.Symbols}
	if s.plan.Options.Packets != nil {
		if err := s.attachPackets(f); err != nil {
			return err
		}
	}
	if len(s.plan.Stack) > 0 {
		s.attachStack(f, k.TablesErr)
		for _, o := range wanted(s.plan.Options) {
			s.attachObject(o, f, k.TablesErr)
		}
	}
	if err := s.fillFilter(); err != nil {
		return err
	}
	if opts.RunTimeStats {
		stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
		if err != nil {
			return fmt.Errorf("measure run time: %w", err)
		}
		s.links = append(s.links, attached{"run time statistics", stats})
	}
	if s.Attached() == 0 {
		return fmt.Errorf("attach: no hook holds: %s", s.reasons())
	}
	return nil
}
