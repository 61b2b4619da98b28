/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From an IP header to a segment. Bytes come through probe reads in the stack, and through the TC
 * helper where tests feed frames; `from_tc` is a constant, so that each program has one of the two.
 */
#ifndef XFRMSCOPE_INNER_PARSE_H
#define XFRMSCOPE_INNER_PARSE_H

#include "field.h"
#include "verifier.h"
#include "inner_flow.h"
#include "inner_maps.h"

#define IPV4_MIN	 20
#define IPV6_LEN	 40
#define TCP_MIN		 20
#define TCP_MAX		 60
#define PROTO_AS_WRITTEN 0

/* Where a packet's bytes lie: `at` is the IP header, `end` the end of what can be read. */
struct inner_bytes {
	void *base;  /* probe reads: what offsets count from; TC: the context */
	__u64 at;    /* offset of the IP header */
	__u64 end;   /* offset of the end of the readable bytes */
	__u32 whole; /* bytes from the IP header to the packet's end, readable or not */
	__u16 size;  /* gso_size, 0 none */
	__u8 proto;  /* transport protocol, where the header does not say it yet; else PROTO_AS_WRITTEN */
	bool from_tc;
	enum way how; /* where it is not */
};

static __always_inline bool bytes_read(const struct inner_bytes *b, __u64 offset, void *to, __u32 n)
{
	if (b->from_tc)
		return !bpf_skb_load_bytes(b->base, b->at + offset, to, n);
	return read_words(b->how, to, b->base + b->at + offset, n, 8);
}

/* The headers are read where they lie, in words: the verifier wants the stack aligned. */
union inner_ip {
	__u64 words[IPV6_LEN / 8];
	struct iphdr v4;
	struct ipv6hdr v6;
};

struct inner_tcp {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* upper half: header length in words */
	__u8 flags;
	__be16 window;
	__be32 check_urgent;
	/* RFC 7323 appendix A: two NOPs and the timestamps, if that is what the options begin with */
	__be32 ts_kind;
	__be32 ts;
	__be32 ts_echo;
} __attribute__((aligned(8)));

#define TCP_TS	   32 /* bytes, with them */
#define TS_ALIGNED 0x0101080a

/* Address and port of both ends into the key, the smaller first; says which of the two sent it. */
static __always_inline __u8 key_ends(struct inner_key *key, const __u64 src[2], __u16 sport,
				     const __u64 dst[2], __u16 dport)
{
	bool first = src[0] != dst[0] ? src[0] < dst[0] : src[1] != dst[1] ? src[1] < dst[1] : sport < dport;

	if (first) {
		key->addr[0][0] = src[0];
		key->addr[0][1] = src[1];
		key->addr[1][0] = dst[0];
		key->addr[1][1] = dst[1];
		key->port[0] = sport;
		key->port[1] = dport;
		return 0;
	}
	key->addr[0][0] = dst[0];
	key->addr[0][1] = dst[1];
	key->addr[1][0] = src[0];
	key->addr[1][1] = src[1];
	key->port[0] = dport;
	key->port[1] = sport;
	return 1;
}

/*
 * The window scale among the options at hand (RFC 7323 section 2.2), SCALE_NOT_SENT if it is not among them.
 * A global function: the verifier follows its many ways once, and knows nothing of the result.
 */
__noinline int scale_option(__u32 dir)
{
	struct inner_options *o = bpf_map_lookup_elem(&inner_options, &dir);
	__u32 next = 0, scale = SCALE_NOT_SENT;

	if (!o)
		return SCALE_NOT_SENT;
	/* Byte by byte, so that every index is a constant and nothing has to be proved of one. */
	UNROLL
	for (__u32 n = 0; n < TCP_MAX - TCP_MIN; n++) {
		__u32 kind = o->bytes[n], length = o->bytes[n + 1];

		if (n != next || n >= o->length)
			continue;
		if (kind == 1) {
			next = n + 1;
		} else if (kind == 0 || length < 2) {
			next = TCP_MAX;
		} else if (kind == 3 && length == 3) {
			scale = o->bytes[n + 2];
			next = TCP_MAX;
		} else {
			next = n + length;
		}
	}
	/* RFC 7323 section 2.3: above 14 is taken for 14. */
	return scale == SCALE_NOT_SENT || scale <= 14 ? scale : 14;
}

/* Puts a SYN's options where scale_option() looks for them. */
static __always_inline bool options_read(const struct inner_bytes *b, __u64 at, __u32 length, __u32 dir)
{
	struct inner_options *o = bpf_map_lookup_elem(&inner_options, &dir);
	bool read = true;

	if (!o || length > TCP_MAX - TCP_MIN)
		return false;
	__builtin_memset(o, 0, sizeof(*o));
	o->length = length;
	/* Options come in whole words; a read of constant length needs no proof. */
	UNROLL
	for (__u32 word = 0; word < (TCP_MAX - TCP_MIN) / 4; word++)
		if (word * 4 < length)
			read &= bytes_read(b, at + word * 4, &o->bytes[word * 4], 4);
	return read;
}

