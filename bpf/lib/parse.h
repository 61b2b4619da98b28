/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From frame to class. Every exit has its own enum why; nothing is counted here. Headers quoted
 * inside ICMP errors are never reached, because ICMP is not a protocol that is followed.
 */
#ifndef XFRMSCOPE_PARSE_H
#define XFRMSCOPE_PARSE_H

#include "chain.h"
#include "config.h"

#define VLAN_DEPTH     2
#define IKE_PORT       500
#define NON_ESP_MARKER 0
#define KEEPALIVE_BYTE 0xff
#define LEN16_MAX      65535
/*
 * Bounds that hold by themselves, as masks for the verifier: an IP header lies behind at most 22
 * bytes, its end another 60 further, and extension headers are at most EXT_DEPTH times 2,048 bytes; an IKE
 * header comes after all of these.
 */
#define IP_AT_MASK	  0x1f
#define TRANSPORT_AT_MASK 0x7f
#define IKE_AT_MASK	  0x7fff

/*
 * What the parser found. The compiler keeps it in registers as long as its address stays inside
 * inlined functions; the addresses remain in the packet until somebody needs them.
 */
struct view {
	__u64 ip_at;  /* where the outer IP header is, from the first byte */
	__u64 ike_at; /* where the IKE header is, of WHY_IKE */
	__u64 asides; /* ASIDE_BIT of each */
	__u32 spi;
	__u32 seq;
	__u32 bytes; /* outer IP packet */
	__u16 sport; /* UDP encapsulation */
	__u16 dport;
	__u8 family; /* 4 or 6 */
	__u8 encap;  /* 1: ESP in UDP */
};

static __always_inline enum why parse_esp(struct cursor *c, struct view *v)
{
	struct ip_esp_hdr *esp;

	if (!cursor_pull(c, &esp))
		return WHY_ESP_SHORT;
	v->spi = bpf_ntohl(esp->spi);
	v->seq = bpf_ntohl(esp->seq_no);
	v->encap = 0;
	return WHY_ESP;
}

/* The three fields that tell IKE from zero-filled or random payloads on its ports. */
static __always_inline enum why parse_ike(struct cursor *c, struct view *v)
{
	struct ike_hdr *ike;

	if (!cursor_pull(c, &ike))
		return WHY_BAD_IKE;
	if (!(ike->initiator[0] | ike->initiator[1]))
		return WHY_BAD_IKE;
	if (ike->version >> 4 != 1 && ike->version >> 4 != 2)
		return WHY_BAD_IKE;
	v->ike_at = c->at - sizeof(*ike);
	return WHY_IKE;
}

/* RFC 3948 section 2: ESP, IKE behind the non-ESP marker, or a keepalive. */
static __always_inline enum why parse_natt(struct cursor *c, struct view *v)
{
	__be32 *word, *seq;
	__u8 *byte;

	if (cursor_left(c) == 1)
		return cursor_pull(c, &byte) && *byte == KEEPALIVE_BYTE ? WHY_KEEPALIVE : WHY_NATT_SHORT;
	if (!cursor_pull(c, &word))
		return WHY_NATT_SHORT;
	if (*word == NON_ESP_MARKER)
		return parse_ike(c, v);
	if (!cursor_pull(c, &seq))
		return WHY_ESP_SHORT;
	v->spi = bpf_ntohl(*word);
	v->seq = bpf_ntohl(*seq);
	v->encap = 1;
	return WHY_ESP_UDP;
}

static __always_inline bool is_natt_port(__u16 port)
{
	for (int i = 0; i < NATT_PORTS; i++)
		if (cfg_natt_ports[i] && cfg_natt_ports[i] == port)
			return true;
	return false;
}

