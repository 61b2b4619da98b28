// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// gateway is a report of so many tunnels, each to a peer of its own, on which all is well, with IKE and connections
// inside.
func gateway(tunnels int) ledger.Report {
	here := netip.MustParseAddr("192.0.2.2")
	r := ledger.Report{IKE: &ledger.IKE{}, Flows: &ledger.Flows{}, PMTU: &ledger.PMTU{}, Host: &ledger.HostReport{}}
	wire := ledger.Wire{Packets: 1000, Unique: 1000, GapHistogram: make([]int64, 16)}
	for i := range tunnels {
		peer := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		in := ledger.SA{SPI: ledger.SPI(2*i + 1), Src: peer, Dst: here, Proto: ledger.ESP, Direction: ledger.In, ReqID: uint32(i + 1),
			State: ledger.Alive, Wire: &wire, Ledger: ledger.Bins{In: &ledger.Inbound{}}}
		out := in
		out.SPI, out.Src, out.Dst, out.Direction, out.Ledger = in.SPI+1, here, peer, ledger.Out, ledger.Bins{Out: &ledger.Outbound{}}
		r.SAs = append(r.SAs, in, out)
		r.IKE.Peers = append(r.IKE.Peers, ledger.IKEPeer{Local: netip.AddrPortFrom(here, 500), Remote: netip.AddrPortFrom(peer, 500)})
		r.PMTU.Paths = append(r.PMTU.Paths, ledger.PMTUPath{SPI: out.SPI, Src: here, Dst: peer, InnerMTU: 1400, MSS4: 1360, MSS6: 1340})
	}
	return r
}

// BenchmarkJudge must not cost more for each tunnel where there are many.
func BenchmarkJudge(b *testing.B) {
	for _, tunnels := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprintf("tunnels=%d", tunnels), func(b *testing.B) {
			r := gateway(tunnels)
			for b.Loop() {
				verdict.Judge(r)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(tunnels), "ns/tunnel")
		})
	}
}

// TestOrder: findings of one kind come in one order, however often the same report is judged.
func TestOrder(t *testing.T) {
	r := gateway(8)
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction == ledger.In {
			sa.Wire = nil
			continue
		}
		asks := ledger.FlowEnd{Addr: netip.MustParseAddr("10.0.0.1"), Port: 1, Packets: 6,
			SA: &ledger.FlowSA{SPI: sa.SPI, Dst: sa.Dst, Proto: sa.Proto, Direction: sa.Direction, ReqID: sa.ReqID}}
		r.Flows.List = append(r.Flows.List, ledger.Flow{Ends: [2]ledger.FlowEnd{asks, {Addr: netip.MustParseAddr("10.0.0.2"), Port: 2}}})
	}
	var want []string
	for range 20 {
		var got []string
		for _, f := range verdict.Judge(r) {
			if f.ID == verdict.OneWayTraffic {
				got = append(got, f.Subject.Src.String())
			}
		}
		if want == nil {
			want = slices.Sorted(slices.Values(got))
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) != 8 {
			t.Fatalf("%d findings (-want +got):\n%s", len(got), diff)
		}
	}
}