/*
 * Reads a packet. INNER_TCP with key and segment, but for time, direction and the SA; anything else says
 * why there is none.
 */
static __always_inline enum inner_fate inner_parse(const struct inner_bytes *b, struct inner_key *key,
						   struct segment *s)
{
	union inner_ip ip;
	struct inner_tcp tcp;
	__u64 src[2] = {}, dst[2] = {}, mapped = 0;
	__u32 header, total, tcp_header;
	__u8 version, proto;

	if (b->at + IPV4_MIN > b->end)
		return INNER_PAGED;
	if (!bytes_read(b, 0, &ip, IPV4_MIN))
		return INNER_BAD;
	version = ip.v4.version_ihl >> 4;
	if (version == 4) {
		header = (ip.v4.version_ihl & 15) * 4;
		proto = b->proto ? b->proto : ip.v4.protocol;
		if (proto != IPPROTO_TCP)
			return INNER_OTHER;
		if (ip.v4.frag_off & bpf_htons(IP_OFFSET))
			return INNER_OTHER;
		if (ip.v4.frag_off & bpf_htons(IP_MF))
			return INNER_FRAGMENT;
		/* 0: longer than 16 bits can say (BIG TCP). */
		total = ip.v4.tot_len ? bpf_ntohs(ip.v4.tot_len) : b->whole;
		s->congested = (ip.v4.tos & 3) == 3;
		/* ::ffff:a.b.c.d, as everywhere */
		mapped = 0xffff0000ULL;
		src[1] = mapped | (__u64)ip.v4.saddr << 32;
		dst[1] = mapped | (__u64)ip.v4.daddr << 32;
		key->family = 4;
	} else if (version == 6) {
		header = IPV6_LEN;
		if (b->at + IPV6_LEN > b->end)
			return INNER_PAGED;
		if (!bytes_read(b, 0, &ip, IPV6_LEN))
			return INNER_BAD;
		proto = ip.v6.nexthdr;
		/* Only where ESP, or UDP around it, stood in the IP header itself. */
		if (b->proto && (proto == IPPROTO_ESP || proto == IPPROTO_UDP))
			proto = b->proto;
		if (proto != IPPROTO_TCP)
			return INNER_OTHER;
		total = ip.v6.payload_len ? IPV6_LEN + bpf_ntohs(ip.v6.payload_len) : b->whole;
		s->congested = (bpf_ntohl(ip.v6.version_class_flow) >> 20 & 3) == 3;
		src[0] = (__u64)ip.v6.saddr[1] << 32 | ip.v6.saddr[0];
		src[1] = (__u64)ip.v6.saddr[3] << 32 | ip.v6.saddr[2];
		dst[0] = (__u64)ip.v6.daddr[1] << 32 | ip.v6.daddr[0];
		dst[1] = (__u64)ip.v6.daddr[3] << 32 | ip.v6.daddr[2];
		key->family = 6;
	} else {
		return INNER_BAD;
	}
	if (header < IPV4_MIN || total < header + TCP_MIN)
		return INNER_BAD;
	if (b->at + header + TCP_MIN > b->end)
		return INNER_PAGED;
	if (b->at + header + TCP_TS <= b->end) {
		if (!bytes_read(b, header, &tcp, TCP_TS))
			return INNER_BAD;
	} else {
		if (!bytes_read(b, header, &tcp, TCP_MIN))
			return INNER_BAD;
		tcp.ts_kind = 0;
	}
	tcp_header = (tcp.offset >> 4) * 4;
	if (tcp_header < TCP_MIN || total < header + tcp_header)
		return INNER_BAD;
	s->seq = bpf_ntohl(tcp.seq);
	s->ack = bpf_ntohl(tcp.ack);
	s->payload = total - header - tcp_header;
	s->size = b->size;
	s->window = bpf_ntohs(tcp.window);
	s->flags = tcp.flags;
	if (tcp_header >= TCP_TS && tcp.ts_kind == bpf_htonl(TS_ALIGNED)) {
		s->has_ts = 1;
		s->ts = bpf_ntohl(tcp.ts);
		s->ts_echo = bpf_ntohl(tcp.ts_echo);
	}
	s->scale = SCALE_NOT_SENT;
	if (s->flags & TCP_SYN) {
		if (b->at + header + tcp_header > b->end)
			return INNER_PAGED;
		if (options_read(b, header + TCP_MIN, tcp_header - TCP_MIN, s->dir))
			s->scale = scale_option(s->dir);
	}
	s->from = key_ends(key, src, bpf_ntohs(tcp.source), dst, bpf_ntohs(tcp.dest));
	/* Or the verifier follows all of flow_segment() for each way in which these came to be. */
	FORGET(s->from, s->seq);
	FORGET(s->has_ts, s->seq);
	FORGET(s->congested, s->seq);
	return INNER_TCP;
}

#endif