static __always_inline enum why parse_udp(struct cursor *c, struct view *v)
{
	struct {
		__be16 source, dest;
	} *ports;
	struct {
		__be16 len, check;
	} *rest;
	__u32 payload;
	bool natt;

	if (!cursor_pull(c, &ports))
		return WHY_BAD_UDP;
	v->sport = bpf_ntohs(ports->source);
	v->dport = bpf_ntohs(ports->dest);
	natt = is_natt_port(v->sport) || is_natt_port(v->dport);
	if (!natt && v->sport != IKE_PORT && v->dport != IKE_PORT)
		return WHY_NOT_IPSEC;
	if (!cursor_pull(c, &rest))
		return WHY_BAD_UDP;
	payload = bpf_ntohs(rest->len);
	if (payload < sizeof(struct udphdr))
		return WHY_BAD_UDP;
	payload -= sizeof(struct udphdr);
	/* The length is that of the whole datagram, of which a first fragment holds only a part. */
	if (!(v->asides & ASIDE_BIT(ASIDE_FRAG_FIRST))) {
		if (payload > cursor_left(c))
			return WHY_BAD_UDP;
		c->limit = c->at + payload;
	}
	return natt ? parse_natt(c, v) : parse_ike(c, v);
}

/* Protocol numbers below 64 as a set. */
#define PROTO_BIT(proto) (1ULL << (proto))
#define IN_CHAIN                                                                                 \
	(PROTO_BIT(IPPROTO_HOPOPTS) | PROTO_BIT(IPPROTO_ROUTING) | PROTO_BIT(IPPROTO_FRAGMENT) | \
	 PROTO_BIT(IPPROTO_AH) | PROTO_BIT(IPPROTO_DSTOPTS))
#define FOLLOWED (IN_CHAIN | PROTO_BIT(IPPROTO_ESP) | PROTO_BIT(IPPROTO_UDP))

static __always_inline bool proto_in(__u64 set, __u8 proto)
{
	return proto < 64 && set >> proto & 1;
}

/* From the first header after IP on. */
static __always_inline enum why parse_transport(struct cursor *c, struct view *v, __u8 proto)
{
	__u64 unknown = cursor_unknown(c);

	/* Most packets of most devices end here. */
	if (!proto_in(FOLLOWED, proto))
		return WHY_NOT_IPSEC;
	FORGET(c->at, unknown);
	FORGET(c->limit, unknown);
	FORGET(v->asides, unknown);
	FORGET(v->ip_at, unknown);
	FORGET(v->family, unknown);
	c->at &= TRANSPORT_AT_MASK;
	v->ip_at &= IP_AT_MASK;
	if (proto_in(IN_CHAIN, proto)) {
		__u64 found = chain_find(c, v->family, proto);

		v->asides |= CHAIN_ASIDES(found);
		proto = CHAIN_PROTO(found);
		switch (CHAIN_WHAT(found)) {
		case CHAIN_AH_BAD:
			return WHY_BAD_AH;
		case CHAIN_EXT_BAD:
			return WHY_BAD_IPV6_EXT;
		case CHAIN_FRAG_LATER:
			return WHY_FRAG_LATER;
		case CHAIN_DEEP:
			return v->family == 4 ? WHY_AH : WHY_IPV6_EXT_DEPTH;
		}
	}
	if (proto == IPPROTO_ESP)
		return parse_esp(c, v);
	if (v->asides & ASIDE_BIT(ASIDE_AH))
		return WHY_AH;
	if (proto == IPPROTO_UDP)
		return parse_udp(c, v);
	return WHY_NOT_IPSEC;
}

/* parse_ipv4 and parse_ipv6 return this when a protocol is left to look at. */
#define WHY_NONE_YET WHY_MAX

static __always_inline enum why parse_ipv4(struct cursor *c, struct view *v, __u8 *proto)
{
	__u64 available = cursor_left(c);
	struct iphdr *ip;
	__u32 header, total, frag;

	if (!cursor_pull(c, &ip) || ip->version_ihl >> 4 != 4)
		return WHY_BAD_IPV4;
	header = (ip->version_ihl & 0xf) * 4;
	total = bpf_ntohs(ip->tot_len);
	/* BIG TCP writes 0 into what is too long for the field (kernel iph_set_totlen, v6.3). */
	if (!total && available > LEN16_MAX)
		total = available;
	if (header < sizeof(*ip) || total < header || total > available)
		return WHY_BAD_IPV4;
	v->ip_at = c->at - sizeof(*ip);
	v->family = 4;
	v->bytes = total;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IP_OFFSET)
		return WHY_FRAG_LATER;
	if (frag & IP_MF)
		v->asides |= ASIDE_BIT(ASIDE_FRAG_FIRST);
	c->limit = c->at - sizeof(*ip) + total;
	c->at += header - sizeof(*ip);
	*proto = ip->protocol;
	return WHY_NONE_YET;
}

