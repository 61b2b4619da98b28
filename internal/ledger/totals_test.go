// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"testing"
)

// TestTotalsForget: tunnels that have been without an SA for longest make room for others, and none that has one.
func TestTotalsForget(t *testing.T) {
	const most = 16
	totals := NewTotals()
	totals.max = most
	local := netip.MustParseAddr("192.0.2.1")
	sa := func(i int) SA {
		return SA{
			Direction: In, Dst: local, Src: netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), State: Alive,
			Ledger: Bins{In: &Inbound{Sent: new(int64(1))}},
		}
	}
	remembered := func(i int) bool {
		s := sa(i)
		return totals.Tunnels[s.Tunnel()] != nil
	}
	stays := sa(0)
	for i := 1; i <= 100; i++ {
		totals.Add(Report{SAs: []SA{stays, sa(i)}})
		if n := len(totals.Tunnels); n > most {
			t.Fatalf("%d tunnels are remembered, want at most %d", n, most)
		}
	}
	if u := totals.Tunnels[stays.Tunnel()]; u == nil || *u.In.Sent != 100 {
		t.Errorf("the tunnel that lives all the time: %+v", u)
	}
	if remembered(80) || !remembered(90) || !remembered(100) {
		t.Errorf("remembered: 80th %t, 90th %t, 100th %t; want the newest", remembered(80), remembered(90), remembered(100))
	}
	// As many as there are SAs, whatever the bound.
	var all []SA
	for i := range 3 * most {
		all = append(all, sa(i))
	}
	totals.Add(Report{SAs: all})
	if n := len(totals.Tunnels); n != len(all) {
		t.Errorf("%d tunnels are remembered, want those of the %d SAs", n, len(all))
	}
}
