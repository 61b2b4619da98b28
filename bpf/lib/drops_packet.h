/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What any packet about to be freed is: namespace, device, addresses, ports, SA. */
#ifndef XFRMSCOPE_DROPS_PACKET_H
#define XFRMSCOPE_DROPS_PACKET_H

#include "drop_packet.h"
#include "drops_abi.h"

#define ETHERTYPE_IPV4	0x0800
#define ETHERTYPE_IPV6	0x86dd
#define IPPROTO_ICMP	1
#define IPPROTO_DCCP	33
#define IPPROTO_ICMPV6	58
#define IPPROTO_SCTP	132
#define IPPROTO_UDPLITE 136
#define EXTENSIONS	4 /* IPv6 extension headers that are followed */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net___drops {
	struct ns_common ns;
	struct net_device *loopback_dev;
};

struct sock_common {
	possible_net_t skc_net;
};

struct sock {
	struct sock_common __sk_common;
};

struct sk_buff___drops {
	struct sock *sk;
	__be16 protocol;
};

struct net_device___drops {
	char name[DROPS_IFNAME];
};

#pragma clang attribute pop

/*
 * A network namespace, or NULL for what is none. Queues of sockets put other things where a packet has
 * its device, its route and its socket (struct sk_buff has them in unions), so that pointer may lead
 * anywhere. A namespace's loopback device is its own.
 */
static __always_inline struct net *sane_netns(struct net *net)
{
	if (!net || BPF_CORE_READ((struct net___drops *)net, loopback_dev, nd_net.net) != net)
		return NULL;
	return net;
}

static __always_inline struct net *device_netns(struct net_device *dev)
{
	return dev ? sane_netns(BPF_CORE_READ(dev, nd_net.net)) : NULL;
}

/*
 * The namespace a packet is in: `target` where device, route or socket is of that one, else the first
 * that is known. NULL: none is.
 */
static __always_inline struct net *any_netns(struct sk_buff *skb, struct net_device *dev, struct net *target)
{
	struct dst_entry *dst = skb_route(PROBED, skb);
	struct net *net, *first;
	struct sock *sk;

	first = device_netns(dev);
	if (first == target && target)
		return first;
	if (dst) {
		net = device_netns(BPF_CORE_READ(dst, dev));
		if (net == target && target)
			return net;
		if (!first)
			first = net;
	}
	sk = BPF_CORE_READ((struct sk_buff___drops *)skb, sk);
	if (sk) {
		net = sane_netns(BPF_CORE_READ(sk, __sk_common.skc_net.net));
		if (net == target && target)
			return net;
		if (!first)
			first = net;
	}
	return first;
}

static __always_inline void read_device(struct drops_key *key, struct sk_buff *skb, struct net_device *dev)
{
	struct net_device___drops *d = (void *)dev;
	struct dst_entry *dst;

	if (!device_netns(dev)) {
		key->ifindex = BPF_CORE_READ(skb, skb_iif);
		dst = skb_route(PROBED, skb);
		if (key->ifindex || !dst)
			return;
		dev = BPF_CORE_READ(dst, dev);
		if (!device_netns(dev))
			return;
		d = (void *)dev;
	}
	key->ifindex = BPF_CORE_READ(dev, ifindex);
	bpf_probe_read_kernel_str(key->ifname, sizeof(key->ifname), d->name);
}

static __always_inline void any_udp(struct drops_key *key, struct drops_packet *p, const void *at,
				    __u32 linear)
{
	struct udp_word h = {};

	read_udp_word(PROBED, &h, at, linear);
	p->sport = bpf_ntohs(h.udp.source);
	p->dport = bpf_ntohs(h.udp.dest);
	if (!on_natt_port(p->dport) && !on_natt_port(p->sport))
		return;
	/* RFC 3948 section 2: zeros are the non-ESP marker. ESP has SPI and number at least. */
	if (bpf_ntohs(h.udp.len) < sizeof(h.udp) + 8 || !h.word)
		return;
	key->spi = bpf_ntohl(h.word);
	key->sa_proto = IPPROTO_ESP;
}

/* `at` is where the transport header lies, of which `linear` bytes are readable, at least eight. */
static __always_inline void any_transport(struct drops_key *key, struct drops_packet *p, const void *at,
					  __u32 linear)
{
	__u8 byte[2] = {};
	__be16 port[2] = {};
	__be32 word = 0;

	switch (key->proto) {
	case IPPROTO_UDP:
		any_udp(key, p, at, linear);
		return;
	case IPPROTO_TCP:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
	case IPPROTO_UDPLITE:
		bpf_probe_read_kernel(port, sizeof(port), at);
		p->sport = bpf_ntohs(port[0]);
		p->dport = bpf_ntohs(port[1]);
		return;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		bpf_probe_read_kernel(byte, sizeof(byte), at);
		p->sport = byte[0];
		p->dport = byte[1];
		return;
	case IPPROTO_ESP:
	case IPPROTO_AH:
		/* RFC 4303 section 2, RFC 4302 section 2. */
		bpf_probe_read_kernel(&word, sizeof(word), at + (key->proto == IPPROTO_AH ? 4 : 0));
		key->spi = bpf_ntohl(word);
		key->sa_proto = key->proto;
		return;
	}
}

