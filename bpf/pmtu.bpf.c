//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Path MTU: packets that are too big, who is told so, who believes it, and what is cut up instead.
 * All hooks lie where a packet did not fit or where an ICMP message is made, so that nothing runs
 * while everything fits.
 *
 *   icmp_send         fentry on __icmp_send: IPv4 fragmentation needed, reassembly time exceeded
 *   icmp_out          ... icmp_out_count: the message of icmp_send really left
 *   icmp6_send        ... icmp6_send: IPv6 packet too big, reassembly time exceeded
 *   local_error4      ... xfrm4_local_error: a socket of this host is told instead. What calls it,
 *                     xfrm_local_error, is inline in some kernels (5.10); this it calls by a pointer
 *   local_error6      ... xfrm6_local_error
 *   esp4_told         ... xfrm4_esp_err: fragmentation needed, for an ESP packet of this host
 *   esp6_told         ... xfrm6_esp_err: packet too big, the same
 *   udp4_told         ... udp_err: the same for ESP in UDP
 *   udp6_told_kprobe  the same over IPv6: a kprobe on __udp6_lib_err, or
 *   udp6_whole        fentry on udpv6_err
 *   route4_takes      ... __ip_rt_update_pmtu: a route is given a smaller MTU
 *   route6_takes      ... rt6_do_update_pmtu
 *   ip4_cuts          ... ip_do_fragment: a packet is cut up
 *   ip6_cuts          ... ip6_fragment
 *   *_kprobe          the same as kprobes
 *   pick_netns        run by the loader through BPF_PROG_TEST_RUN, attached to nothing
 *
 * Keep of each the fentry program or its twin. Each stands by itself but icmp_out, which adds to what
 * icmp_send counts.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"
#include "xfrm.h"

#include "entry.h"
#include "netns.h"
#include "pmtu_packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct pmtu_telling *telling(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&pmtu_telling, &key);
}

/* `info` is the next hop's MTU in network order for fragmentation needed (RFC 1191 section 4). */
static __always_inline int on_icmp_send(struct sk_buff *skb, int type, int code, __be32 info)
{
	struct pmtu_telling *t = telling();
	struct pmtu_event e = {};

	if (t)
		t->open = 0;
	if (type == ICMP_DEST_UNREACH && code == ICMP_FRAG_NEEDED)
		e.key.kind = PMTU_TELL_SENDER;
	else if (type == ICMP_TIME_EXCEEDED && code == ICMP_EXC_FRAGTIME)
		e.key.kind = PMTU_REASM_EXPIRED;
	else
		return 0;
	if (skb_netns(PROBED, skb) != target_net || !describe(&e, skb, network_header(skb), true))
		return 0;
	if (e.key.kind == PMTU_TELL_SENDER) {
		e.key.mtu = bpf_ntohl(info);
		name_sa(&e, skb);
		if (t) {
			t->key = e.key;
			t->open = 1;
		}
	}
	pmtu_record(&pmtu_own, &e);
	return 0;
}

static __always_inline int on_icmp_out(struct net *net, __u8 type)
{
	struct pmtu_telling *t;
	struct pmtu_count *c;

	if (type != ICMP_DEST_UNREACH || net != target_net)
		return 0;
	t = telling();
	if (!t || !t->open)
		return 0;
	t->open = 0;
	c = bpf_map_lookup_elem(&pmtu_own, &t->key);
	if (c)
		__sync_fetch_and_add(&c->sent, 1);
	return 0;
}

static __always_inline int on_icmp6_send(struct sk_buff *skb, __u8 type, __u8 code, __u32 info)
{
	struct pmtu_event e = {};

	if (type == ICMPV6_PKT_TOOBIG)
		e.key.kind = PMTU_TELL_SENDER;
	else if (type == ICMPV6_TIME_EXCEED && code == ICMPV6_EXC_FRAGTIME)
		e.key.kind = PMTU_REASM_EXPIRED;
	else
		return 0;
	if (skb_netns(PROBED, skb) != target_net || !describe(&e, skb, network_header(skb), true))
		return 0;
	if (e.key.kind == PMTU_TELL_SENDER) {
		e.key.mtu = info;
		name_sa(&e, skb);
		pmtu_add(PMTU_TOTAL_TOO_BIG_V6);
	}
	pmtu_record(&pmtu_own, &e);
	return 0;
}

static __always_inline int on_local_error(struct sk_buff *skb, __u32 mtu)
{
	struct pmtu_event e = {};

	if (skb_netns(PROBED, skb) != target_net || !describe(&e, skb, network_header(skb), true))
		return 0;
	e.key.kind = PMTU_TELL_SOCKET;
	e.key.mtu = mtu;
	name_sa(&e, skb);
	pmtu_record(&pmtu_own, &e);
	return 0;
}

/*
 * An ICMP error handler runs with the quoted packet at skb->data, the ICMP header at the transport
 * header and the IP header of the message at the network header (icmp_rcv(), icmpv6_rcv()).
 */
static __always_inline int told(struct sk_buff *skb, __u32 mtu, __u32 took)
{
	struct pmtu_event e = {};
	const __be16 *ports = (const __be16 *)&e.ports;
	void *ip = network_header(skb);
	__u8 version;

	if (!describe(&e, skb, packet_data(skb), false))
		return 0;
	/* Of UDP only what ESP in UDP makes use of. A short quotation ends before the SPI. */
	if (e.key.proto == IPPROTO_UDP && !e.key.spi && !natt_port(ports[0]) && !natt_port(ports[1]))
		return 0;
	e.key.kind = PMTU_TOLD;
	e.key.mtu = mtu;
	e.took = took;
	if (packet_read(&version, 1, (void *)skb, ip)) {
		if (version >> 4 == 4)
			read_address(PROBED, e.reporter, ip + __builtin_offsetof(struct iphdr, saddr), 4);
		else
			read_address(PROBED, e.reporter, ip + __builtin_offsetof(struct ipv6hdr, saddr), 6);
	}
	pmtu_record(&pmtu_told, &e);
	return 0;
}

