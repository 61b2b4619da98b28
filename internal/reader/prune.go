// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// pruner remembers what the tables of the stack programs held at the last Prune.
type pruner struct {
	stack   map[bpfobj.StackKey]uint64
	unknown map[bpfobj.StackKey]uint64
}

// Prune lets go of what has been over for so long, so that a run without end needs no more room than a
// short one: SAs that the kernel no longer has and that are silent, and, where they run short, entries of
// drops that have not moved since the last Prune. Every snapshot taken meanwhile has had their figures;
// later ones lack them. It also begins the search for the longest silence of each peer anew.
func (r *Reader) Prune(age time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Now()
	errs := []error{r.pruneStack()}
	if r.table == nil {
		return errors.Join(errs...)
	}
	mono := r.monoStart + now.Sub(r.started)
	order := r.reap.order[:0]
	for _, key := range r.reap.order {
		if mono-r.reap.folded[key].LastSeen >= age {
			delete(r.reap.folded, key)
			continue
		}
		order = append(order, key)
	}
	r.reap.order = order
	for _, rec := range r.silent(now, age) {
		if err := r.table.remove(rec.slot); err != nil {
			errs = append(errs, err)
			continue
		}
		rec.retired, rec.over = now, true
	}
	for k, p := range r.peers {
		p.quiet = 0
		if len(r.peers)*4 > peersMax*3 && now.Sub(p.alive) >= age {
			delete(r.peers, k)
		}
	}
	return errors.Join(errs...)
}

// pruneStack makes room in the tables that the stack programs fill and never empty.
func (r *Reader) pruneStack() error {
	m := r.src.Stack
	if m == nil {
		return nil
	}
	var err error
	r.prune.stack, err = pruneTable(m.Counts, r.prune.stack, r.reap.known, func(c bpfobj.StackCount) uint64 {
		return Sum([]uint64(c.Causes[:]), add)
	})
	if err != nil {
		return fmt.Errorf("prune stack_counts: %w", err)
	}
	r.prune.unknown, err = pruneTable(m.Unknown, r.prune.unknown, nil, func(n uint64) uint64 { return n })
	if err != nil {
		return fmt.Errorf("prune unknown_spis: %w", err)
	}
	return nil
}

// pruneTable deletes what stands as it stood before, if more than three quarters of a table are in use,
// and returns what stands now.
func pruneTable[V any](m *ebpf.Map, before map[bpfobj.StackKey]uint64, keep map[ledger.SAKey]bool,
	sum func(V) uint64) (map[bpfobj.StackKey]uint64, error) {
	now := map[bpfobj.StackKey]uint64{}
	if err := eachPerCPU(m, func(key bpfobj.StackKey, perCPU []V) {
		for _, v := range perCPU {
			now[key] += sum(v)
		}
	}); err != nil {
		return nil, err
	}
	if uint32(len(now))*4 <= m.MaxEntries()*3 {
		return now, nil
	}
	for key, n := range now {
		if was, ok := before[key]; !ok || was != n || keep[stackKey(key)] {
			continue
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		delete(now, key)
	}
	return now, nil
}
