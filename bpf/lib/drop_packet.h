/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet about to be freed was: its state in the stack, and its outer header. */
#ifndef XFRMSCOPE_DROP_PACKET_H
#define XFRMSCOPE_DROP_PACKET_H

#include "compat.h"
#include "config.h"
#include "drop_abi.h"

#define IKE_PORT       500
#define IFF_LOOPBACK   (1 << 3)
#define RTCF_LOCAL     0x80000000 /* RTF_LOCAL of IPv6 has the same value */
#define PACKET_OTHER   3	  /* PACKET_OTHERHOST: another host's, seen in promiscuous mode */
#define KEEPALIVE_SIZE (sizeof(struct udphdr) + 1)
#define NO_HEADER      0xffff /* (u16)~0U: the header's place is not known yet */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* More of the same kernel structs than xfrm.h has; the suffix is not part of a type's name to CO-RE. */
struct sk_buff___drop {
	__u8 pkt_type : 3;
	unsigned int end;
	unsigned int tail;
	unsigned char *head;
};

struct skb_shared_info {
	unsigned short gso_size;
	unsigned short gso_segs;
};

struct net_device___drop {
	unsigned int flags;
};

struct rtable {
	unsigned int rt_flags;
};

struct rt6_info {
	__u32 rt6i_flags;
};

#pragma clang attribute pop

static __always_inline __u8 packet_type(enum way how, struct sk_buff *skb)
{
	struct sk_buff___drop *s = (void *)skb;

	return CASTS(how) ? BPF_CORE_READ_BITFIELD(s, pkt_type) : BPF_CORE_READ_BITFIELD_PROBED(s, pkt_type);
}

/* A packet merged from several counts as those (GRO; gso_segs is 0 where nothing was merged). */
static __always_inline __u64 packet_count(enum way how, struct sk_buff *skb)
{
	struct sk_buff___drop *s = (void *)skb;
	struct skb_shared_info *shared = (void *)FIELD(how, s, head) + FIELD(how, s, end);
	__u16 segments;

	shared = AT(how, struct skb_shared_info, shared);
	segments = FIELD_AT(how, shared, gso_segs);
	return segments && FIELD_AT(how, shared, gso_size) ? segments : 1;
}

/* Whether a route ends at this host. In a VRF its device is not the loopback, so the flag counts too. */
static __always_inline bool route_is_local(enum way how, struct dst_entry *dst, __u8 family)
{
	struct net_device *dev = FIELD_AT(how, dst, dev);
	__u32 flags = 0;

	if (dev && FIELD_AT(how, (struct net_device___drop *)dev, flags) & IFF_LOOPBACK)
		return true;
	if (family == 4)
		flags = FIELD_AT(how, AT(how, struct rtable, dst), rt_flags);
	else if (bpf_core_field_exists(struct rt6_info, rt6i_flags))
		flags = FIELD_AT(how, AT(how, struct rt6_info, dst), rt6i_flags);
	return flags & RTCF_LOCAL;
}

/* A packet's place in the stack as its fields tell it. */
struct standing {
	int at;	     /* device that it is at, 0: none */
	int out;     /* device that its route leads to, 0: no route */
	int iif;     /* device that it was received from; 0: sent by this host */
	bool routed; /* it has a route */
	bool local;  /* and that ends at this host */
};

static __always_inline void read_standing(enum way how, struct sk_buff *skb, __u8 family, struct standing *at)
{
	struct net_device *dev = FIELD(how, skb, dev), *out = NULL;
	struct dst_entry *dst = skb_route(how, skb);

	at->routed = dst != NULL;
	if (dst) {
		dst = AT(how, struct dst_entry, dst);
		out = FIELD_AT(how, dst, dev);
		at->local = route_is_local(how, dst, family);
	}
	at->iif = FIELD(how, skb, skb_iif);
	at->at = dev ? FIELD(how, dev, ifindex) : 0;
	at->out = out ? FIELD_AT(how, out, ifindex) : 0;
}

/* ip_output() sets the device last, so before it a routed packet is at the one it came from. */
static __always_inline bool is_leaving(const struct standing *at)
{
	return at->out && at->at == at->out && at->at != at->iif;
}

static __always_inline enum drop_hook hook_received(const struct standing *at)
{
	if (!at->routed)
		return DROP_HOOK_PREROUTING;
	if (at->local)
		return DROP_HOOK_INPUT;
	return is_leaving(at) ? DROP_HOOK_POSTROUTING : DROP_HOOK_FORWARD;
}

static __always_inline enum drop_hook hook_sent(const struct standing *at)
{
	return is_leaving(at) ? DROP_HOOK_POSTROUTING : DROP_HOOK_OUTPUT;
}

/*
 * Which way a packet with an outer IPsec header goes. Without a route it was received, unless it is
 * at a device that it did not come from (a device may do without the route once it has the packet).
 */
static __always_inline bool is_outbound(const struct standing *at)
{
	if (at->routed)
		return !at->local;
	return at->at && at->iif && at->at != at->iif;
}

