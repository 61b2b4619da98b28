/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How much of a packet are its headers. What comes behind them is what the tunnel protects, and is
 * copied only if the user says so. Of ESP the first 16 bytes of ciphertext are taken along: they hold the
 * initialisation vector.
 */
#ifndef XFRMSCOPE_PACKET_SNAP_H
#define XFRMSCOPE_PACKET_SNAP_H

#include "config.h"
#include "compat.h"
#include "packet_ring.h"

#define ESP_SHOWN     (sizeof(struct ip_esp_hdr) + 16)
#define IPPROTO_ICMP  1
#define IPPROTO_ICMP6 58
#define IPPROTO_SCTP  132
#define ICMP_HEADER   8
#define SCTP_HEADER   12
#define EXT_SHOWN     3 /* IPv6 extension headers that are followed */

/* The linear part ends before it is known how long the headers are. */
#define OUT_OF_REACH 0x10000

/* Reads from the packet's linear part, of which `left` bytes follow. What lies behind it is not the packet's.
 */
static __always_inline bool linear_read(void *to, __u32 size, const void *at, __u32 left)
{
	return left >= size && !bpf_probe_read_kernel(to, size, at);
}

static __always_inline bool carries_esp(__be16 port)
{
	UNROLL
	for (int i = 0; i < NATT_PORTS; i++)
		if (cfg_natt_ports[i] && port == bpf_htons(cfg_natt_ports[i]))
			return true;
	return false;
}

/* The header of the protocol that follows IP; `outer`: it may be ESP in UDP (RFC 3948). */
static __always_inline __u32 transport_bytes(void *at, __u32 left, __u8 proto, bool outer)
{
	__be16 port[2] = {};
	__u8 offset = 0;

	switch (proto) {
	case IPPROTO_TCP:
		if (left < 13 || !linear_read(&offset, 1, at + 12, left - 12))
			return OUT_OF_REACH;
		return (offset >> 4) * 4;
	case IPPROTO_UDP:
		if (!outer)
			return sizeof(struct udphdr);
		if (!linear_read(port, sizeof(port), at, left))
			return OUT_OF_REACH;
		return sizeof(struct udphdr) + (carries_esp(port[0]) || carries_esp(port[1]) ? ESP_SHOWN : 0);
	case IPPROTO_ICMP:
	case IPPROTO_ICMP6:
		return ICMP_HEADER;
	case IPPROTO_SCTP:
		return SCTP_HEADER;
	case IPPROTO_ESP:
		return ESP_SHOWN;
	case IPPROTO_AH:
		return sizeof(struct ip_auth_hdr);
	}
	return 0;
}

static __always_inline bool is_extension(__u8 type)
{
	return type == IPPROTO_HOPOPTS || type == IPPROTO_ROUTING || type == IPPROTO_DSTOPTS ||
	       type == IPPROTO_FRAGMENT;
}

/*
 * Bytes of headers from the IP header on, of which `linear` are at hand; 0: it is none. `proto`, unless 0,
 * stands in for ESP's own number, which is the IP header's or, of IPv6, that of its last extension.
 */
static __noinline __u32 header_bytes(void *ip, __u32 linear, __u8 proto, bool outer)
{
	struct ipv6hdr ip6 = {};
	struct frag_hdr ext = {}; /* every extension header begins alike and has at least eight bytes */
	struct iphdr ip4 = {};
	__u8 version = 0, type;
	__u32 at;

	if (!linear_read(&version, 1, ip, linear))
		return OUT_OF_REACH;
	if (version >> 4 == 4) {
		if (!linear_read(&ip4, sizeof(ip4), ip, linear))
			return OUT_OF_REACH;
		at = (ip4.version_ihl & 0xf) * 4;
		if (at < sizeof(ip4))
			return 0;
		if (ip4.frag_off & bpf_htons(IP_OFFSET))
			return at;
		type = proto ? proto : ip4.protocol;
		return at + transport_bytes(ip + at, linear > at ? linear - at : 0, type, outer);
	}
	if (version >> 4 != 6)
		return 0;
	if (!linear_read(&ip6, sizeof(ip6), ip, linear))
		return OUT_OF_REACH;
	at = sizeof(ip6);
	type = ip6.nexthdr;
	if (!is_extension(type) && proto) {
		type = proto;
		proto = 0;
	}
	UNROLL
	for (int i = 0; i < EXT_SHOWN; i++) {
		bool fragment = type == IPPROTO_FRAGMENT;

		if (!is_extension(type))
			break;
		if (linear < at || !linear_read(&ext, sizeof(ext), ip + at, linear - at))
			return OUT_OF_REACH;
		at += fragment ? sizeof(ext) : (((__u8 *)&ext)[1] + 1) * 8;
		if (fragment && ext.frag_off & bpf_htons(IP6_OFFSET))
			return at; /* the rest is payload, as in IPv4 */
		type = ext.nexthdr;
		if (!is_extension(type) && proto) {
			type = proto;
			proto = 0;
		}
	}
	return at + transport_bytes(ip + at, linear > at ? linear - at : 0, type, outer);
}

/* Fields that no other object reads. A flavour of a kernel struct is found under the name before ___. */
struct sk_buff___packet {
	unsigned int data_len;
	__u32 tail; /* sk_buff_data_t: offsets from head on 64 bits */
	__u32 end;
} __attribute__((preserve_access_index));

struct skb_shared_info___packet {
	__u16 gso_size;
	__u16 gso_segs;
} __attribute__((preserve_access_index));

/* Copies a packet in the stack, from its IP header on. */
static __always_inline void packet_from_stack(enum way how, struct packet_head *h, struct packet_count *c,
					      struct sk_buff *skb, bool outer)
{
	struct sk_buff___packet *more = (void *)skb;
	void *head = FIELD(how, skb, head), *ip;
	struct skb_shared_info___packet *shared;
	__u32 at = FIELD(how, skb, network_header), tail = FIELD(how, more, tail);
	__u64 want, linear;

	ip = head + at;
	linear = tail > at ? tail - at : 0;
	h->wire_len = linear + FIELD(how, more, data_len);
	shared = AT(how, struct skb_shared_info___packet, head + FIELD(how, more, end));
	h->segments = FIELD_AT(how, shared, gso_size) ? FIELD_AT(how, shared, gso_segs) : 0;
	want = header_bytes(ip, linear, h->inner, outer);
	if (want && cfg_snaplen)
		want = cfg_snaplen;
	if (want > h->wire_len)
		want = h->wire_len;
	if (want > linear) {
		h->flags |= PACKET_FLAG_PAGED;
		want = linear;
	}
	packet_put(h, c, ip, FROM_MEMORY, want);
}

#endif
