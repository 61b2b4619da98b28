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

/* The header of the protocol that follows IP; `outer`: it may be ESP in UDP (RFC 3948). */
static __always_inline __u32 transport_bytes(void *at, __u8 proto, bool outer)
{
	struct {
		struct udphdr udp;
		__be32 word;
	} __attribute__((packed)) u = {};
	__u8 offset = 0;

	switch (proto) {
	case IPPROTO_TCP:
		bpf_probe_read_kernel(&offset, 1, at + 12);
		return (offset >> 4) * 4;
	case IPPROTO_UDP:
		if (!outer)
			return sizeof(struct udphdr);
		bpf_probe_read_kernel(&u, sizeof(u), at);
		UNROLL
		for (int i = 0; i < NATT_PORTS; i++) {
			__u16 port = cfg_natt_ports[i];

			if (port && (u.udp.dest == bpf_htons(port) || u.udp.source == bpf_htons(port)))
				return sizeof(struct udphdr) + ESP_SHOWN;
		}
		return sizeof(struct udphdr);
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

/* Bytes of headers from the IP header on; 0: it is none. `proto` replaces what IPv4 says, unless 0. */
static __always_inline __u32 header_bytes(void *ip, __u8 proto, bool outer)
{
	struct ipv6hdr ip6 = {};
	struct iphdr ip4 = {};
	__u8 next[2], type;
	__u32 at;

	bpf_probe_read_kernel(&ip4, sizeof(ip4), ip);
	if (ip4.version_ihl >> 4 == 4) {
		at = (ip4.version_ihl & 0xf) * 4;
		if (ip4.frag_off & bpf_htons(IP_OFFSET))
			return at;
		return at + transport_bytes(ip + at, proto ? proto : ip4.protocol, outer);
	}
	if (ip4.version_ihl >> 4 != 6)
		return 0;
	bpf_probe_read_kernel(&ip6, sizeof(ip6), ip);
	at = sizeof(ip6);
	type = proto ? proto : ip6.nexthdr;
	UNROLL
	for (int i = 0; i < EXT_SHOWN; i++) {
		if (type != IPPROTO_HOPOPTS && type != IPPROTO_ROUTING && type != IPPROTO_DSTOPTS &&
		    type != IPPROTO_FRAGMENT)
			break;
		bpf_probe_read_kernel(next, sizeof(next), ip + at);
		at += type == IPPROTO_FRAGMENT ? sizeof(struct frag_hdr) : next[1] * 8 + 8;
		type = next[0];
	}
	return at + transport_bytes(ip + at, type, outer);
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
static __always_inline void packet_from_stack(struct packet_head *h, struct packet_count *c,
					      struct sk_buff *skb, bool outer)
{
	struct sk_buff___packet *more = (void *)skb;
	void *head = BPF_CORE_READ(skb, head), *ip;
	struct skb_shared_info___packet *shared;
	__u32 at = BPF_CORE_READ(skb, network_header), tail = BPF_CORE_READ(more, tail);
	__u64 want, linear;

	ip = head + at;
	linear = tail > at ? tail - at : 0;
	h->wire_len = linear + BPF_CORE_READ(more, data_len);
	shared = head + BPF_CORE_READ(more, end);
	h->segments = BPF_CORE_READ(shared, gso_size) ? BPF_CORE_READ(shared, gso_segs) : 0;
	want = header_bytes(ip, h->inner, outer);
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
