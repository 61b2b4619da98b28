// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// PMTUMaps are the maps of the path MTU object.
type PMTUMaps struct {
	Own    *ebpf.Map // pmtu_own
	Told   *ebpf.Map // pmtu_told
	Totals *ebpf.Map // pmtu_totals
}

// pmtuNames are those of enum pmtu_total (bpf/lib/pmtu_abi.h), from the compiled object. It begins with
// the kinds of events, in the order of enum pmtu_kind.
var pmtuNames = sync.OnceValues(func() ([]string, error) {
	spec, err := bpfobj.LoadPMTU()
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	names, err := bpfobj.EnumNames(spec, "pmtu_total")
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	return names, nil
})

// Part fills in what did not fit, and what became of it.
func (m PMTUMaps) Part(_ context.Context, snap *ledger.Snapshot) error {
	names, err := pmtuNames()
	if err != nil {
		return err
	}
	if snap.PMTU == nil {
		snap.PMTU = &ledger.PMTUInput{}
	}
	p := snap.PMTU
	p.Totals, p.Events = map[string]uint64{}, []ledger.PMTUEventInput{}
	for i := range m.Totals.MaxEntries() {
		var perCPU []uint64
		if err := m.Totals.Lookup(i, &perCPU); err != nil {
			return fmt.Errorf("read pmtu_totals: %w", err)
		}
		p.Totals[name(names, int(i))] = Sum(perCPU, add)
	}
	when, err := newClock()
	if err != nil {
		return err
	}
	for _, table := range []*ebpf.Map{m.Own, m.Told} {
		err := eachEntry(table, func(k bpfobj.PMTUKey, c bpfobj.PMTUCount) {
			p.Events = append(p.Events, pmtuEvent(k, c, names, when))
		})
		if err != nil {
			return fmt.Errorf("read packets that did not fit: %w", err)
		}
	}
	slices.SortFunc(p.Events, func(a, b ledger.PMTUEventInput) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), a.Key.Src.Compare(b.Key.Src), a.Key.Dst.Compare(b.Key.Dst),
			cmp.Compare(a.Key.Proto, b.Key.Proto), cmp.Compare(a.Key.SPI, b.Key.SPI), cmp.Compare(a.Key.MTU, b.Key.MTU))
	})
	return nil
}

// Aging are the tables that it is read from.
func (m PMTUMaps) Aging() []Aging {
	each := func(t *ebpf.Map, fn func(bpfobj.PMTUKey, uint64)) error {
		return eachEntry(t, func(k bpfobj.PMTUKey, c bpfobj.PMTUCount) { fn(k, c.Packets) })
	}
	return []Aging{agingOf(m.Own, "pmtu_own", each, nil), agingOf(m.Told, "pmtu_told", each, nil)}
}

// pmtuEvent is an entry in the ledger's terms.
func pmtuEvent(k bpfobj.PMTUKey, c bpfobj.PMTUCount, kinds []string, when clock) ledger.PMTUEventInput {
	e := ledger.PMTUEventInput{
		Key: ledger.PMTUKey{
			Kind: ledger.PMTUKind(name(kinds, int(k.Kind))), Src: known(k.Src), Dst: known(k.Dst),
			Proto: k.Proto, SPI: ledger.SPI(k.Spi), MTU: int(k.Mtu),
		},
		Packets: c.Packets, Sent: c.Sent, Late: c.Late,
		Size: int(c.Size), SizeMax: int(c.SizeMax), Took: int(c.Took), Ifindex: int(c.Ifindex), Reporter: known(c.Reporter),
		First: when.wall(c.FirstNs), Last: when.wall(c.LastNs),
	}
	if c.SaSpi != 0 {
		e.SA = ledger.SAKey{Dst: addr(c.SaDst), SPI: ledger.SPI(c.SaSpi), Proto: ledger.ESP, Direction: ledger.Out}
	}
	return e
}

// known is an address, or none where the program had none to note.
func known(a [16]byte) netip.Addr {
	if a == [16]byte{} {
		return netip.Addr{}
	}
	return addr(a)
}

// eachEntry walks a hash to which the programs only ever add, as eachPerCPU does.
func eachEntry[K comparable, V any](m *ebpf.Map, fn func(K, V)) error {
	var err error
	for range walkTries {
		seen := make(map[K]V)
		var key K
		var value V
		it := m.Iterate()
		for it.Next(&key, &value) {
			seen[key] = value
		}
		if err = it.Err(); errors.Is(err, ebpf.ErrIterationAborted) {
			continue
		}
		if err != nil {
			return err
		}
		for key, value := range seen {
			fn(key, value)
		}
		return nil
	}
	return err
}
