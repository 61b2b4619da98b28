// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"slices"
)

// SiteKind says what a place that frees packets has to do with xfrm: enum site_kind of
// bpf/lib/stack_maps.h.
type SiteKind uint32

// The kinds of places, in the order of enum site_kind.
const (
	SiteInput     SiteKind = iota // xfrm_input() and what it calls
	SiteDeliver                   // policy check of a packet for this host
	SiteForward                   // policy check and look-up of a packet that is routed
	SiteOutput                    // xfrm_output() and what it calls
	SiteLookup                    // other look-ups with a packet at hand
	SiteInterface                 // an xfrm interface or VTI that sends
)

// Site is the code of one function that can free a packet on account of xfrm.
type Site struct {
	Range
	Kind SiteKind
}

// siteFunctions names the functions by whose code a packet is freed after an xfrm counter moved. The
// tracepoint's location is kfree_skb()'s return address, so it lies in the calling function, or in
// that one's caller where the call was the last thing it did (ip_protocol_deliver_rcu() and
// ip6_protocol_deliver_rcu() return nothing, hence their callers). Functions that this kernel has
// inlined, or does not have, are simply not found.
var siteFunctions = map[string]SiteKind{
	// net/xfrm/xfrm_input.c, and IPv6's own look-up by address (xfrm6_input_addr).
	"xfrm_input":               SiteInput,
	"xfrm_input_resume":        SiteInput,
	"xfrm6_input_addr":         SiteInput,
	"ip6_parse_tlv":            SiteInput,
	"ipv6_dest_hao":            SiteInput,
	"ipv6_rthdr_rcv":           SiteInput,
	"ipv6_destopt_rcv":         SiteInput,
	"xfrm_trans_reinject":      SiteInput,
	"espintcp_rcv":             SiteInput,
	"handle_esp":               SiteInput,
	"iptfs_input":              SiteInput,
	"iptfs_input_ordered":      SiteInput,
	"__input_process_payload":  SiteInput,
	"iptfs_complete_inner_skb": SiteInput,

	// Policy checks on the way to a local receiver.
	"ip_protocol_deliver_rcu":  SiteDeliver,
	"ip_local_deliver_finish":  SiteDeliver,
	"ip_local_deliver":         SiteDeliver,
	"ip6_protocol_deliver_rcu": SiteDeliver,
	"ip6_input_finish":         SiteDeliver,
	"ip6_input":                SiteDeliver,
	"raw_rcv":                  SiteDeliver,
	"raw_v4_input":             SiteDeliver,
	"rawv6_rcv":                SiteDeliver,
	"ipv6_raw_deliver":         SiteDeliver,
	"tcp_v4_rcv":               SiteDeliver,
	"tcp_v6_rcv":               SiteDeliver,
	"udp_queue_rcv_one_skb":    SiteDeliver,
	"udp_queue_rcv_skb":        SiteDeliver,
	"udp_unicast_rcv_skb":      SiteDeliver,
	"__udp4_lib_rcv":           SiteDeliver,
	"udp_rcv":                  SiteDeliver,
	"udpv6_queue_rcv_one_skb":  SiteDeliver,
	"udpv6_queue_rcv_skb":      SiteDeliver,
	"udp6_unicast_rcv_skb":     SiteDeliver,
	"__udp6_lib_rcv":           SiteDeliver,
	"udpv6_rcv":                SiteDeliver,
	"icmp_rcv":                 SiteDeliver,
	"icmpv6_rcv":               SiteDeliver,
	"sctp_rcv":                 SiteDeliver,
	"dccp_v4_rcv":              SiteDeliver,
	"dccp_v6_rcv":              SiteDeliver,
	"l2tp_ip_recv":             SiteDeliver,
	"l2tp_ip6_recv":            SiteDeliver,
	"ipip_tunnel_rcv":          SiteDeliver,
	"ipip6_rcv":                SiteDeliver,
	"ip4ip6_rcv":               SiteDeliver,
	"ip6ip6_rcv":               SiteDeliver,
	"ipxip6_rcv":               SiteDeliver,

	// net/ipv4/ip_forward.c, net/ipv6/ip6_output.c, multicast routing.
	"ip_forward":   SiteForward,
	"ip6_forward":  SiteForward,
	"ip_mr_input":  SiteForward,
	"ip6_mr_input": SiteForward,

	// net/xfrm/xfrm_output.c, xfrm_device.c, and the protocols' asynchronous ends.
	"xfrm_output":            SiteOutput,
	"xfrm_output2":           SiteOutput,
	"xfrm_output_resume":     SiteOutput,
	"xfrm_output_one":        SiteOutput,
	"xfrm_output_gso":        SiteOutput,
	"xfrm4_output":           SiteOutput,
	"xfrm6_output":           SiteOutput,
	"__xfrm4_output":         SiteOutput,
	"__xfrm6_output":         SiteOutput,
	"validate_xmit_xfrm":     SiteOutput,
	"xfrm_dev_resume":        SiteOutput,
	"xfrm_dev_direct_output": SiteOutput,
	"esp_output_done":        SiteOutput,
	"esp_output_done_esn":    SiteOutput,
	"esp_xmit":               SiteOutput,
	"esp6_xmit":              SiteOutput,
	"iptfs_output_collect":   SiteOutput,
	"iptfs_output_queued":    SiteOutput,

	// net/xfrm/xfrm_interface_core.c, net/ipv4/ip_vti.c, net/ipv6/ip6_vti.c.
	"xfrmi_xmit":      SiteInterface,
	"xfrmi_xmit2":     SiteInterface,
	"vti_tunnel_xmit": SiteInterface,
	"vti_xmit":        SiteInterface,
	"vti6_tnl_xmit":   SiteInterface,
	"vti6_xmit":       SiteInterface,

	// Look-ups elsewhere: sockets whose route has gone, rerouting in netfilter.
	"__ip_queue_xmit":           SiteLookup,
	"inet6_csk_xmit":            SiteLookup,
	"nf_hook_slow":              SiteLookup,
	"ip_local_out":              SiteLookup,
	"ip6_local_out":             SiteLookup,
	"xdst_queue_output":         SiteLookup,
	"xfrm_policy_queue_process": SiteLookup,
}

// Sites finds them in the symbol table, sorted by address, none overlapping another.
func Sites(symbols *Symbols) []Site {
	var sites []Site
	for name, kind := range siteFunctions {
		for _, r := range symbols.Function(name) {
			sites = append(sites, Site{r, kind})
		}
	}
	slices.SortFunc(sites, func(a, b Site) int { return cmp.Compare(a.Start, b.Start) })
	return slices.CompactFunc(sites, func(a, b Site) bool { return a.Start == b.Start })
}
