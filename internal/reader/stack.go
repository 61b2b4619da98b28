// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// StackMaps are the maps of the stack object that carry its counts.
type StackMaps struct {
	Counts  *ebpf.Map // stack_counts
	Unknown *ebpf.Map // unknown_spis
	Residue *ebpf.Map // residue_counts
	Refused *ebpf.Map // refusals
	// Counters names the kernel's xfrm counters as /proc/net/xfrm_stat does, by their number.
	Counters map[uint32]string
}

var protos = map[uint8]ledger.Proto{50: ledger.ESP, 51: ledger.AH, 108: ledger.IPComp}

// readStack fills in the stack's side of a snapshot. The counters of the kernel were read before it,
// and they move before a drop is counted here: what the snapshot holds of the two never disagrees
// because of their order by more than the drops in between.
func (r *Reader) readStack(ctx context.Context, snap *ledger.Snapshot) error {
	m := r.src.Stack
	if m == nil {
		return nil
	}
	err := r.syncAgain(ctx)
	if err != nil {
		return err
	}
	if snap.Stack, err = m.sas(r.names.Cause); err != nil {
		return fmt.Errorf("read stack_counts: %w", err)
	}
	if snap.Unknown, err = m.unknown(); err != nil {
		return fmt.Errorf("read unknown_spis: %w", err)
	}
	if snap.Residue, err = m.residue(); err != nil {
		return fmt.Errorf("read residue_counts: %w", err)
	}
	if snap.Refusals, err = m.refusals(r.names); err != nil {
		return fmt.Errorf("read refusals: %w", err)
	}
	return nil
}

// syncGap is how long a packet may take from the counter that it moves to being freed. What moved
// without a packet is told only by the second of two syncs that far apart (bpf/stack.bpf.c).
const syncGap = 10 * time.Millisecond

func (r *Reader) sync() error {
	if r.src.Sync == nil {
		return nil
	}
	if err := r.src.Sync(); err != nil {
		return err
	}
	r.synced = time.Now()
	return nil
}

func (r *Reader) syncAgain(ctx context.Context) error {
	if r.src.Sync == nil {
		return nil
	}
	select {
	case <-time.After(syncGap - time.Since(r.synced)):
	case <-ctx.Done():
		// The last snapshot of a run that was ended is completed all the same.

		time.Sleep(syncGap)
	}
	return r.sync()
}

func (m *StackMaps) sas(causes []string) ([]ledger.StackSA, error) {
	out := []ledger.StackSA{}
	err := eachPerCPU(m.Counts, func(key bpfobj.StackKey, perCPU []bpfobj.StackCount) {
		sum := Sum(perCPU, addStack)
		sa := ledger.StackSA{
			Key: stackKey(key), ReqID: sum.Reqid, IfID: sum.IfId, LateMax: sum.LateMax,
			Causes: make(map[ledger.Cause]uint64), LateHist: slices.Clone(sum.LateHist[:]),
		}
		for i, n := range sum.Causes {
			if n > 0 {
				sa.Causes[ledger.Cause(name(causes, i))] = n
			}
		}
		out = append(out, sa)
	})
	slices.SortFunc(out, func(a, b ledger.StackSA) int { return compareKeys(a.Key, b.Key) })
	return out, err
}

// addStack adds what a CPU counted. The identity is the same wherever it was noted.
func addStack(dst *bpfobj.StackCount, c bpfobj.StackCount) {
	for i, n := range c.Causes {
		dst.Causes[i] += n
	}
	for i, n := range c.LateHist {
		dst.LateHist[i] += n
	}
	dst.LateMax = max(dst.LateMax, c.LateMax)
	dst.Reqid = max(dst.Reqid, c.Reqid)
	dst.IfId = max(dst.IfId, c.IfId)
	dst.ReplayWindow = max(dst.ReplayWindow, c.ReplayWindow)
}

