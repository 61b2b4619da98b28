// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/reader"
)

// stackSet is the loaded stack object.
type stackSet struct {
	coll     *ebpf.Collection
	counters map[uint32]string
	cpus     int
}

// facts are what the stack programs are told of the kernel.
type facts struct {
	tables  *kernel.Tables
	symbols *kernel.Symbols // nil: not readable
}

// tried is a hook and what came of it.
type tried struct {
	hook Hook
	with Candidate
	why  []string
	link io.Closer
}

// attachStack loads the stack object, attaches what it can and primes it. That none of it works here
// is not an error: the hooks say why, and the wire side stands on its own.
func (s *Set) attachStack(f facts, factsErr error) {
	hooks := s.plan.Stack
	if factsErr != nil {
		s.skipStack(hooks, factsErr)
		return
	}
	// What the programs do depends on which of them will be attached, and that is only known after
	// trying: begin with the best case and load again with what was found.
	assume := outcome{kfree: true, audit: true}
	for range 3 {
		set, results, err := s.tryStack(f, assume)
		if err != nil {
			s.skipStack(hooks, err)
			return
		}
		found := outcomeOf(results)
		if found.any && found != assume {
			closeAll(results)
			set.coll.Close()
			assume = found
			continue
		}
		// Nothing is counted on a CPU before it is primed.
		if err := set.sync(); err != nil {
			closeAll(results)
			set.coll.Close()
			s.skipStack(hooks, fmt.Errorf("begin counting: %w", err))
			return
		}
		for _, r := range results {
			s.add(r.hook, r.link, r.with, r.why)
		}
		if !found.any {
			set.coll.Close()
			return
		}
		s.stack = set
		return
	}
	s.skipStack(hooks, errors.New("which programs can be attached changed from try to try"))
}

func (s *Set) skipStack(hooks []Hook, err error) {
	for _, h := range hooks {
		s.add(h, nil, Candidate{}, append(slices.Clone(h.Why), err.Error()))
	}
}

// outcome is what the stack programs' settings depend on.
type outcome struct{ kfree, audit, any bool }

func outcomeOf(results []tried) outcome {
	held := make(map[string]bool)
	o := outcome{}
	for _, r := range results {
		if r.link != nil {
			o.any = true
			held[strings.TrimSuffix(r.with.Program, bpfobj.KprobeSuffix)] = true
		}
	}
	o.kfree = held[kfreeName]
	o.audit = held["audit_replay"] && held["audit_icvfail"]
	return o
}

func closeAll(results []tried) {
	for _, r := range results {
		if r.link != nil {
			// The links are given up for others; one that cannot be closed ends with the process.
			_ = r.link.Close()
		}
	}
}

// tryStack loads the object for an assumed outcome and attaches its programs. kfree_skb and the two
// programs that serve it come together or not at all.
func (s *Set) tryStack(f facts, assume outcome) (*stackSet, []tried, error) {
	spec, err := bpfobj.LoadStack()
	if err != nil {
		return nil, nil, fmt.Errorf("load stack object: %w", err)
	}
	wanted := []string{"pick_netns"}
	if assume.kfree {
		wanted = append(wanted, "shadow_sync")
	}
	for _, h := range s.plan.Stack {
		for _, c := range h.Try {
			if c.Program != kfreeName || assume.kfree {
				wanted = append(wanted, c.Program)
			}
		}
	}
	keepOnly(spec, wanted)
	if s.plan.caps.Cast != nil {
		bpfobj.WithoutCast(spec)
	}
	config := f.config(assume)
	config.EventsPerSec = s.plan.Options.EventsPerSec
	if err := bpfobj.ConfigureStack(spec, config); err != nil {
		return nil, nil, err
	}
	if err := resize(spec, "events", s.plan.Options.RingBytes); err != nil {
		return nil, nil, err
	}
	if err := configureEvents(spec, s.plan.Options); err != nil {
		return nil, nil, err
	}
	opts := ebpf.CollectionOptions{Cache: s.types.cache}
	if s.wire != nil {
		opts.MapReplacements = shared(spec, s.wire.maps)
	}
	specs := maps.Clone(spec.Programs)
	coll, dropped, err := loadDropping(spec, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("load stack programs: %w", err)
	}
	set, err := newStackSet(coll, f)
	if err != nil {
		coll.Close()
		return nil, nil, err
	}
	if !assume.kfree {
		dropped[kfreeName] = errors.New("its helpers do not work here, see above")
	}
	if coll.Programs["shadow_sync"] == nil && coll.Programs[kfreeName] != nil {
		dropped[kfreeName] = fmt.Errorf("shadow_sync: %w", dropped["shadow_sync"])
		coll.Programs[kfreeName].Close()
		delete(coll.Programs, kfreeName)
	}
	var results []tried
	for _, h := range s.plan.Stack {
		l, c, why := attachHook(h, specs, coll.Programs, dropped)
		results = append(results, tried{hook: h, with: c, why: why, link: l})
	}
	return set, results, nil
}