static __always_inline void any_ipv4(struct drops_key *key, struct drops_packet *p, void *head, __u32 offset,
				     __u32 tail)
{
	struct iphdr ip = {};

	bpf_probe_read_kernel(&ip, sizeof(ip), head + offset);
	if ((ip.version_ihl & 0xf) < 5)
		return;
	p->family = 4;
	key->ether = ETHERTYPE_IPV4;
	key->proto = ip.protocol;
	read_address(PROBED, p->src, head + offset + 12, 4);
	read_address(PROBED, p->dst, head + offset + 16, 4);
	/* BIG TCP writes 0 into what is too long for the field. */
	if (ip.tot_len)
		p->length = bpf_ntohs(ip.tot_len);
	offset += (ip.version_ihl & 0xf) * 4;
	if (!(ip.frag_off & bpf_htons(IP_OFFSET)) && offset + 8 <= tail)
		any_transport(key, p, head + offset, tail - offset);
}

static __always_inline void any_ipv6(struct drops_key *key, struct drops_packet *p, void *head, __u32 offset,
				     __u32 tail)
{
	struct ipv6hdr ip = {};
	struct frag_hdr ext = {}; /* every extension header begins alike and has at least eight bytes */

	bpf_probe_read_kernel(&ip, sizeof(ip), head + offset);
	p->family = 6;
	key->ether = ETHERTYPE_IPV6;
	key->proto = ip.nexthdr;
	read_address(PROBED, p->src, head + offset + 8, 6);
	read_address(PROBED, p->dst, head + offset + 24, 6);
	if (ip.payload_len)
		p->length = sizeof(ip) + bpf_ntohs(ip.payload_len);
	offset += sizeof(ip);
	UNROLL
	for (int i = 0; i < EXTENSIONS; i++) {
		if (offset + 8 > tail)
			return;
		if (key->proto != IPPROTO_HOPOPTS && key->proto != IPPROTO_ROUTING &&
		    key->proto != IPPROTO_DSTOPTS && key->proto != IPPROTO_FRAGMENT)
			break;
		bpf_probe_read_kernel(&ext, sizeof(ext), head + offset);
		if (key->proto == IPPROTO_FRAGMENT) {
			key->proto = ext.nexthdr;
			if (ext.frag_off & bpf_htons(IP6_OFFSET))
				return;
			offset += 8;
		} else {
			key->proto = ext.nexthdr;
			offset += (((__u8 *)&ext)[1] + 1) * 8;
		}
	}
	if (offset + 8 <= tail)
		any_transport(key, p, head + offset, tail - offset);
}

/* Addresses and ports where the packet is IP and its headers are in the linear part. */
static __always_inline void read_packet(struct drops_key *key, struct drops_packet *p, struct sk_buff *skb)
{
	struct sk_buff___drop *s = (void *)skb;
	void *head = BPF_CORE_READ(skb, head);
	__u32 offset = BPF_CORE_READ(skb, network_header);
	__u32 tail = BPF_CORE_READ(s, tail);
	__u8 first = 0;

	key->ether = bpf_ntohs(BPF_CORE_READ((struct sk_buff___drops *)skb, protocol));
	p->length = BPF_CORE_READ(skb, len);
	if (!offset || offset == NO_HEADER || offset + sizeof(struct iphdr) > tail)
		return;
	bpf_probe_read_kernel(&first, 1, head + offset);
	/* The protocol is 0 before the kernel has written it into a packet of its own. */
	if (first >> 4 == 4 && (key->ether == ETHERTYPE_IPV4 || !key->ether))
		any_ipv4(key, p, head, offset, tail);
	else if (first >> 4 == 6 && (key->ether == ETHERTYPE_IPV6 || !key->ether) &&
		 offset + sizeof(struct ipv6hdr) <= tail)
		any_ipv6(key, p, head, offset, tail);
}

static __always_inline void name_state(struct drops_key *key, struct xfrm_state *x)
{
	__u8 family = BPF_CORE_READ(x, props.family) == AF_INET6 ? 6 : 4;

	key->sa_proto = BPF_CORE_READ(x, id.proto);
	key->spi = bpf_ntohl(BPF_CORE_READ(x, id.spi));
	read_address(PROBED, key->sa_dst, &x->id.daddr, family);
}

/* Whether this is an SA: its route may be no route, see sane_netns(). */
static __always_inline bool sane_state(struct xfrm_state *x)
{
	return x && sane_netns(BPF_CORE_READ(x, xs_net.net));
}

static __always_inline void read_sa(struct drops_key *key, struct drops_packet *p, struct sk_buff *skb)
{
	struct xfrm_state *x = sa_received(PROBED, skb);
	struct standing at = {};

	key->dir = DIR_UNKNOWN;
	if (!sane_state(x))
		x = NULL;
	if (key->spi) {
		/*
		 * With crypto offload a packet to be sent has its SA in the sec_path as well; the header is
		 * still there, or there already. ESP in a decrypted packet is another SA's.
		 */
		if (x && key->spi != bpf_ntohl(BPF_CORE_READ(x, id.spi)))
			x = NULL;
		key->sa_from = DROPS_SA_HEADER;
		read_standing(PROBED, skb, p->family, &at);
		key->dir = is_outbound(&at) ? DIR_OUT : DIR_IN;
		if (x)
			name_state(key, x);
		else
			__builtin_memcpy(key->sa_dst, p->dst, sizeof(key->sa_dst));
		return;
	}
	if (x) {
		key->sa_from = DROPS_SA_DECRYPTED;
		key->dir = DIR_IN;
		name_state(key, x);
		return;
	}
	x = sa_sending(PROBED, skb);
	if (!sane_state(x))
		return;
	key->sa_from = DROPS_SA_ROUTE;
	key->dir = DIR_OUT;
	name_state(key, x);
}

#endif
