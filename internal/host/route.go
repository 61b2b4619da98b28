// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"xfrmscope/internal/ledger"
)

// maxRoutes bounds how many peers are looked up at a time: each is a question to the kernel.
const maxRoutes = 1024

// Routes asks for the route to the peer of each outbound SA, with the path MTU that the kernel goes by.
// Peers that cannot be reached are left out. It returns nil where routes cannot be asked for.
func (s *Source) Routes(sad []ledger.SADEntry, links []ledger.Link) []ledger.RouteInput {
	if s.links == nil {
		return nil
	}
	mtus := make(map[int]int, len(links))
	for _, l := range links {
		mtus[l.Index] = l.MTU
	}
	out := []ledger.RouteInput{}
	asked := map[[2]netip.Addr]bool{}
	for _, e := range sad {
		pair := [2]netip.Addr{e.Src, e.Key.Dst}
		if e.Key.Direction != ledger.Out || asked[pair] || len(asked) == maxRoutes {
			continue
		}
		asked[pair] = true
		found, err := s.links.RouteGetWithOptions(pair[1].AsSlice(), &netlink.RouteGetOptions{SrcAddr: pair[0].AsSlice()})
		if err != nil || len(found) == 0 {
			// A peer without a route is no failure of reading: its packets go nowhere either.
			continue
		}
		r := found[0]
		out = append(out, ledger.RouteInput{
			Src: pair[0], Dst: pair[1], MTU: r.MTU, Locked: r.MTULock, Ifindex: r.LinkIndex, LinkMTU: mtus[r.LinkIndex],
		})
	}
	return out
}