static __always_inline bool on_natt_port(__u16 port)
{
	UNROLL
	for (int i = 0; i < NATT_PORTS; i++)
		if (cfg_natt_ports[i] && cfg_natt_ports[i] == port)
			return true;
	return false;
}

/* A UDP header and what is behind it: the SPI, or the non-ESP marker. */
struct udp_word {
	struct udphdr udp;
	__be32 word;
};

/*
 * `linear` bytes of it are the packet's. Drivers may leave all that is behind the headers in pages, and then
 * the word is whatever this memory was used for before.
 */
static __always_inline void read_udp_word(enum way how, struct udp_word *h, const void *at, __u32 linear)
{
	read_words(how, h, at, sizeof(*h), 4);
	if (linear < sizeof(*h))
		h->word = 0;
}

/* Below the UDP header: IKE, a keepalive, or ESP (RFC 3948 section 2). False: nothing of ours. */
static __always_inline bool read_udp(enum way how, struct drop_key *key, void *at, __u32 linear)
{
	struct udp_word h = {};

	read_udp_word(how, &h, at, linear);
	key->sport = bpf_ntohs(h.udp.source);
	key->dport = bpf_ntohs(h.udp.dest);
	key->proto = IPPROTO_UDP;
	key->stage = DROP_IKE;
	if (!on_natt_port(key->dport) && !on_natt_port(key->sport))
		return key->dport == IKE_PORT || key->sport == IKE_PORT;
	if (bpf_ntohs(h.udp.len) == KEEPALIVE_SIZE) {
		key->stage = DROP_KEEPALIVE;
	} else if ((h.word || linear < sizeof(h)) && bpf_ntohs(h.udp.len) >= sizeof(h.udp) + 8) {
		/*
		 * SPI and number at least; what is behind a shorter datagram is not part of it. Where the
		 * word is out of reach, ESP is far more likely than IKE.
		 */
		key->stage = DROP_BEFORE_XFRM;
		key->proto = IPPROTO_ESP;
		key->spi = bpf_ntohl(h.word);
	}
	return true;
}

static __always_inline bool read_transport(enum way how, struct drop_key *key, struct sk_buff *skb,
					   void *head, __u32 offset, __u8 proto)
{
	__u32 tail = FIELD(how, (struct sk_buff___drop *)skb, tail);
	__be32 word = 0;

	if (offset + sizeof(struct udphdr) > tail)
		return false; /* not in the linear part, which drivers fill with all headers */
	if (proto == IPPROTO_UDP)
		return read_udp(how, key, head + offset, tail - offset);
	if (proto != IPPROTO_ESP && proto != IPPROTO_AH)
		return false;
	/* RFC 4303 section 2, RFC 4302 section 2. */
	read_words(how, &word, head + offset + (proto == IPPROTO_AH ? 4 : 0), sizeof(word), 4);
	key->spi = bpf_ntohl(word);
	key->proto = proto;
	key->stage = DROP_BEFORE_XFRM;
	return true;
}

/*
 * The outer header, where it is one of IPsec's. Of a fragmented packet the first fragment counts, as
 * it does on the wire: the others have no header to tell them by. Messages of sockets that are not IP's
 * have no network header; their bytes are anybody's.
 */
static __always_inline bool read_outer(enum way how, struct drop_key *key, struct sk_buff *skb)
{
	void *head = FIELD(how, skb, head);
	__u32 offset = FIELD(how, skb, network_header);
	struct ipv6hdr ip6 = {};
	struct frag_hdr frag = {};
	struct iphdr ip = {};

	if (!offset || offset == NO_HEADER)
		return false;
	read_words(how, &ip, head + offset, sizeof(ip), 4);
	if (ip.version_ihl >> 4 == 4) {
		if ((ip.version_ihl & 0xf) < 5 || ip.frag_off & bpf_htons(IP_OFFSET))
			return false;
		key->family = 4;
		if (!read_transport(how, key, skb, head, offset + (ip.version_ihl & 0xf) * 4, ip.protocol))
			return false;
		read_address(how, key->src, head + offset + 12, 4);
		read_address(how, key->dst, head + offset + 16, 4);
		return true;
	}
	if (ip.version_ihl >> 4 != 6)
		return false;
	read_words(how, &ip6, head + offset, sizeof(ip6), 4);
	key->family = 6;
	read_address(how, key->src, head + offset + 8, 6);
	read_address(how, key->dst, head + offset + 24, 6);
	offset += sizeof(ip6);
	if (ip6.nexthdr == IPPROTO_FRAGMENT) {
		read_words(how, &frag, head + offset, sizeof(frag), 4);
		if (frag.frag_off & bpf_htons(IP6_OFFSET))
			return false;
		ip6.nexthdr = frag.nexthdr;
		offset += sizeof(frag);
	}
	return read_transport(how, key, skb, head, offset, ip6.nexthdr);
}

#endif
