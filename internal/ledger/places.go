// SPDX-License-Identifier: Apache-2.0

package ledger

import "strings"

// Place is the part of the kernel that dropped a packet, concluded from the drop reason where the
// kernel gives one and from the function that freed it otherwise.
type Place string

// The places.
const (
	PlaceNetfilter Place = "netfilter" // nftables, iptables, connection tracking
	PlaceRPFilter  Place = "rp_filter" // reverse path filter
	PlaceRoute     Place = "route"     // no route, or one that refuses
	PlaceForward   Place = "forward"   // routed packets: hop limit, size, forwarding off
	PlaceNeighbour Place = "neighbour" // no link address for the next hop
	PlaceQueue     Place = "queue"     // queueing discipline, or the device would not take it
	PlaceTC        Place = "tc"        // a traffic control filter or action
	PlaceXDP       Place = "xdp"
	PlaceBacklog   Place = "backlog" // a CPU's input queue
	PlaceFragment  Place = "fragment"
	PlaceHeader    Place = "header" // checksum, length, options
	PlaceSocket    Place = "socket" // it reached the transport layer
	PlaceXfrm      Place = "xfrm"   // inside xfrm, but no counter moved
	PlaceIP        Place = "ip"     // elsewhere in IP
	PlaceDevice    Place = "device" // a virtual device's driver
	PlaceTap       Place = "tap"    // a copy made for packet capture
	PlaceDriver    Place = "driver" // somewhere that also frees what it has sent or delivered
)

var placeOfReason = map[string]Place{
	"NETFILTER_DROP": PlaceNetfilter, "IP_RPFILTER": PlaceRPFilter,
	"IP_OUTNOROUTES": PlaceRoute, "IP_INNOROUTES": PlaceRoute, "IP_INVALID_DEST": PlaceRoute,
	"IP_INVALID_SOURCE": PlaceRoute, "IP_LOCALNET": PlaceRoute, "IP_LOCAL_SOURCE": PlaceRoute,
	"NEIGH_CREATEFAIL": PlaceNeighbour, "NEIGH_FAILED": PlaceNeighbour, "NEIGH_QUEUEFULL": PlaceNeighbour,
	"NEIGH_DEAD": PlaceNeighbour, "NEIGH_HH_FILLFAIL": PlaceNeighbour,
	"TC_EGRESS": PlaceTC, "TC_INGRESS": PlaceTC, "TC_ERROR": PlaceTC, "XDP": PlaceXDP,
	"CPU_BACKLOG": PlaceBacklog, "FULL_RING": PlaceDevice, "DEV_READY": PlaceDevice, "DEV_HDR": PlaceDevice,
	"IP_CSUM": PlaceHeader, "IP_INHDR": PlaceHeader, "IP_NOPROTO": PlaceHeader, "PKT_TOO_SMALL": PlaceHeader,
	"IPV6DISABLED": PlaceHeader, "IPV6_BAD_EXTHDR": PlaceHeader,
	"FRAG_REASM_TIMEOUT": PlaceFragment, "FRAG_TOO_FAR": PlaceFragment, "DUP_FRAG": PlaceFragment,
	"IPV6_NDISC_FRAG": PlaceFragment,
	"NO_SOCKET":       PlaceSocket, "SOCKET_RCVBUFF": PlaceSocket, "SOCKET_FILTER": PlaceSocket,
	"SOCKET_BACKLOG": PlaceSocket, "UDP_CSUM": PlaceSocket, "TCP_CSUM": PlaceSocket, "ICMP_CSUM": PlaceSocket,
	"PROTO_MEM": PlaceSocket, "SKB_UCOPY_FAULT": PlaceSocket, "PACKET_SOCK_ERROR": PlaceTap,
}