func (m *StackMaps) unknown() ([]ledger.UnknownSPI, error) {
	out := []ledger.UnknownSPI{}
	err := eachPerCPU(m.Unknown, func(key bpfobj.StackKey, perCPU []uint64) {
		out = append(out, ledger.UnknownSPI{Key: stackKey(key), Packets: Sum(perCPU, add)})
	})
	slices.SortFunc(out, func(a, b ledger.UnknownSPI) int { return compareKeys(a.Key, b.Key) })
	return out, err
}

// refusals lists the flows that policies refused.
func (m *StackMaps) refusals(names *Names) ([]ledger.Refusal, error) {
	out := []ledger.Refusal{}
	err := eachPerCPU(m.Refused, func(key bpfobj.RefusalKey, perCPU []bpfobj.Refusal) {
		sum := Sum(perCPU, addRefusal)
		f := ledger.Refusal{
			Cause: ledger.Cause(name(names.Cause, int(key.Cause))), Place: ledger.SiteUnknown,
			ReqID: sum.Reqid, IfID: sum.IfId, Elsewhere: key.Elsewhere != 0,
			Src: addr(key.Src), Dst: addr(key.Dst), Proto: key.Proto, SrcPort: key.Sport, DstPort: key.Dport,
			Ifindex: int(key.Ifindex), Mark: sum.Mark, Packets: sum.Packets, Largest: sum.Largest,
		}
		if int(key.Place) < len(names.Place) {
			f.Place = ledger.Site(names.Place[key.Place])
		}
		if key.Spi != 0 {
			f.SA = stackKey(bpfobj.StackKey{Dst: key.SaDst, Spi: key.Spi, Proto: key.SaProto})
		}
		out = append(out, f)
	})
	slices.SortFunc(out, ledger.CompareRefusals)
	return out, err
}

func addRefusal(dst *bpfobj.Refusal, r bpfobj.Refusal) {
	dst.Packets += r.Packets
	dst.Largest = max(dst.Largest, r.Largest)
	dst.Reqid = max(dst.Reqid, r.Reqid)
	dst.IfId = max(dst.IfId, r.IfId)
	dst.Mark = max(dst.Mark, r.Mark)
}

// residue lists counters that moved without a packet; one that did not is left out.
func (m *StackMaps) residue() (map[string]uint64, error) {
	out := make(map[string]uint64)
	for i := range m.Residue.MaxEntries() {
		var perCPU []uint64
		if err := m.Residue.Lookup(i, &perCPU); err != nil {
			return nil, err
		}
		if n := Sum(perCPU, add); n > 0 {
			counter, ok := m.Counters[i]
			if !ok {
				counter = fmt.Sprintf("counter_%d", i)
			}
			out[counter] = n
		}
	}
	return out, nil
}

func add(dst *uint64, n uint64) { *dst += n }

func stackKey(k bpfobj.StackKey) ledger.SAKey {
	proto, ok := protos[k.Proto]
	if !ok {
		proto = ledger.Proto(fmt.Sprintf("proto_%d", k.Proto))
	}
	return ledger.SAKey{Dst: addr(k.Dst), SPI: ledger.SPI(k.Spi), Proto: proto, Direction: direction(k.Dir)}
}

// walkTries bounds how often a walk begins again when the hash changed under it.
const walkTries = 5

// eachPerCPU walks a per-CPU hash. The programs only ever add to these tables, so that an entry that
// was met stays; a walk that was thrown back begins again and meets each entry once.
func eachPerCPU[K comparable, V any](m *ebpf.Map, fn func(K, []V)) error {
	var err error
	for range walkTries {
		seen := make(map[K][]V)
		var key K
		var perCPU []V
		it := m.Iterate()
		for it.Next(&key, &perCPU) {
			seen[key] = slices.Clone(perCPU)
		}
		if err = it.Err(); errors.Is(err, ebpf.ErrIterationAborted) {
			continue
		}
		if err != nil {
			return err
		}
		for key, perCPU := range seen {
			fn(key, perCPU)
		}
		return nil
	}
	return err
}
