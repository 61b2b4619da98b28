// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// TestTopology runs clean traffic between hosts and across a router: the ledger adds up there too.
func TestTopology(t *testing.T) {
	tunnel.Need(t)
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("v%d", family), func(t *testing.T) {
			b := open(t, tunnel.Options{Family: family, Hosts: true, Router: true}, nil)
			b.send(b.tunnel.AtoB[0], 100)
			b.send(b.tunnel.BtoA[0], 100)
			seen := b.finish()
			for spi, flow := range b.flows {
				distinct, repeated := flow.Delivered()
				diff(t, "datagrams delivered by "+name(spi), []int{100, 0}, []int{distinct, repeated})
			}
			in := seen.find(t, b.tunnel.AtoB[0].SPI, "in").Ledger
			diff(t, "ledger in: sent, decapsulated, unattributed", []int64{100, 100, 0},
				[]int64{*in.Sent, *in.Decapsulated, *in.Unattributed})
			out := seen.find(t, b.tunnel.BtoA[0].SPI, "out").Ledger
			diff(t, "ledger out: encapsulated, on the wire, unattributed", []int64{100, 100, 0},
				[]int64{*out.Encapsulated, *out.OnWire, *out.Unattributed})
			b.checkStat(seen, nil)
			seen.checkFindings(t)
			seen.checkSelf(t)
		})
	}
}