// placeOfFunction goes by the beginning of a function's name; the longest that fits wins. A function
// that is not here may belong to a driver, and drivers free what they have sent with the same call.
var placeOfFunction = map[string]Place{
	"nf_": PlaceNetfilter, "nft_": PlaceNetfilter, "ipt_": PlaceNetfilter, "ip6t_": PlaceNetfilter, "xt_": PlaceNetfilter,
	"br_nf_": PlaceNetfilter, "nfqnl_": PlaceNetfilter, "__nfqnl_": PlaceNetfilter,
	"fib_validate_source": PlaceRPFilter,
	"ip_error":            PlaceRoute, "ip_route_": PlaceRoute, "ip_rcv_finish": PlaceRoute, "ip_rcv_finish_core": PlaceRoute,
	"ip_sublist_rcv": PlaceRoute, "ip_list_rcv_finish": PlaceRoute,
	"ip6_pkt_drop": PlaceRoute, "ip6_pkt_discard": PlaceRoute, "ip6_pkt_prohibit": PlaceRoute, "dst_discard": PlaceRoute,
	"ip_forward": PlaceForward, "ip6_forward": PlaceForward, "ip_mr_": PlaceForward, "ip6_mr_": PlaceForward,
	"neigh_": PlaceNeighbour, "__neigh_": PlaceNeighbour, "arp_": PlaceNeighbour, "ndisc_": PlaceNeighbour,
	"ip_finish_output2": PlaceNeighbour, "ip6_finish_output2": PlaceNeighbour,
	"__dev_queue_xmit": PlaceQueue, "__dev_xmit_skb": PlaceQueue, "dev_queue_xmit": PlaceQueue, "sch_direct_xmit": PlaceQueue,
	"kfree_skb_list": PlaceQueue, "__kfree_skb_list": PlaceQueue, "__qdisc_": PlaceQueue, "qdisc_": PlaceQueue,
	"dev_qdisc_": PlaceQueue, "dev_hard_start_xmit": PlaceQueue, "validate_xmit_": PlaceQueue, "rtnl_kfree_skbs": PlaceQueue,
	"tcf_": PlaceTC, "tcf_kfree_skb_list": PlaceQueue, "__tcf_": PlaceTC, "sch_handle_egress": PlaceTC, "sch_handle_ingress": PlaceTC, "tc_run": PlaceTC,
	"__netif_receive_skb_core": PlaceTC, "__netif_receive_skb": PlaceTC,
	"netif_receive_generic_xdp": PlaceXDP, "do_xdp_generic": PlaceXDP, "bpf_prog_run_generic_xdp": PlaceXDP,
	"enqueue_to_backlog": PlaceBacklog, "netif_rx": PlaceBacklog, "gro_cells_": PlaceBacklog, "flush_backlog": PlaceBacklog,
	"process_backlog": PlaceBacklog, "xfrm_trans_queue": PlaceBacklog,
	"inet_frag": PlaceFragment, "ip_expire": PlaceFragment, "ip_defrag": PlaceFragment, "ip_frag_": PlaceFragment,
	"ip6_frag_": PlaceFragment, "ip6frag_": PlaceFragment, "ipv6_frag_": PlaceFragment, "nf_ct_frag6_": PlaceFragment,
	"ip_do_fragment": PlaceFragment, "ip_fragment": PlaceFragment, "ip6_fragment": PlaceFragment,
	"ip_finish_output": PlaceFragment, "ip6_finish_output": PlaceFragment,
	"ip_rcv_core": PlaceHeader, "ip6_rcv_core": PlaceHeader, "ip_rcv": PlaceHeader, "ipv6_rcv": PlaceHeader,
	"ip_local_deliver": PlaceIP, "ip_protocol_deliver_rcu": PlaceIP, "ip6_protocol_deliver_rcu": PlaceIP,
	"ip6_input": PlaceIP, "ip6_rcv_finish": PlaceRoute, "ip_output": PlaceIP, "ip_mc_": PlaceIP, "ip6_output": PlaceIP,
	"__ip_local_out": PlaceIP, "ip_local_out": PlaceIP, "ip6_local_out": PlaceIP, "ip_options": PlaceHeader,
	"ip_": PlaceIP, "ip6_": PlaceIP, "ipv6_": PlaceIP, "__ip": PlaceIP, "ip4_": PlaceIP, "ip6_route_": PlaceRoute, "dst_": PlaceRoute, "rt_": PlaceRoute, "rt6_": PlaceRoute,
	"udp_": PlaceSocket, "__udp": PlaceSocket, "udpv6_": PlaceSocket, "udp6_": PlaceSocket, "__udp4_": PlaceSocket,
	"tcp_": PlaceSocket, "__tcp_": PlaceSocket, "icmp_": PlaceSocket, "icmpv6_": PlaceSocket, "ping_": PlaceSocket,
	"raw_": PlaceSocket, "rawv6_": PlaceSocket, "sock_": PlaceSocket, "__sock_": PlaceSocket, "sk_": PlaceSocket,
	"inet_": PlaceSocket, "inet6_": PlaceSocket, "skb_queue_": PlaceSocket, "__skb_queue_": PlaceSocket,
	"skb_free_datagram": PlaceSocket, "__sk_": PlaceSocket, "sctp_": PlaceSocket, "dccp_": PlaceSocket,
	"skb_errqueue_": PlaceSocket, "igmp_": PlaceSocket, "espintcp_": PlaceSocket, "pskb_": PlaceIP,
	"packet_": PlaceTap, "tpacket_": PlaceTap, "prb_": PlaceTap, "__packet_": PlaceTap,
	"xfrm": PlaceXfrm, "__xfrm": PlaceXfrm, "esp_": PlaceXfrm, "esp4_": PlaceXfrm, "esp6_": PlaceXfrm, "vti": PlaceXfrm,
	"ah_": PlaceXfrm, "ah4_": PlaceXfrm, "ah6_": PlaceXfrm, "xdst_": PlaceXfrm, "iptfs_": PlaceXfrm,
	"veth_": PlaceDevice, "tun_net_xmit": PlaceDevice, "bond_": PlaceDevice, "vlan_": PlaceDevice,
	"macvlan_": PlaceDevice, "br_": PlaceDevice, "__br_": PlaceDevice, "ipvlan_": PlaceDevice, "vrf_": PlaceDevice,
	"dev_forward_skb": PlaceDevice, "__dev_forward_skb": PlaceDevice,
	"ip_tunnel_": PlaceDevice, "dummy_xmit": PlaceDevice, "internal_dev_recv": PlaceDevice,
}

