// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// inBins and outBins are what the tests below look at.
type inBins struct{ arrivals, lostInHost, decapsulated, inner, delivered, unattributed int64 }
type outBins struct{ encapsulated, onWire, lost, unattributed int64 }

func inboundOf(t *testing.T, r ledger.Report) inBins {
	b := find(t, r, spi, ledger.In).Ledger.In
	return inBins{*b.Arrivals, *b.LostInHost, *b.Decapsulated, *b.InnerDropped, *b.Delivered, *b.Unattributed}
}

func outboundOf(t *testing.T, r ledger.Report) outBins {
	b := find(t, r, 2, ledger.Out).Ledger.Out
	return outBins{*b.Encapsulated, *b.OnWire, *b.LostInHostEgress, *b.Unattributed}
}

// TestDropsFindTheirBin: 100 packets each way pass, and 7 are dropped as each row says.
func TestDropsFindTheirBin(t *testing.T) {
	healthyIn, healthyOut := inBins{100, 0, 100, 0, 100, 0}, outBins{100, 100, 0, 0}
	for _, tc := range []struct {
		name   string
		happen func(w *ledgertest.World, in, out *ledgertest.SA)
		in     inBins
		out    outBins
	}{
		{"before xfrm", func(_ *ledgertest.World, in, _ *ledgertest.SA) { in.Stop(7, "nf_hook_slow", "NETFILTER_DROP", "input") },
			inBins{107, 7, 100, 0, 100, 0}, healthyOut},
		{"before xfrm, by UDP, of a kernel without reasons", func(_ *ledgertest.World, in, _ *ledgertest.SA) { in.Stop(7, "__udp4_lib_rcv", "", "input") },
			inBins{107, 7, 100, 0, 100, 0}, healthyOut},
		{"after decryption, by UDP, of a kernel without reasons", func(_ *ledgertest.World, in, _ *ledgertest.SA) { in.Swallow(7, "__udp4_lib_rcv", "", "") },
			inBins{107, 0, 107, 0, 107, 0}, healthyOut},
		{"after decryption", func(_ *ledgertest.World, in, _ *ledgertest.SA) { in.Swallow(7, "ip_error", "", "") },
			inBins{107, 0, 107, 7, 100, 0}, healthyOut},
		{"read by a socket", func(_ *ledgertest.World, in, _ *ledgertest.SA) {
			in.Swallow(7, "tcp_rcv_state_process", "TCP_ACK_UNSENT_DATA", "")
		}, inBins{107, 0, 107, 0, 107, 0}, healthyOut},
		{"a socket's buffer is full", func(_ *ledgertest.World, in, _ *ledgertest.SA) {
			in.Swallow(7, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF", "")
		}, inBins{107, 0, 107, 7, 100, 0}, healthyOut},
		{"a ping's answer, read by a raw socket", func(_ *ledgertest.World, in, _ *ledgertest.SA) { in.Swallow(7, "icmp_rcv", "NO_SOCKET", "") },
			inBins{107, 0, 107, 0, 107, 0}, healthyOut},
		{"sent by a driver", func(_ *ledgertest.World, in, _ *ledgertest.SA) {
			in.Swallow(7, "e1000_clean_tx_irq", "NOT_SPECIFIED", "")
		},
			inBins{107, 0, 107, 0, 107, 0}, healthyOut},
		{"a copy for packet capture", func(w *ledgertest.World, in, _ *ledgertest.SA) {
			w.Discard(7, in.DropAt(ledger.BeforeXfrm, "tpacket_rcv", ""))
		}, healthyIn, healthyOut},
		{"a filter behind the wire hook", func(_ *ledgertest.World, in, _ *ledgertest.SA) {
			in.Stop(7, "__netif_receive_skb_core.constprop.0", "TC_INGRESS", "")
		}, inBins{107, 7, 100, 0, 100, 0}, healthyOut},
		{"a filter in front of it", func(w *ledgertest.World, in, _ *ledgertest.SA) {
			w.Discard(7, in.DropAt(ledger.BeforeXfrm, "__netif_receive_skb_core", "TC_INGRESS"))
		}, healthyIn, healthyOut},
		{"outbound, before the wire hook", func(_ *ledgertest.World, _, out *ledgertest.SA) {
			out.Withhold(7, "nf_hook_slow", "NETFILTER_DROP", "output")
		}, healthyIn, outBins{107, 100, 7, 0}},
		{"outbound, in the queue behind it", func(_ *ledgertest.World, _, out *ledgertest.SA) { out.Spill(7, "kfree_skb_list_reason", "QDISC_DROP") },
			healthyIn, outBins{107, 100, 7, 0}},
		{"outbound, in a queue that only its module names", func(_ *ledgertest.World, _, out *ledgertest.SA) { out.Spill(7, "tbf_segment_enqueue", "") },
			healthyIn, outBins{107, 100, 7, 0}},
		{"outbound, a filter behind the wire hook", func(_ *ledgertest.World, _, out *ledgertest.SA) { out.Spill(7, "__dev_queue_xmit", "TC_EGRESS") },
			healthyIn, outBins{107, 100, 7, 0}},
		{"outbound, a filter in front of it", func(_ *ledgertest.World, _, out *ledgertest.SA) { out.Withhold(7, "__dev_queue_xmit", "TC_EGRESS", "") },
			healthyIn, outBins{107, 100, 7, 0}},
		{"outbound and taken for inbound", func(w *ledgertest.World, _, out *ledgertest.SA) {
			out.Number(7)
			id := out.DropAt(ledger.BeforeXfrm, "nf_hook_slow", "")
			id.Key.Direction = ledger.In
			w.Discard(7, id)
		}, healthyIn, outBins{107, 100, 7, 0}},
		{"what no hook saw is still missing", func(_ *ledgertest.World, in, out *ledgertest.SA) { in.Vanish(3); out.Number(4) },
			inBins{103, 0, 100, 0, 100, 3}, outBins{104, 100, 0, 4}},
		{"of no SA", func(w *ledgertest.World, in, _ *ledgertest.SA) {
			w.Discard(7, ledger.DropID{Stage: ledger.IKEPacket, Src: ledgertest.Peer, Key: ledger.SAKey{Dst: ledgertest.Here, Direction: ledger.In},
				SrcPort: 500, DstPort: 500, Function: "nf_hook_slow"})
		}, healthyIn, healthyOut},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := ledgertest.New()
			in, out := w.Inbound(spi, 32, false), w.Outbound(2)
			in.Stop(5, "nf_hook_slow", "", "input") // before the baseline
			r := w.Run(func() { in.Deliver(100); out.Send(100); tc.happen(w, in, out) })
			opt := cmp.AllowUnexported(inBins{}, outBins{})
			if diff := cmp.Diff(tc.in, inboundOf(t, r), opt); diff != "" {
				t.Errorf("inbound (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.out, outboundOf(t, r), opt); diff != "" {
				t.Errorf("outbound (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDropList: what is alike is one row, a keepalive that xfrm takes out is none, and the hook is
// told where netfilter dropped.
func TestDropList(t *testing.T) {
	w := ledgertest.New()
	in := w.Inbound(spi, 32, false)
	r := w.Run(func() {
		in.Stop(4, "nf_hook_slow", "NETFILTER_DROP", "prerouting")
		in.Stop(2, "ip_rcv_finish_core", "IP_RPFILTER", "prerouting")
		alive := ledger.DropID{Stage: ledger.Keepalive, Key: ledger.SAKey{Dst: ledgertest.Here, Direction: ledger.In},
			Src: ledgertest.Peer, SrcPort: 4500, DstPort: 4500, Function: "xfrm4_udp_encap_rcv"}
		w.Discard(9, alive)
		w.Discard(1, in.DropAt(ledger.BeforeXfrm, "packet_rcv", ""))
		w.Discard(3, ledger.DropID{Stage: ledger.BeforeXfrm, Key: ledger.SAKey{Dst: ledgertest.Here, SPI: 0xdead, Proto: ledger.ESP, Direction: ledger.In},
			Src: ledgertest.Peer, Function: "dummy_driver_poll"})
	})
	common := ledger.Drop{Stage: ledger.BeforeXfrm, SPI: spi, Dst: ledgertest.Here, Src: ledgertest.Peer, Proto: ledger.ESP,
		Direction: ledger.In, KnownSA: true, Ifindex: 3, Lost: true}
	filtered, spoofed, alien := common, common, common
	filtered.Place, filtered.Function, filtered.Reason, filtered.Hook, filtered.Packets =
		ledger.PlaceNetfilter, "nf_hook_slow", "NETFILTER_DROP", "prerouting", 4
	spoofed.Place, spoofed.Function, spoofed.Reason, spoofed.Packets = ledger.PlaceRPFilter, "ip_rcv_finish_core", "IP_RPFILTER", 2
	alien.SPI, alien.KnownSA, alien.Place, alien.Function, alien.Ifindex, alien.Lost, alien.Packets =
		0xdead, false, ledger.PlaceDriver, "dummy_driver_poll", 0, false, 3
	if diff := cmp.Diff([]ledger.Drop{filtered, alien, spoofed}, r.Drops, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestChecks: each report says what was held against what.
func TestChecks(t *testing.T) {
	w := ledgertest.New()
	in, out := w.Inbound(spi, 32, false), w.Outbound(2)
	r := w.Run(func() { in.Deliver(100); in.Reorder(4, 50); in.Vanish(1); out.Send(50) })
	sa := spi.String() + " to " + ledgertest.Here.String()
	want := []ledger.Check{
		{Source: "/proc/net/xfrm_stat", Counter: "XfrmInStateSeqError", Ledger: 4, Kernel: 4, Agrees: true},
		{Source: "SA database", Counter: "replay_window", SA: sa, Ledger: 4, Kernel: 4, Agrees: true},
		{Source: "SA database", Counter: "curlft.packets", SA: sa, Ledger: 101, Kernel: 100},
		{Source: "SA database", Counter: "oseq", SA: "0x00000002 to " + ledgertest.Peer.String(), Ledger: 50, Kernel: 50, Agrees: true},
	}
	if diff := cmp.Diff(want, r.Kernel.Checks); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
