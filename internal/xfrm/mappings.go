// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"net/netip"
	"slices"

	"xfrmscope/internal/ledger"
)

// mappingsLimit bounds the changes that are remembered; of a peer that moves on and on the newest are.
const mappingsLimit = 1024

// mappings are the announced changes of peers behind NAT, oldest first. The kernel repeats one with every
// packet until the SA is updated, so each is kept once.
type mappings []ledger.MappingReading

func (m *mappings) add(ev Event) {
	from, to := netip.AddrPortFrom(ev.Mapping.OldSrc, ev.Mapping.OldPort), netip.AddrPortFrom(ev.Mapping.NewSrc, ev.Mapping.NewPort)
	for i := range *m {
		r := &(*m)[i]
		if r.Key.SPI == ev.Mapping.Key.SPI && r.Key.Dst == ev.Mapping.Key.Dst && r.Old == from && r.New == to {
			r.Last = ev.At
			r.Announcements++
			return
		}
	}
	if len(*m) == mappingsLimit {
		*m = slices.Delete(*m, 0, 1)
	}
	*m = append(*m, ledger.MappingReading{
		Key: ev.Mapping.Key, ReqID: ev.Mapping.ReqID, Old: from, New: to, First: ev.At, Last: ev.At, Announcements: 1,
	})
}

// Mappings lists the changes of peers behind NAT that were announced since OpenTracker.
func (t *Tracker) Mappings() []ledger.MappingReading {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.mapped)
}
