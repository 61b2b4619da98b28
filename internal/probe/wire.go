// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
)

// wireSet is the wire object: its maps, and those of its programs that some hook has asked for. A
// program is loaded when it is first needed, because the kernel takes its time to verify one, and a
// fall-back is seldom needed.
type wireSet struct {
	plan    Plan
	types   *kernelTypes
	maps    *ebpf.Collection // without programs
	colls   []*ebpf.Collection
	progs   map[string]*ebpf.Program
	refused map[string]error
}

// loadWire makes the maps, each at its size, and fills the queue of free slots.
func loadWire(p Plan, types *kernelTypes) (*wireSet, error) {
	w := &wireSet{plan: p, types: types, progs: make(map[string]*ebpf.Program), refused: make(map[string]error)}
	spec, err := w.spec("")
	if err != nil {
		return nil, err
	}
	if w.maps, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("make wire maps: %w", explainLoad(err))
	}
	if err := errors.Join(bpfobj.FillSlots(w.maps), bpfobj.KeepSlots(w.maps)); err != nil {
		w.close()
		return nil, fmt.Errorf("make wire maps: %w", err)
	}
	return w, nil
}

// spec is the object as the plan wants it, with one program or none.
func (w *wireSet) spec(program string) (*ebpf.CollectionSpec, error) {
	spec, err := bpfobj.LoadWire(w.plan.LockFree)
	if err != nil {
		return nil, fmt.Errorf("read wire object: %w", err)
	}
	keepOnly(spec, []string{program})
	o := w.plan.Options
	var ports [maxNATTPorts]uint16
	copy(ports[:], o.NATTPorts)
	if err := errors.Join(
		bpfobj.SetSAMax(spec, o.SATableSize),
		resize(spec, "events", o.RingBytes),
		set(spec, "cfg_natt_ports", ports),
		set(spec, "cfg_hints", uint8(1)), // the reader unmarks the slots that it takes away
		set(spec, "cfg_events_per_sec", o.EventsPerSec),
		set(spec, "cfg_marks", o.Marks),
		configureEvents(spec, o),
	); err != nil {
		return nil, fmt.Errorf("prepare wire object: %w", err)
	}
	return spec, nil
}

// program loads the candidate's program, once.
func (w *wireSet) program(c Candidate) (*ebpf.Program, error) {
	if prog := w.progs[c.Program]; prog != nil {
		return prog, nil
	}
	if err := w.refused[c.Program]; err != nil {
		return nil, err
	}
	coll, err := w.load(c)
	if err != nil {
		w.refused[c.Program] = err
		return nil, err
	}
	w.colls = append(w.colls, coll)
	w.progs[c.Program] = coll.Programs[c.Program]
	return w.progs[c.Program], nil
}

func (w *wireSet) load(c Candidate) (*ebpf.Collection, error) {
	spec, err := w.spec(c.Program)
	if err != nil {
		return nil, err
	}
	prog := spec.Programs[c.Program]
	if prog == nil {
		return nil, fmt.Errorf("the wire object has no program %s", c.Program)
	}
	switch c.Way {
	case WayXDP, WayXDPGeneric:
		// A program that can take packets in several buffers may be attached at any MTU. It reads
		// headers only, and those are in the first buffer.
		if w.plan.XDPFrags {
			prog.Flags |= unix.BPF_F_XDP_HAS_FRAGS
		}
	case WayTCX, WayClsact:
		prog.AttachType = c.LoadAs
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: w.replacements(spec), Cache: w.types.cache})
	return coll, explainLoad(err)
}

// replacements are the maps that all programs share; constants (.rodata) are each program's own.
func (w *wireSet) replacements(spec *ebpf.CollectionSpec) map[string]*ebpf.Map {
	out := make(map[string]*ebpf.Map)
	for name := range spec.Maps {
		if m := w.maps.Maps[name]; m != nil && !strings.HasPrefix(name, ".") {
			out[name] = m
		}
	}
	return out
}

func (w *wireSet) close() {
	for _, c := range w.colls {
		c.Close()
	}
	w.maps.Close()
}

// attachWire attaches every wire hook. A hook that the plan requires has to hold, and so does at
// least one of all.
func (s *Set) attachWire() error {
	var err error
	if s.wire, err = loadWire(s.plan, s.types); err != nil {
		return err
	}
	held := 0
	for _, h := range s.plan.Wire {
		l, c, why := s.wire.attach(h)
		s.addWire(h, l, c, why, false)
		switch {
		case l != nil:
			held++
		case h.Required:
			return fmt.Errorf("attach %s in mode %s: %s", h.Name, s.plan.Options.Mode, strings.Join(why, "; "))
		}
	}
	if held == 0 {
		return fmt.Errorf("attach to the wire: no hook holds: %s", s.reasons())
	}
	return nil
}

func (s *Set) reasons() string {
	var out []string
	for _, h := range s.hooks {
		if !h.Attached {
			out = append(out, h.Name+": "+h.Why)
		}
	}
	return strings.Join(out, "; ")
}
