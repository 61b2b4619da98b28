// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"net/netip"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

const netfilterDrop = "NETFILTER_DROP"

// outbound is a world of one SA from here.
func outbound(happen func(*ledgertest.SA)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		sa := w.Outbound(0xc0ffee02)
		return func() { happen(sa) }
	}
}

// droppedIKE is what a dropped IKE message looks like.
func droppedIKE(src, dst netip.Addr, dir ledger.Direction, function, reason, hook string) ledger.DropID {
	return ledger.DropID{Stage: ledger.IKEPacket, Key: ledger.SAKey{Dst: dst, Direction: dir}, Src: src, SrcPort: 500, DstPort: 500,
		Function: function, Reason: reason, Hook: hook, Ifindex: 3}
}

var stranger = netip.MustParseAddr("203.0.113.66")

var firewallScenarios = []Scenario{
	{Name: "a firewall drops some ESP", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(9995)
		sa.Stop(5, "nf_hook_slow", netfilterDrop, "input")
	}), Want: []verdict.ID{verdict.FirewallDrop}, Says: []string{"5 packets of 10000 (0.05 %)", "at the input hook"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "a firewall drops all ESP", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Stop(40, "nft_do_chain", "", "prerouting") }),
		Want: []verdict.ID{verdict.FirewallDrop}, Says: []string{"40 packets of 40", "prerouting hook"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "a firewall drops ESP on its way out", Prepare: outbound(func(sa *ledgertest.SA) {
		sa.Send(100)
		sa.Withhold(50, "nf_hook_slow", netfilterDrop, "output")
	}), Want: []verdict.ID{verdict.FirewallDrop}, Says: []string{"50 packets of 150", "output hook"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "a firewall lets nothing decrypted pass", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Swallow(40, "nf_hook_slow", netfilterDrop, "forward")
	}), Want: []verdict.ID{verdict.FirewallDrop}, Says: []string{"decrypted packets", "forward hook"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "a firewall refuses some of what was decrypted", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(1000)
		sa.Swallow(4, "nf_hook_slow", netfilterDrop, "forward")
	}), Want: []verdict.ID{verdict.FirewallDrop}, Grade: verdict.Info, Sure: 0.95},
	{Name: "a firewall drops a peer's IKE", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(10)
			w.Discard(6, droppedIKE(ledgertest.Peer, ledgertest.Here, ledger.In, "nf_hook_slow", netfilterDrop, "input"))
		}
	}, Want: []verdict.ID{verdict.FirewallDrop}, Says: []string{"IKE messages from 192.0.2.1"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "a firewall drops this host's own IKE", Prepare: func(w *ledgertest.World) func() {
		return func() {
			w.Discard(6, droppedIKE(ledgertest.Here, ledgertest.Peer, ledger.Out, "nf_hook_slow", netfilterDrop, "output"))
		}
	}, Want: []verdict.ID{verdict.FirewallDrop}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "a firewall keeps a stranger's IKE out", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(10)
			w.Discard(60, droppedIKE(stranger, ledgertest.Here, ledger.In, "nf_hook_slow", netfilterDrop, "input"))
		}
	}, Want: []verdict.ID{verdict.FirewallDrop}, Says: []string{"may be what the firewall is for"}, Grade: verdict.Info, Sure: 0.95},
	{Name: "IKE that nobody listens for is answered, not filtered", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(10)
			w.Discard(6, droppedIKE(ledgertest.Peer, ledgertest.Here, ledger.In, "__udp4_lib_rcv", "NO_SOCKET", "input"))
		}
	}},
	{Name: "reverse path filter", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Stop(30, "ip_rcv_finish_core", "IP_RPFILTER", "prerouting")
	}), Want: []verdict.ID{verdict.RPFilterDrop}, Says: []string{"30 packets of 30", "route back to 192.0.2.1"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "reverse path filter against a stranger", Leaky: true, Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(10)
			id := sa.DropAt(ledger.BeforeXfrm, "ip_rcv_finish_core", "IP_RPFILTER")
			id.Key.SPI, id.Src = 0xdead, stranger
			w.Discard(9, id)
		}
	}},
	{Name: "no route after decryption", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Swallow(25, "ip_error", "NOT_SPECIFIED", "") }),
		Want: []verdict.ID{verdict.NoRouteAfterDecap}, Says: []string{"25 packets of 25"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "a few find no route", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(1000); sa.Swallow(3, "ip_error", "", "") }),
		Want: []verdict.ID{verdict.NoRouteAfterDecap}, Grade: verdict.Info, Sure: 0.95},
	{Name: "a queue spills", Prepare: outbound(func(sa *ledgertest.SA) { sa.Send(900); sa.Spill(100, "kfree_skb_list_reason", "QDISC_DROP") }),
		Want: []verdict.ID{verdict.EgressDrop}, Says: []string{"100 packets of 1000", "100 in the queue"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "no neighbour", Prepare: outbound(func(sa *ledgertest.SA) { sa.Send(1); sa.Withhold(3, "arp_error_report", "NEIGH_FAILED", "") }),
		Want: []verdict.ID{verdict.EgressDrop}, Says: []string{"next hop's link address"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "a driver that frees what it has sent", Prepare: outbound(func(sa *ledgertest.SA) { sa.Spill(500, "e1000_clean_tx_irq", "NOT_SPECIFIED") })},
	{Name: "backlog", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(100); sa.Stop(4, "enqueue_to_backlog", "CPU_BACKLOG", "") }),
		Want: []verdict.ID{verdict.HostIngressDrop}, Says: []string{"input queue was full"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "dropped in front of the wire hook", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(100)
			w.Discard(4, sa.DropAt(ledger.BeforeXfrm, "enqueue_to_backlog", "CPU_BACKLOG"))
		}
	}, Want: []verdict.ID{verdict.HostIngressDrop}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "what is missing was dropped in front of the wire hook", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(100)
			sa.Lose(4)
			sa.Deliver(100)
			w.Discard(4, sa.DropAt(ledger.BeforeXfrm, "enqueue_to_backlog", "CPU_BACKLOG"))
		}
	}, Want: []verdict.ID{verdict.HostIngressDrop}, Folded: []verdict.ID{verdict.PathLoss}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "more is missing than was dropped in front of it", Prepare: func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(100)
			sa.Lose(9)
			sa.Deliver(100)
			w.Discard(4, sa.DropAt(ledger.BeforeXfrm, "enqueue_to_backlog", "CPU_BACKLOG"))
		}
	}, Want: []verdict.ID{verdict.HostIngressDrop, verdict.PathLoss}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "a slow reader", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(1000)
		sa.Swallow(20, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF", "")
	}), Want: []verdict.ID{verdict.DecryptedPacketDropped}, Says: []string{"at their socket"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "nobody listens on a port", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(100)
		sa.Swallow(20, "__udp4_lib_rcv", "NO_SOCKET", "")
	}), Want: []verdict.ID{verdict.DecryptedPacketDropped}, Grade: verdict.Info, Sure: 0.95},
	{Name: "a hop limit ends", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(100); sa.Swallow(3, "ip_forward", "IP_INHDR", "") }),
		Want: []verdict.ID{verdict.DecryptedPacketDropped}, Grade: verdict.Info, Sure: 0.95},
	{Name: "TCP frees what it has read", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Deliver(100)
		sa.Swallow(3, "tcp_rcv_state_process", "NOT_SPECIFIED", "")
	})},
}