// sharedMaps are in several objects and have to be the same ones.
var sharedMaps = []string{
	"events", "event_budgets", "lost_counts", "claimed_skb", "drop_stacks",
	"filter_spis", "filter_peers", "filter_reqids", "filter_sas", "filter_devices",
}

func shared(spec *ebpf.CollectionSpec, with *ebpf.Collection) map[string]*ebpf.Map {
	out := make(map[string]*ebpf.Map)
	for _, name := range sharedMaps {
		if m := with.Maps[name]; m != nil && spec.Maps[name] != nil {
			out[name] = m
		}
	}
	return out
}

func (f facts) config(assume outcome) bpfobj.StackConfig {
	c := bpfobj.StackConfig{
		HasReason: len(f.tables.Reasons) > 0, HaveKfree: assume.kfree, HaveAudit: assume.audit,
		CounterSlots: f.tables.Slots, Counters: f.counters(),
	}
	c.XfrmPolicy, _ = f.tables.ReasonNumber("XFRM_POLICY")
	if f.symbols != nil {
		for _, site := range kernel.Sites(f.symbols) {
			c.Sites = append(c.Sites, bpfobj.Site{Start: site.Start, End: site.End, Kind: uint32(site.Kind)})
		}
	}
	return c
}

func (f facts) counters() map[uint32]string {
	out := make(map[uint32]string, len(f.tables.Counters))
	for _, c := range f.tables.Counters {
		out[c.Number] = c.Name
	}
	return out
}

// newStackSet tells the programs which network namespace to observe: the calling thread's.
func newStackSet(coll *ebpf.Collection, f facts) (*stackSet, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	if err := pickNetns(coll); err != nil {
		return nil, err
	}
	return &stackSet{coll: coll, counters: f.counters(), cpus: cpus}, nil
}

// syncTries bounds how often a CPU that is at a drop this moment is asked again.
const syncTries = 50

// sync runs shadow_sync on every CPU that is online.
func (st *stackSet) sync() error {
	prog := st.coll.Programs["shadow_sync"]
	if prog == nil {
		return nil // without kfree_skb there is no shadow to keep
	}
	for cpu := range st.cpus {
		if err := syncCPU(prog, cpu); err != nil {
			return err
		}
	}
	return nil
}

func syncCPU(prog *ebpf.Program, cpu int) error {
	for try := range syncTries {
		ret, err := kernel.RunOn(prog, cpu)
		switch {
		case errors.Is(err, unix.ENXIO):
			return nil // offline: it counts nothing, and is primed when it comes back
		case err != nil:
			return fmt.Errorf("run shadow_sync: %w", err)
		case ret == bpfobj.SyncDone:
			return nil
		case ret == bpfobj.SyncNoNetns:
			return errors.New("run shadow_sync: the kernel keeps no xfrm counters for this network namespace")
		}
		time.Sleep(time.Duration(try) * 100 * time.Microsecond)
	}
	return fmt.Errorf("run shadow_sync: CPU %d was dropping packets each of %d times", cpu, syncTries)
}

// source adds the stack's maps to what a reader reads.
func (st *stackSet) source(src *reader.Source) {
	src.Stack = &reader.StackMaps{
		Counts: st.coll.Maps["stack_counts"], Unknown: st.coll.Maps["unknown_spis"],
		Residue: st.coll.Maps["residue_counts"], Refused: st.coll.Maps["refusals"], Counters: st.counters,
	}
	if src.Events == nil {
		src.Events, src.Lost = st.coll.Maps["events"], st.coll.Maps["lost_counts"]
	}
	src.Sync = st.sync
	for name, p := range st.coll.Programs {
		src.Programs[name] = p
	}
}