static __always_inline enum why parse_ipv6(struct cursor *c, struct view *v, __u8 *proto)
{
	struct ipv6hdr *ip;
	__u64 payload;

	if (!cursor_pull(c, &ip) || bpf_ntohl(ip->version_class_flow) >> 28 != 6)
		return WHY_BAD_IPV6;
	payload = bpf_ntohs(ip->payload_len);
	/* BIG TCP again (v5.19 and later). */
	if (!payload && cursor_left(c) > LEN16_MAX)
		payload = cursor_left(c);
	if (payload > cursor_left(c))
		return WHY_BAD_IPV6;
	c->limit = c->at + payload;
	v->ip_at = c->at - sizeof(*ip);
	v->family = 6;
	v->bytes = payload + sizeof(*ip);
	*proto = ip->nexthdr;
	return WHY_NONE_YET;
}

/*
 * Whether this is, beyond doubt, a whole untagged IP packet of a protocol that is not followed. It is
 * what most packets are and what the parser would find as well, only later: its many ways keep many
 * values alive, and most of them in memory.
 */
static __always_inline bool parse_stranger(const struct cursor *c)
{
	struct ethhdr *eth = c->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 bytes;

	if ((void *)(ip6 + 1) > c->end)
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		bytes = bpf_ntohs(ip->tot_len);
		return ip->version_ihl == 0x45 && !proto_in(FOLLOWED, ip->protocol) &&
		       !(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)) && bytes >= sizeof(*ip) &&
		       bytes <= c->limit - sizeof(*eth);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		bytes = bpf_ntohs(ip6->payload_len);
		return bpf_ntohl(ip6->version_class_flow) >> 28 == 6 && !proto_in(FOLLOWED, ip6->nexthdr) &&
		       bytes && bytes <= c->limit - sizeof(*eth) - sizeof(*ip6);
	}
	return false;
}

/* For devices without a link header, where the first nibble is all there is to go by. */
static __always_inline enum why parse_l3(struct cursor *c, struct view *v)
{
	__u8 *first = c->data, proto = 0;
	enum why why = WHY_NOT_IP;

	if (!cursor_left(c))
		return WHY_NOT_IP;
	if ((void *)(first + 1) > c->end) {
		c->cut = true;
		return WHY_NOT_IP;
	}
	if (*first >> 4 == 4)
		why = parse_ipv4(c, v, &proto);
	else if (*first >> 4 == 6)
		why = parse_ipv6(c, v, &proto);
	return why == WHY_NONE_YET ? parse_transport(c, v, proto) : why;
}

/* `tags` counts the VLAN tags that the kernel has already taken off the frame. */
static __always_inline enum why parse_eth(struct cursor *c, struct view *v, __u32 tags)
{
	struct ethhdr *eth;
	enum why why = WHY_NOT_IP;
	__u8 proto = 0;
	__be16 type;

	if (!cursor_pull(c, &eth))
		return WHY_BAD_ETH;
	type = eth->h_proto;
	for (int i = 0; i <= VLAN_DEPTH; i++) {
		struct vlan_hdr *vlan;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (tags++ == VLAN_DEPTH)
			return WHY_VLAN_DEPTH;
		if (!cursor_pull(c, &vlan))
			return WHY_BAD_ETH;
		type = vlan->h_vlan_encapsulated_proto;
	}
	if (tags)
		v->asides |= ASIDE_BIT(tags == 1 ? ASIDE_VLAN : ASIDE_VLAN2);
	if (type == bpf_htons(ETH_P_IP))
		why = parse_ipv4(c, v, &proto);
	else if (type == bpf_htons(ETH_P_IPV6))
		why = parse_ipv6(c, v, &proto);
	return why == WHY_NONE_YET ? parse_transport(c, v, proto) : why;
}

#endif
