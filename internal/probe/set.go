// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/reader"
)

// Set is what is loaded and attached. Links, programs and maps are held by descriptors only, nothing
// is pinned: all of it ends with the process (for clsact see clsact.go).
type Set struct {
	plan  Plan
	ns    *netns.Handle
	hooks []ledger.Hook
	notes []string

	types *kernelTypes // of all that is loaded while the set opens

	wire  *wireSet  // nil: not observed
	stack *stackSet // nil: not observed

	objects []loadedObject
	packet  packetSet // empty: nobody asked for packets

	mu        sync.Mutex  // of plan.Wire, hooks and what follows, once Follow is at work
	links     []attached  // in the order of attaching
	wireHooks []*wireHook // those of devices, which come and go
	detached  bool
	closed    bool
}

type attached struct {
	name   string
	closer io.Closer
}

// Plan is what the set was made from. Its wire hooks include those of devices that have come since and are
// there, and of those planned that are gone.
func (s *Set) Plan() Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.plan
	p.Wire = slices.Clone(p.Wire)
	return p
}

// Hooks tells of every planned hook whether it is attached, how or why not, and what that costs.
func (s *Set) Hooks() []ledger.Hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hooks)
}

// Notes are remarks on the choice of devices and objects, for the user.
func (s *Set) Notes() []string { return slices.Clone(s.notes) }

// Attached counts the hooks that are attached.
func (s *Set) Attached() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.hooks {
		if h.Attached {
			n++
		}
	}
	return n
}

// add notes a hook that was tried: attached by l, or not and why.
func (s *Set) add(h Hook, l io.Closer, c Candidate, why []string) {
	if l != nil {
		s.links = append(s.links, attached{h.Name, l})
	}
	s.hooks = append(s.hooks, describe(h, l != nil, c, why))
}

// addWire does the same for a hook on a device, which takes the place of one of the same name.
func (s *Set) addWire(h Hook, l io.Closer, c Candidate, why []string, copies bool) *wireHook {
	at := slices.IndexFunc(s.wireHooks, func(w *wireHook) bool { return w.plan.Name == h.Name })
	if at < 0 {
		at = len(s.wireHooks)
		s.wireHooks = append(s.wireHooks, &wireHook{hook: len(s.hooks)})
		s.hooks = append(s.hooks, ledger.Hook{})
	}
	w := s.wireHooks[at]
	if w.closer != nil {
		_ = w.closer.Close() // that device has another name by now, and this one has its own
	}
	w.plan, w.closer, w.copies = h, l, copies
	s.hooks[w.hook] = describe(h, l != nil, c, why)
	return w
}

// describe says how a hook is attached, or why it is not.
func describe(h Hook, holds bool, c Candidate, why []string) ledger.Hook {
	out := ledger.Hook{Name: h.Name, Attached: holds}
	reason := strings.Join(why, "; ")
	if holds {
		out.Why = string(c.Way)
		// What fell short only matters, and what is not seen only then, where native XDP did.
		if c.Way != WayXDP {
			out.Costs = h.Limits
			if reason != "" {
				out.Why += " (" + reason + ")"
			}
		}
	} else {
		out.Why, out.Costs = reason, h.Costs
	}
	return out
}

// Source is what a reader needs of the set.
func (s *Set) Source() (reader.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := reader.Source{Programs: make(map[string]*ebpf.Program)}
	if s.wire != nil {
		maps, err := reader.WireMapsOf(s.wire.maps.Maps)
		if err != nil {
			return src, err
		}
		maps.Keeps = true
		src.Wire = &maps
		src.Events, src.Lost = s.wire.maps.Maps["events"], s.wire.maps.Maps["lost_counts"]
		for name, p := range s.wire.progs {
			src.Programs[name] = p
		}
	}
	if s.stack != nil {
		s.stack.source(&src)
	}
	for name, p := range s.packet.progs {
		src.Programs["packet/"+name] = p
	}
	for _, o := range s.objects {
		if err := o.source(&src); err != nil {
			return src, err
		}
	}
	var err error
	src.Maps, err = s.allMaps()
	return src, err
}

// allMaps lists every map of the objects. The objects share some of them, under descriptors of their own.
func (s *Set) allMaps() ([]*ebpf.Map, error) {
	var collections []*ebpf.Collection
	if s.wire != nil {
		collections = append(append(collections, s.wire.maps), s.wire.colls...)
	}
	if s.stack != nil {
		collections = append(collections, s.stack.coll)
	}
	for _, o := range s.objects {
		collections = append(collections, o.coll)
	}
	var out []*ebpf.Map
	seen := map[ebpf.MapID]bool{}
	for _, c := range collections {
		for name, m := range c.Maps {
			info, err := m.Info()
			if err != nil {
				return nil, fmt.Errorf("ask for map %s: %w", name, err)
			}
			// Kernels before 4.13 give no id; those are not supported anyway.
			if id, ok := info.ID(); ok && !seen[id] {
				seen[id] = true
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// Detach takes every hook away, the last attached first, and keeps the maps: what was counted can
// still be read. It may be called again.
func (s *Set) Detach() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return nil
	}
	s.detached = true
	var errs []error
	for _, l := range slices.Backward(s.links) {
		if err := l.closer.Close(); err != nil {
			errs = append(errs, fmt.Errorf("detach %s: %w", l.name, err))
		}
	}
	s.links = nil
	for _, w := range slices.Backward(s.wireHooks) {
		if w.closer == nil {
			continue
		}
		if err := w.closer.Close(); err != nil {
			errs = append(errs, fmt.Errorf("detach %s: %w", w.plan.Name, err))
		}
		w.closer = nil
	}
	return errors.Join(errs...)
}

// Close detaches and gives everything back. It may be called again.
func (s *Set) Close() error {
	err := s.Detach()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return err
	}
	s.closed = true
	for _, o := range s.objects {
		o.coll.Close()
	}
	s.packet.close()
	if s.stack != nil {
		s.stack.coll.Close()
	}
	if s.wire != nil {
		s.wire.close()
	}
	if s.ns != nil {
		err = errors.Join(err, s.ns.Close())
	}
	return err
}