// place concludes where a packet was dropped.
func (d *DropID) place() Place {
	if p, ok := placeOfReason[d.Reason]; ok {
		return p
	}
	if strings.HasPrefix(d.Reason, "QDISC_") {
		return PlaceQueue
	}
	if d.Reason == "" && d.Function == "__dev_queue_xmit" {
		// Kernels without reasons free what a queue refuses in kfree_skb_list(), so this is a filter.
		return PlaceTC
	}
	best, place := 0, PlaceDriver
	for prefix, p := range placeOfFunction {
		if len(prefix) > best && strings.HasPrefix(d.Function, prefix) {
			best, place = len(prefix), p
		}
	}
	if best > 0 {
		return place
	}
	// Queueing disciplines are many, and all name their functions alike.
	if strings.HasPrefix(d.Module, "sch_") || strings.HasSuffix(d.Function, "_enqueue") || strings.HasSuffix(d.Function, "_dequeue") {
		return PlaceQueue
	}
	if strings.HasPrefix(d.Module, "act_") || strings.HasPrefix(d.Module, "cls_") {
		return PlaceTC
	}
	return PlaceDriver
}

// loss says whether a drop is a packet lost. Not every kfree_skb() is one: the transport layer
// frees what it has dealt with, packet capture its copies, and many drivers what they have sent.
func (d *DropID) loss(p Place) bool {
	switch p {
	case PlaceTap, PlaceDriver:
		return false
	case PlaceSocket:
		switch d.Reason {
		case "NO_SOCKET", "SOCKET_RCVBUFF", "SOCKET_BACKLOG", "SOCKET_FILTER", "UDP_CSUM", "TCP_CSUM", "ICMP_CSUM", "PROTO_MEM":
			// A raw socket takes a copy, and ICMP then frees the original for want of a ping socket.
			return !strings.HasPrefix(d.Function, "icmp")
		}
		// Kernels without reasons: UDP itself frees what it has no socket for, or what is broken. What a socket takes for xfrm is
		// freed elsewhere, if at all.
		return d.Reason == "" && d.Stage == BeforeXfrm && (d.Function == "__udp4_lib_rcv" || d.Function == "__udp6_lib_rcv")
	}
	return true
}

// Loss concludes where a packet was dropped, and whether that is a packet lost.
func (d *DropID) Loss() (Place, bool) {
	p := d.place()
	return p, d.loss(p)
}

// afterWire says whether the egress wire hook (TC) had already seen the packet.
func afterWire(p Place) bool { return p == PlaceQueue || p == PlaceDevice }

// mayPrecedeWire says whether a received packet may have been dropped before the wire hook saw it:
// that depends on the hook and on the order of programs at it.
func mayPrecedeWire(p Place) bool { return p == PlaceTC || p == PlaceXDP || p == PlaceBacklog }
