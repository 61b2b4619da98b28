/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * IPv6 extension headers and AH. Hardly a packet has them, so they are passed over in functions of their
 * own: global ones, which the verifier follows once, and not once for each way of the parser to them, and
 * of whose answer it knows nothing. They take no pointer but the context, hence one for each kind.
 */
#ifndef XFRMSCOPE_CHAIN_H
#define XFRMSCOPE_CHAIN_H

#include "abi.h"
#include "cursor.h"

#define EXT_DEPTH 8
/* An IP header ends behind at most 82 bytes, and extension headers are at most EXT_DEPTH times 2,048. */
#define CHAIN_AT_MASK 0x7fff

#define ASIDE_BIT(aside) (1U << (aside))

enum chain {
	CHAIN_END, /* a protocol to go on with */
	CHAIN_AH_BAD,
	CHAIN_EXT_BAD,
	CHAIN_FRAG_LATER,
	CHAIN_DEEP,
};

/* An answer in one number: where the headers end, what follows them, enum chain, what there was. */
#define CHAIN_AT(found)	    ((found) & CHAIN_AT_MASK)
#define CHAIN_PROTO(found)  ((found) >> 16 & 0xff)
#define CHAIN_WHAT(found)   ((found) >> 24 & 0xff)
#define CHAIN_ASIDES(found) ((found) >> 32 & 0x7fffffff)
#define CHAIN_CUT(found)    ((found) >> 63)

/* *proto becomes what follows the headers. */
static __always_inline enum chain chain_pass(struct cursor *c, __u32 family, __u8 *proto, __u64 *asides)
{
	__u64 unknown = cursor_unknown(c);

	UNROLL
	for (int i = 0; i <= EXT_DEPTH; i++) {
		FORGET(c->at, unknown);
		FORGET(*asides, unknown);
		c->at &= CHAIN_AT_MASK;
		if (*proto == IPPROTO_AH) {
			struct ip_auth_hdr *ah;
			__u32 len;

			if (i == EXT_DEPTH)
				return CHAIN_DEEP;
			if (!cursor_pull(c, &ah))
				return CHAIN_AH_BAD;
			/* RFC 4302 section 2.2: in 4-byte words, less two. */
			len = (ah->hdrlen + 2) * 4;
			if (len < sizeof(*ah) || !cursor_skip(c, len - sizeof(*ah)))
				return CHAIN_AH_BAD;
			*asides |= ASIDE_BIT(ASIDE_AH);
			*proto = ah->nexthdr;
		} else if (family == 4) {
			return CHAIN_END;
		} else if (*proto == IPPROTO_FRAGMENT) {
			struct frag_hdr *frag;
			__u16 where;

			if (i == EXT_DEPTH)
				return CHAIN_DEEP;
			if (!cursor_pull(c, &frag))
				return CHAIN_EXT_BAD;
			where = bpf_ntohs(frag->frag_off);
			if (where & IP6_OFFSET)
				return CHAIN_FRAG_LATER;
			/* Offset 0 and none to come is an atomic fragment (RFC 6946): a whole packet. */
			if (where & IP6_MF)
				*asides |= ASIDE_BIT(ASIDE_FRAG_FIRST);
			*proto = frag->nexthdr;
		} else if (*proto == IPPROTO_HOPOPTS || *proto == IPPROTO_ROUTING ||
			   *proto == IPPROTO_DSTOPTS) {
			struct ipv6_opt_hdr *opt;

			if (i == EXT_DEPTH)
				return CHAIN_DEEP;
			if (!cursor_pull(c, &opt) || !cursor_skip(c, opt->hdrlen * 8 + 8 - sizeof(*opt)))
				return CHAIN_EXT_BAD;
			*proto = opt->nexthdr;
		} else {
			return CHAIN_END;
		}
	}
	return CHAIN_DEEP;
}

static __always_inline __u64 chain_answer(struct cursor *c, __u32 family, __u8 proto)
{
	__u64 asides = 0, what = chain_pass(c, family, &proto, &asides);

	return (__u64)c->cut << 63 | asides << 32 | what << 24 | (__u64)proto << 16 | CHAIN_AT(c->at);
}

__noinline __u64 chain_of_frame(struct xdp_md *ctx, __u64 at, __u64 limit, __u32 family, __u32 proto)
{
	struct cursor c = {
		.data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end, .at = at, .limit = limit
	};

	return chain_answer(&c, family, proto);
}

__noinline __u64 chain_of_skb(struct __sk_buff *ctx, __u64 at, __u64 limit, __u32 family, __u32 proto)
{
	struct cursor c = {
		.data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end, .at = at, .limit = limit
	};

	return chain_answer(&c, family, proto);
}

/* What there is where the cursor stands; it then stands behind. */
static __always_inline __u64 chain_find(struct cursor *c, __u32 family, __u32 proto)
{
	__u64 found = c->from_xdp ? chain_of_frame(c->ctx, c->at, c->limit, family, proto)
				  : chain_of_skb(c->ctx, c->at, c->limit, family, proto);

	c->at = CHAIN_AT(found);
	c->cut |= CHAIN_CUT(found);
	return found;
}

#endif
