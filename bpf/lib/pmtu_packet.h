/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading the packet that an event is about. */
#ifndef XFRMSCOPE_PMTU_PACKET_H
#define XFRMSCOPE_PMTU_PACKET_H

#include "compat.h"
#include "config.h"
#include "pmtu_count.h"
#include "pmtu_kernel.h"
#include "verifier.h"

/*
 * Reads from the linear part of a packet. What lies behind it is memory of the kernel's, too, but not
 * the packet's.
 */
static __always_inline bool packet_read(void *to, __u32 n, struct sk_buff___pmtu *skb, const void *from)
{
	const void *tail = (const void *)BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, tail);

	if (from + n > tail)
		return false;
	return !bpf_probe_read_kernel(to, n, from);
}

static __always_inline bool natt_port(__be16 net_port)
{
	__u16 port = bpf_ntohs(net_port);
	bool found = false;

	UNROLL
	for (int i = 0; i < NATT_PORTS; i++)
		found |= port && port == cfg_natt_ports[i];
	return found;
}

/* Of merged TCP segments the size of one as it was on the wire; else the packet's own. */
static __always_inline __u32 segment_size(struct sk_buff___pmtu *skb, const void *transport, __u32 header,
					  __u8 proto, __u32 size)
{
	struct skb_shared_info *shared = (void *)BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, end);
	__u16 gso = BPF_CORE_READ(shared, gso_size);
	__u8 offset;

	if (!gso || proto != IPPROTO_TCP || !packet_read(&offset, 1, skb, transport + 12))
		return size;
	return header + (offset >> 4) * 4 + gso;
}

/*
 * Addresses, protocol, size and, of ESP, the SPI of the packet whose IP header is at `ip`. False where
 * it is none. `whole` says that the packet is this skb and not one quoted in it.
 */
static __noinline bool describe(struct pmtu_event *e, struct sk_buff *from, const void *ip, bool whole)
{
	struct sk_buff___pmtu *skb = (void *)from;
	struct pmtu_key *k = &e->key;
	const void *transport;
	bool first = true;
	__be16 ports[2];
	__u32 header;
	__be32 spi;
	__u8 version;

	if (!packet_read(&version, 1, skb, ip))
		return false;
	if (version >> 4 == 4) {
		struct iphdr h;

		if (!packet_read(&h, sizeof(h), skb, ip))
			return false;
		header = (h.version_ihl & 15) * 4;
		if (header < sizeof(h))
			return false;
		k->family = 4;
		k->proto = h.protocol;
		e->size = bpf_ntohs(h.tot_len);
		read_address(PROBED, k->src, ip + __builtin_offsetof(struct iphdr, saddr), 4);
		read_address(PROBED, k->dst, ip + __builtin_offsetof(struct iphdr, daddr), 4);
		first = !(h.frag_off & bpf_htons(IP_OFFSET));
	} else if (version >> 4 == 6) {
		struct ipv6hdr h;

		if (!packet_read(&h, sizeof(h), skb, ip))
			return false;
		header = sizeof(h);
		k->family = 6;
		k->proto = h.nexthdr;
		e->size = header + bpf_ntohs(h.payload_len);
		read_address(PROBED, k->src, ip + __builtin_offsetof(struct ipv6hdr, saddr), 6);
		read_address(PROBED, k->dst, ip + __builtin_offsetof(struct ipv6hdr, daddr), 6);
		if (k->proto == IPPROTO_FRAGMENT) {
			struct frag_hdr f;

			if (!packet_read(&f, sizeof(f), skb, ip + header))
				return false;
			k->proto = f.nexthdr;
			first = !(f.frag_off & bpf_htons(IP6_OFFSET));
			header += sizeof(f);
		}
	} else {
		return false;
	}
	transport = ip + header;
	if (whole)
		e->size = segment_size(skb, transport, header, k->proto, e->size);
	if (!first)
		return true;
	if (k->proto == IPPROTO_TCP || k->proto == IPPROTO_UDP)
		packet_read(&e->ports, sizeof(e->ports), skb, transport);
	if (k->proto == IPPROTO_ESP && packet_read(&spi, sizeof(spi), skb, transport))
		k->spi = bpf_ntohl(spi);
	if (k->proto == IPPROTO_UDP && packet_read(ports, sizeof(ports), skb, transport) &&
	    (natt_port(ports[0]) || natt_port(ports[1])) &&
	    packet_read(&spi, sizeof(spi), skb, transport + sizeof(struct udphdr)))
		k->spi = bpf_ntohl(spi);
	return true;
}

static __always_inline void *network_header(struct sk_buff *from)
{
	struct sk_buff___pmtu *skb = (void *)from;

	return BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
}

static __always_inline void *transport_header(struct sk_buff *from)
{
	struct sk_buff___pmtu *skb = (void *)from;

	return BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, transport_header);
}

/* Where a quoted packet begins while the protocols' error handlers run. */
static __always_inline void *packet_data(struct sk_buff *from)
{
	struct sk_buff___pmtu *skb = (void *)from;

	return BPF_CORE_READ(skb, data);
}

/* The SA that the packet's route leads through, and its device, which may be a tunnel's. */
static __always_inline void name_sa(struct pmtu_event *e, struct sk_buff *skb)
{
	struct xfrm_state *x = sa_sending(PROBED, skb);

	e->ifindex = BPF_CORE_READ(skb, dev, ifindex);
	if (!x)
		return;
	e->sa_spi = bpf_ntohl(BPF_CORE_READ(x, id.spi));
	read_address(PROBED, e->sa_dst, &x->id.daddr, BPF_CORE_READ(x, props.family) == AF_INET6 ? 6 : 4);
}

/* What a route lets through: an MTU of its own, learned or configured, else its device's. */
static __always_inline __u32 route_mtu(struct dst_entry *route, __u8 family)
{
	struct dst_entry___pmtu *dst = (void *)route;
	unsigned long metrics;
	__u32 mtu = 0;

	if (!dst)
		return 0;
	if (family == 4) {
		struct rtable *rt = (void *)route;

		mtu = BPF_CORE_READ_BITFIELD_PROBED(rt, rt_pmtu);
		if (mtu)
			return mtu;
	}
	metrics = BPF_CORE_READ(dst, _metrics) & ~DST_METRICS_FLAGS;
	if (metrics)
		bpf_probe_read_kernel(&mtu, sizeof(mtu), (void *)metrics + (RTAX_MTU - 1) * sizeof(mtu));
	return mtu ? mtu : BPF_CORE_READ(dst, dev, mtu);
}

#endif
