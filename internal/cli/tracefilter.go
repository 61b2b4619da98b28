// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/spf13/pflag"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/reader"
)

// eventKinds are those that `trace` shows, as their names in Event.Kind.
var eventKinds = []string{
	reader.KindSANew, reader.KindGap, reader.KindDuplicate, reader.KindLate, reader.KindStale, reader.KindRestart, reader.KindJump,
	reader.KindRebind, reader.KindIKE, reader.KindXfrmDrop, reader.KindHostDrop, reader.KindPMTU,
}

// maxFilter bounds each list: the lists live in the kernel's memory.
const maxFilter = 1024

// traceFilter says which events to show; an empty part lets everything pass.
type traceFilter struct {
	spis, peers, kinds, directions []string
	reqids                         []uint
	stack                          bool

	parsed probe.EventFilter
}

func (f *traceFilter) addFlags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.spis, "spi", nil, "only SAs with this `SPI` (0x… or decimal), repeatable")
	flags.StringSliceVar(&f.peers, "peer", nil, "only packets from or to this `prefix`, or address, repeatable: the outer addresses where there are any")
	flags.UintSliceVar(&f.reqids, "reqid", nil, "only SAs with this `reqid`, which the two directions of a tunnel share, repeatable")
	flags.Lookup("reqid").DefValue = "" // not "[]"
	flags.StringSliceVar(&f.directions, "direction", nil, "only packets going this `way`: in or out")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only events of this `kind`, repeatable: sa_new, gap, duplicate, late, stale, restart, "+
		"jump, rebind, ike, xfrm_drop, host_drop (IPsec dropped outside xfrm), pmtu (what does not fit)")
	flags.BoolVar(&f.stack, "stack", false, "show the kernel stack of drops")
}

// check reads what the user gave.
func (f *traceFilter) check() error {
	f.parsed = probe.EventFilter{Stacks: f.stack}
	names, err := reader.LoadNames()
	if err != nil {
		return err
	}
	for _, s := range f.spis {
		var spi ledger.SPI
		if err := spi.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("--spi: %w", err)
		}
		f.parsed.SPIs = append(f.parsed.SPIs, uint32(spi))
	}
	for _, s := range f.peers {
		p, err := parsePrefix(s)
		if err != nil {
			return fmt.Errorf("--peer %w", err)
		}
		f.parsed.Peers = append(f.parsed.Peers, p)
	}
	if f.parsed.ReqIDs, err = parseReqIDs(f.reqids); err != nil {
		return err
	}
	for _, d := range f.directions {
		i := slices.Index([]string{"in", "out"}, d)
		if i < 0 {
			return fmt.Errorf("--direction %q: want in or out", d)
		}
		f.parsed.Directions = append(f.parsed.Directions, uint8(i))
	}
	kinds := f.kinds
	if len(kinds) == 0 {
		kinds = eventKinds
	}
	for _, k := range kinds {
		if !slices.Contains(eventKinds, k) {
			return fmt.Errorf("--kind %q: want one of %v", k, eventKinds)
		}
		f.parsed.Kinds = append(f.parsed.Kinds, uint8(slices.Index(names.Event, k)))
	}
	for flag, n := range map[string]int{"spi": len(f.spis), "peer": len(f.peers), "reqid": len(f.reqids)} {
		if n > maxFilter {
			return fmt.Errorf("--%s: %d values, at most %d", flag, n, maxFilter)
		}
	}
	return nil
}

// parseReqIDs takes the values of --reqid. 0 is what an SA without one has.
func parseReqIDs(ids []uint) (out []uint32, err error) {
	for _, id := range ids {
		if id == 0 || id > math.MaxUint32 {
			return nil, fmt.Errorf("--reqid %d: a reqid is 1 to %d", id, uint32(math.MaxUint32))
		}
		out = append(out, uint32(id))
	}
	return out, nil
}

// kernel gives what the kernel programs are told. Devices are looked up by name in the observed namespace;
// one that is not there is refused where devices are chosen, with a list of those that are.
func (f *traceFilter) kernel(interfaces []string) func(*netns.Handle) (*probe.EventFilter, error) {
	return func(ns *netns.Handle) (*probe.EventFilter, error) {
		out := f.parsed
		err := ns.Do(func() error {
			for _, name := range interfaces {
				if d, err := net.InterfaceByName(name); err == nil {
					out.Devices = append(out.Devices, uint32(d.Index))
				}
			}
			return nil
		})
		return &out, err
	}
}

// notes tells what a filter cannot do here.
func (f *traceFilter) notes(s *session) (out []string) {
	if len(f.reqids) > 0 && s.sadb.missing != nil {
		out = append(out, "packets on the wire are not told by --reqid, because the SA database cannot be read: "+s.sadb.missing.Error())
	}
	if f.stack && s.kernel.SymbolsErr != nil {
		out = append(out, "functions are shown as bare addresses: "+s.kernel.SymbolsErr.Error())
	}
	return out
}

// reqIDs knows which reqid an SA has, and tells the kernel programs of new SAs.
type reqIDs struct {
	follow func([]ledger.SADEntry) error

	mu     sync.Mutex
	bySA   map[saName]uint32
	failed error
}

type saName struct {
	dst netip.Addr
	spi ledger.SPI
}

func newReqIDs(follow func([]ledger.SADEntry) error) *reqIDs {
	return &reqIDs{follow: follow, bySA: map[saName]uint32{}}
}

// add is called from several goroutines.
func (r *reqIDs) add(sa ledger.SADEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bySA[saName{sa.Key.Dst, sa.Key.SPI}] = sa.ReqID
	if err := r.follow([]ledger.SADEntry{sa}); err != nil && r.failed == nil {
		r.failed = err
	}
}

// of gives the reqid of an event's SA, 0 where it is not known.
func (r *reqIDs) of(e reader.Event) uint32 {
	if e.SPI == 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id := r.bySA[saName{e.Dst, e.SPI}]; id != 0 || e.Kind != reader.KindPMTU {
		return id
	}
	// A packet that is not encrypted yet shows its own destination and not its SA's.
	found := uint32(0)
	for sa, id := range r.bySA {
		if sa.spi == e.SPI && found != 0 && found != id {
			return 0
		}
		if sa.spi == e.SPI {
			found = id
		}
	}
	return found
}

func (r *reqIDs) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		return nil
	}
	return errors.Join(errors.New("events of new SAs may be missing"), r.failed)
}
