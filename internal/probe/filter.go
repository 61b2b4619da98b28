// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// EventFilter says which events the kernel programs send. Empty lists let everything pass. What is turned
// away costs no room in the ring and no part of the rate.
type EventFilter struct {
	Kinds      []uint8  // enum event_kind; none: those that every reader of the ring gets
	Directions []uint8  // enum direction
	SPIs       []uint32 // host byte order
	Peers      []netip.Prefix
	ReqIDs     []uint32
	Devices    []uint32 // by number; events at no device pass
	Stacks     bool     // send the kernel stack of drops along
}

// filteredSAs is how many SAs of wanted reqids there is room for.
const filteredSAs = 1 << 14

// Bits of cfg_filter: FILTER_* of bpf/lib/filter.h.
const (
	filterSPI = 1 << iota
	filterPeer
	filterReqID
	filterDevice
)

// Keys of the lists: struct filter_prefix and struct filter_sa of bpf/lib/filter.h.
type (
	peerKey struct {
		Bits uint32
		Addr [16]byte
	}
	wantedSA struct {
		Dst [16]byte
		SPI uint32
	}
)

func bits(numbers []uint8) (mask uint32) {
	for _, n := range numbers {
		mask |= 1 << n
	}
	return mask
}

// configureEvents writes the filter's constants into an object and sizes its lists, which are the same in
// all objects. An object that sends no events has none of them.
func configureEvents(spec *ebpf.CollectionSpec, o Options) error {
	f := EventFilter{}
	if o.Events != nil {
		f = *o.Events
	}
	stacks := f.Stacks || o.Drops != nil && o.Drops.Stacks
	if m := spec.Maps["drop_stacks"]; m != nil && stacks {
		m.MaxEntries = bpfobj.DropsStacks
		if err := set(spec, "cfg_stacks", uint32(1)); err != nil {
			return err
		}
	}
	if spec.Maps["filter_spis"] == nil {
		return nil
	}
	var errs []error
	if len(f.Kinds) > 0 {
		errs = append(errs, set(spec, "cfg_kinds", bits(f.Kinds)))
	}
	if len(f.Directions) > 0 {
		errs = append(errs, set(spec, "cfg_directions", bits(f.Directions)))
	}
	var lists uint32
	for _, list := range []struct {
		bit  uint32
		name string
		n    int
	}{
		{filterSPI, "filter_spis", len(f.SPIs)}, {filterPeer, "filter_peers", len(f.Peers)},
		{filterReqID, "filter_reqids", len(f.ReqIDs)}, {filterDevice, "filter_devices", len(f.Devices)},
	} {
		if list.n > 0 {
			lists |= list.bit
			errs = append(errs, resize(spec, list.name, uint32(list.n)))
		}
	}
	if len(f.ReqIDs) > 0 {
		errs = append(errs, resize(spec, "filter_sas", filteredSAs))
	}
	return errors.Join(append(errs, set(spec, "cfg_filter", lists))...)
}

// filterMap finds one of the lists in whatever object has been loaded; nil: none sends events.
func (s *Set) filterMap(name string) *ebpf.Map {
	if s.wire != nil && s.wire.maps.Maps[name] != nil {
		return s.wire.maps.Maps[name]
	}
	if s.stack != nil && s.stack.coll.Maps[name] != nil {
		return s.stack.coll.Maps[name]
	}
	for _, o := range s.objects {
		if m := o.coll.Maps[name]; m != nil {
			return m
		}
	}
	return nil
}

// Stacks is the table of kernel stacks that drops come with; nil: none were asked for.
func (s *Set) Stacks() *ebpf.Map {
	if s.plan.Options.Events == nil || !s.plan.Options.Events.Stacks {
		return nil
	}
	return s.filterMap("drop_stacks")
}

// fillFilter writes the lists. Until then nothing passes a list, so no unwanted event is ever sent.
func (s *Set) fillFilter() error {
	f := s.plan.Options.Events
	if f == nil || s.filterMap("filter_spis") == nil {
		return nil
	}
	put := func(name string, key any) error {
		if err := s.filterMap(name).Put(key, uint8(1)); err != nil {
			return fmt.Errorf("filter events: write %s: %w", name, err)
		}
		return nil
	}
	for _, spi := range f.SPIs {
		if err := put("filter_spis", spi); err != nil {
			return err
		}
	}
	for _, p := range f.Peers {
		key := peerKey{Bits: uint32(p.Bits()), Addr: p.Addr().As16()}
		if p.Addr().Is4() {
			key.Bits += 96
		}
		if err := put("filter_peers", key); err != nil {
			return err
		}
	}
	for _, id := range f.ReqIDs {
		if err := put("filter_reqids", id); err != nil {
			return err
		}
	}
	for _, index := range f.Devices {
		if err := put("filter_devices", index); err != nil {
			return err
		}
	}
	return s.FollowSAs(s.plan.Options.SAs)
}

// FollowSAs tells the programs which SAs have the wanted reqids, now. SAs that are gone stay in the list
// until there is no room: their last packets may still come.
func (s *Set) FollowSAs(sas []ledger.SADEntry) error {
	f := s.plan.Options.Events
	list := s.filterMap("filter_sas")
	if f == nil || len(f.ReqIDs) == 0 || list == nil {
		return nil
	}
	wanted := make(map[uint32]bool, len(f.ReqIDs))
	for _, id := range f.ReqIDs {
		wanted[id] = true
	}
	for i := range sas {
		if !wanted[sas[i].ReqID] {
			continue
		}
		key := wantedSA{Dst: sas[i].Key.Dst.As16(), SPI: uint32(sas[i].Key.SPI)}
		err := list.Put(key, uint8(1))
		if errors.Is(err, ebpf.ErrKeyExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("filter events by reqid: note SA %s: %w", sas[i].Key.SPI, err)
		}
	}
	return nil
}
