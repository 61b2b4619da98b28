// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
)

// Aging is a table that programs fill and never empty. It lets go of entries that stand as they stood at the
// last time, once it runs short of room.
type Aging struct {
	name  string
	prune func() error
}

// agingOf makes an Aging of a table whose entries only grow: sum says how far one has come. What keep holds
// stays whether it moves or not; nil: nothing does.
func agingOf[K comparable](m *ebpf.Map, name string, each func(*ebpf.Map, func(K, uint64)) error, keep func(K) bool) Aging {
	var before map[K]uint64
	return Aging{name, func() (err error) {
		before, err = pruneTable(m, before, each, keep)
		return err
	}}
}

// perCPU walks a table in which each CPU has a value of its own.
func perCPU[K comparable, V any](sum func(V) uint64) func(*ebpf.Map, func(K, uint64)) error {
	return func(m *ebpf.Map, fn func(K, uint64)) error {
		return eachPerCPU(m, func(key K, values []V) {
			n := uint64(0)
			for _, v := range values {
				n += sum(v)
			}
			fn(key, n)
		})
	}
}

func itself(n uint64) uint64 { return n }

// Prune lets go of what has been over for so long, so that a run without end needs no more room than a
// short one: SAs that the kernel no longer has and that are silent, and, where they run short, entries of
// drops that have not moved since the last Prune. Every snapshot taken meanwhile has had their figures;
// later ones lack them. It also begins the search for the longest silence of each peer anew.
func (r *Reader) Prune(age time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Now()
	errs := []error{r.pruneTables()}
	if r.table == nil {
		return errors.Join(errs...)
	}
	mono := r.monoStart + now.Sub(r.started)
	order := r.reap.order[:0]
	for _, key := range r.reap.order {
		if mono-r.reap.folded[key].LastSeen >= age {
			delete(r.reap.folded, key)
			r.places.gone = true
			continue
		}
		order = append(order, key)
	}
	r.reap.order = order
	over := r.silent(now, age)
	errs = append(errs, r.retire(over, now))
	for _, rec := range over {
		rec.over = !rec.retired.IsZero()
	}
	for k, p := range r.peers {
		p.quiet = 0
		if len(r.peers)*4 > peersMax*3 && now.Sub(p.alive) >= age {
			delete(r.peers, k)
		}
	}
	return errors.Join(errs...)
}

// aging lists the tables that make room: bindings with keepalives, those of the stack programs and those of
// Source.Aging.
func (r *Reader) aging() []Aging {
	out := slices.Clone(r.src.Aging)
	if r.src.Wire != nil && r.src.Wire.Keepalives != nil {
		out = append(out, agingOf(r.src.Wire.Keepalives, "keepalives", func(m *ebpf.Map, fn func(bpfobj.KeepaliveKey, uint64)) error {
			return eachEntry(m, func(key bpfobj.KeepaliveKey, v bpfobj.Keepalive) { fn(key, v.Packets) })
		}, nil))
	}
	if m := r.src.Stack; m != nil {
		out = append(out,
			agingOf(m.Counts, "stack_counts", perCPU[bpfobj.StackKey](func(c bpfobj.StackCount) uint64 {
				return Sum([]uint64(c.Causes[:]), add)
			}), func(k bpfobj.StackKey) bool { return r.reap.known[stackKey(k)] }),
			agingOf(m.Unknown, "unknown_spis", perCPU[bpfobj.StackKey](itself), nil))
		if m.Refused != nil {
			out = append(out, agingOf(m.Refused, "refusals", perCPU[bpfobj.RefusalKey](func(c bpfobj.Refusal) uint64 { return c.Packets }), nil))
		}
	}
	return out
}

// pruneTables makes room in the tables that the programs fill and never empty.
func (r *Reader) pruneTables() error {
	var errs []error
	for _, a := range r.tables {
		if err := a.prune(); err != nil {
			errs = append(errs, fmt.Errorf("prune %s: %w", a.name, err))
		}
	}
	return errors.Join(errs...)
}

// pruneTable deletes what stands as it stood before, if more than three quarters of a table are in use,
// and returns what stands now.
func pruneTable[K comparable](m *ebpf.Map, before map[K]uint64, each func(*ebpf.Map, func(K, uint64)) error, keep func(K) bool) (map[K]uint64, error) {
	now := map[K]uint64{}
	if err := each(m, func(key K, n uint64) { now[key] = n }); err != nil {
		return nil, err
	}
	if !crowded(len(now), m) {
		return now, nil
	}
	for key, n := range now {
		if was, ok := before[key]; !ok || was != n || keep != nil && keep(key) {
			continue
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		delete(now, key)
	}
	return now, nil
}

// crowded says whether more than three quarters of a table are in use.
func crowded(used int, m *ebpf.Map) bool { return uint32(used)*4 > m.MaxEntries()*3 }