static __always_inline int on_told4(struct sk_buff *skb, __u32 info)
{
	struct icmphdr h;

	if (skb_netns(PROBED, skb) != target_net ||
	    bpf_probe_read_kernel(&h, sizeof(h), transport_header(skb)))
		return 0;
	if (h.type != ICMP_DEST_UNREACH || h.code != ICMP_FRAG_NEEDED)
		return 0;
	return told(skb, bpf_ntohs(h.mtu), info);
}

static __always_inline int on_told6(struct sk_buff *skb, __u8 type)
{
	__be32 mtu;

	if (type != ICMPV6_PKT_TOOBIG || skb_netns(PROBED, skb) != target_net)
		return 0;
	if (bpf_probe_read_kernel(&mtu, sizeof(mtu), transport_header(skb) + 4))
		return 0;
	return told(skb, bpf_ntohl(mtu), bpf_ntohl(mtu));
}

static __always_inline int on_route4(struct rtable *rt, struct flowi4 *flow, __u32 mtu)
{
	struct pmtu_event e = {};

	if (BPF_CORE_READ(rt, dst.dev, nd_net.net) != target_net)
		return 0;
	e.key.kind = PMTU_APPLIED;
	e.key.family = 4;
	e.key.mtu = mtu;
	read_address(PROBED, e.key.dst, &flow->daddr, 4);
	pmtu_record(&pmtu_told, &e);
	return 0;
}

static __always_inline int on_route6(struct rt6_info *rt, __u32 mtu)
{
	struct pmtu_event e = {};

	if (BPF_CORE_READ(rt, dst.dev, nd_net.net) != target_net)
		return 0;
	e.key.kind = PMTU_APPLIED;
	e.key.family = 6;
	e.key.mtu = mtu;
	read_address(PROBED, e.key.dst, &rt->rt6i_dst.addr, 6);
	pmtu_record(&pmtu_told, &e);
	return 0;
}

static __always_inline int on_cut(struct net *net, struct sk_buff *skb, __u8 family)
{
	struct pmtu_event e = {};

	if (net != target_net || !describe(&e, skb, network_header(skb), true))
		return 0;
	e.key.kind = PMTU_FRAGMENTED;
	e.key.mtu = route_mtu(skb_route(PROBED, skb), family);
	pmtu_record(&pmtu_own, &e);
	return 0;
}

/* ip6_fragment() is also asked to cut what must not be cut, and then calls icmp6_send(). */
static __always_inline int on_cut6(struct net *net, struct sk_buff *from)
{
	struct sk_buff___pmtu *skb = (void *)from;

	if (!BPF_CORE_READ_BITFIELD_PROBED(skb, ignore_df))
		return 0;
	return on_cut(net, from, 6);
}

ON_ENTRY(__icmp_send, icmp_send, on_icmp_send(skb, type, code, info), struct sk_buff *skb, int type, int code,
	 __be32 info)
ON_ENTRY(icmp_out_count, icmp_out, on_icmp_out(net, type), struct net *net, unsigned char type)
ON_ENTRY(icmp6_send, icmp6_send, on_icmp6_send(skb, type, code, info), struct sk_buff *skb, __u8 type,
	 __u8 code, __u32 info)
ON_ENTRY(xfrm4_local_error, local_error4, on_local_error(skb, mtu), struct sk_buff *skb, __u32 mtu)
ON_ENTRY(xfrm6_local_error, local_error6, on_local_error(skb, mtu), struct sk_buff *skb, __u32 mtu)
ON_ENTRY(xfrm4_esp_err, esp4_told, on_told4(skb, info), struct sk_buff *skb, __u32 info)
ON_ENTRY(xfrm6_esp_err, esp6_told, on_told6(skb, type), struct sk_buff *skb, void *opt, __u8 type)
ON_ENTRY(udp_err, udp4_told, on_told4(skb, info), struct sk_buff *skb, __u32 info)

/*
 * udpv6_err is inline as long as there is UDP-Lite (before 7.x), and what is inline is not traced. What
 * it calls then has seven arguments, one more than fentry takes before 6.6, so that a kprobe must do.
 */
SEC("kprobe/__udp6_lib_err")
int BPF_KPROBE(udp6_told_kprobe, struct sk_buff *skb, void *opt, __u8 type)
{
	return on_told6(skb, type);
}

ON_ENTRY(udpv6_err, udp6_whole, on_told6(skb, type), struct sk_buff *skb, void *opt, __u8 type)
ON_ENTRY(__ip_rt_update_pmtu, route4_takes, on_route4(rt, flow, mtu), struct rtable *rt, struct flowi4 *flow,
	 __u32 mtu)
ON_ENTRY(rt6_do_update_pmtu, route6_takes, on_route6(rt, mtu), struct rt6_info *rt, __u32 mtu)
ON_ENTRY(ip_do_fragment, ip4_cuts, on_cut(net, skb, 4), struct net *net, struct sock *sk, struct sk_buff *skb)
ON_ENTRY(ip6_fragment, ip6_cuts, on_cut6(net, skb), struct net *net, struct sock *sk, struct sk_buff *skb)
