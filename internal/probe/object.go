// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/reader"
)

// object is a compiled file of programs in the stack that stands beside wire and stack: it shares
// their ring and their account of losses, and its failing sinks nothing else.
type object struct {
	name  string
	load  func() (*ebpf.CollectionSpec, error)
	raw   []stackPlace              // raw tracepoints, no twin; function is the hook's name
	funcs []stackPlace              // fentry programs, each with a kprobe twin
	extra func(Capabilities) []Hook // hooks that are neither; nil: none

	// unaided: it needs nothing of the kernel's tables, and is loaded where they cannot be read.
	unaided bool
	// unwanted says whether the options leave it out; nil: they cannot.
	unwanted func(Options) bool
	// configure writes the object's constants; nil: it has none.
	configure func(*ebpf.CollectionSpec, facts, Options) error
	// maps are its maps where those are made before it is loaded; nil: it makes them itself.
	maps func(*Set) *ebpf.Collection
	// part makes what fills in the object's share of a snapshot; nil: it has none.
	part func(*ebpf.Collection, facts) (reader.Part, error)
	// aging are its tables in which a run without end has to make room; nil: none.
	aging func(*ebpf.Collection, facts) ([]reader.Aging, error)
}

// objects lists them all, in the order in which they are attached.
var objects = []object{inner, pmtuObject, dropObject, latency, packets}

// wanted lists the objects that the options ask for. Who asks for drops of every kind asks for them alone.
func wanted(opts Options) []object {
	if opts.Drops != nil {
		return []object{anyDrop}
	}
	var out []object
	for _, o := range objects {
		if o.unwanted == nil || !o.unwanted(opts) {
			out = append(out, o)
		}
	}
	return out
}

// hooks plans an object's hooks.
func (o object) hooks(caps Capabilities) []Hook {
	var out []Hook
	for _, place := range o.raw {
		h := Hook{Name: place.function, Costs: place.costs, Try: []Candidate{{Program: place.program, Way: WayRawTP}}}
		if why := caps.noStack(); why != "" {
			h.Try, h.Why = nil, []string{why}
		}
		out = append(out, h)
	}
	for _, place := range o.funcs {
		out = append(out, functionHook(caps, place))
	}
	if o.extra != nil {
		out = append(out, o.extra(caps)...)
	}
	return out
}

// attachObject loads one object and attaches what it can. That none of it works here is not an error:
// the hooks say why.
func (s *Set) attachObject(o object, f facts, factsErr error) {
	hooks := o.hooks(s.plan.caps)
	if factsErr != nil && !o.unaided {
		s.skipStack(hooks, factsErr)
		return
	}
	if !slices.ContainsFunc(hooks, func(h Hook) bool { return len(h.Try) > 0 }) {
		for _, h := range hooks {
			s.add(h, nil, Candidate{}, h.Why)
		}
		return
	}
	// Verifying costs more than attaching: what is second choice is loaded only where the first fails.
	coll, results, err := s.tryObject(o, f, firstChoices(hooks))
	if err == nil && fallsShort(hooks, results) {
		closeAll(results)
		coll.Close()
		coll, results, err = s.tryObject(o, f, hooks)
	}
	if err != nil {
		s.skipStack(hooks, err)
		return
	}
	held := false
	for _, r := range results {
		s.add(r.hook, r.link, r.with, r.why)
		held = held || r.link != nil
	}
	if !held {
		coll.Close()
		return
	}
	s.objects = append(s.objects, loadedObject{o, f, coll})
}

// firstChoices are the hooks without what they would fall back to.
func firstChoices(hooks []Hook) []Hook {
	out := slices.Clone(hooks)
	for i := range out {
		out[i].Try = out[i].Try[:min(1, len(out[i].Try))]
	}
	return out
}

// fallsShort says whether a hook that has more to try does not hold.
func fallsShort(hooks []Hook, results []tried) bool {
	for i, r := range results {
		if r.link == nil && len(hooks[i].Try) > 1 {
			return true
		}
	}
	return false
}

func (s *Set) tryObject(o object, f facts, hooks []Hook) (*ebpf.Collection, []tried, error) {
	spec, err := o.load()
	if err != nil {
		return nil, nil, fmt.Errorf("load %s object: %w", o.name, err)
	}
	wanted := []string{"pick_netns"}
	for _, h := range hooks {
		for _, c := range h.Try {
			wanted = append(wanted, c.Program)
		}
	}
	keepOnly(spec, wanted)
	if s.plan.caps.Cast != nil {
		bpfobj.WithoutCast(spec)
	}
	if o.configure != nil {
		if err := o.configure(spec, f, s.plan.Options); err != nil {
			return nil, nil, err
		}
	}
	if spec.Maps["events"] != nil {
		if err := resize(spec, "events", s.plan.Options.RingBytes); err != nil {
			return nil, nil, err
		}
	}
	if err := configureEvents(spec, s.plan.Options); err != nil {
		return nil, nil, err
	}
	opts := ebpf.CollectionOptions{Cache: s.types.cache}
	switch {
	case s.wire != nil:
		opts.MapReplacements = shared(spec, s.wire.maps)
	default:
		opts.MapReplacements = map[string]*ebpf.Map{}
	}
	if s.stack != nil {
		for name, m := range shared(spec, s.stack.coll) {
			if opts.MapReplacements[name] == nil {
				opts.MapReplacements[name] = m
			}
		}
	}
	if o.maps != nil {
		for name, m := range replacements(spec, o.maps(s)) {
			if opts.MapReplacements[name] == nil {
				opts.MapReplacements[name] = m
			}
		}
	}
	specs := maps.Clone(spec.Programs)
	coll, dropped, err := loadDropping(spec, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("load %s programs: %w", o.name, err)
	}
	if err := pickNetns(coll); err != nil {
		coll.Close()
		return nil, nil, err
	}
	var results []tried
	for _, h := range hooks {
		l, c, why := attachHook(h, specs, coll.Programs, dropped)
		results = append(results, tried{hook: h, with: c, why: why, link: l})
	}
	return coll, results, nil
}

// pickNetns tells the programs which network namespace to observe: the calling thread's.
func pickNetns(coll *ebpf.Collection) error {
	pick := coll.Programs["pick_netns"]
	if pick == nil {
		return errors.New("the kernel refuses pick_netns, without which no namespace can be told from another")
	}
	found, err := pick.Run(&ebpf.RunOptions{})
	if err != nil {
		return fmt.Errorf("find the network namespace in the kernel: %w", err)
	}
	if found != 1 {
		return errors.New("find the network namespace in the kernel: the thread has none")
	}
	return nil
}

// loadedObject is an object of which at least one hook holds.
type loadedObject struct {
	object
	facts facts
	coll  *ebpf.Collection
}

func (o loadedObject) source(src *reader.Source) error {
	if o.part == nil {
		return nil
	}
	part, err := o.part(o.coll, o.facts)
	if err != nil {
		return fmt.Errorf("read the %s programs: %w", o.name, err)
	}
	if part != nil {
		src.Parts = append(src.Parts, part)
	}
	if o.aging != nil {
		aging, err := o.aging(o.coll, o.facts)
		if err != nil {
			return fmt.Errorf("read the %s programs: %w", o.name, err)
		}
		src.Aging = append(src.Aging, aging...)
	}
	if src.Events == nil {
		src.Events, src.Lost = o.coll.Maps["events"], o.coll.Maps["lost_counts"]
	}
	for _, name := range slices.Sorted(maps.Keys(o.coll.Programs)) {
		src.Programs[o.name+"/"+name] = o.coll.Programs[name]
	}
	return nil
}
