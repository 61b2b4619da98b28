/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One accessor for each fact that kernels keep in different places. */
#ifndef XFRMSCOPE_COMPAT_H
#define XFRMSCOPE_COMPAT_H

#include "field.h"
#include "xfrm.h"

/* SKB_DST_PTRMASK: the lowest bit of _skb_refdst says "not counted" (include/linux/skbuff.h). */
#define SKB_DST_NOREF 1UL

/*
 * The last SA that processed a received packet: skb->extensions holds the sec_path at the offset
 * that belongs to SKB_EXT_SEC_PATH, whose value depends on the kernel's configuration.
 */
static __always_inline struct xfrm_state *sa_received(enum way how, struct sk_buff *skb)
{
	struct sec_path *path;
	struct skb_ext *ext;
	void *at;
	__u8 len;
	__u64 id;

	id = bpf_core_enum_value(enum skb_ext_id, SKB_EXT_SEC_PATH);
	if (!(FIELD(how, skb, active_extensions) & (1U << (id & 7))))
		return NULL;
	ext = FIELD(how, skb, extensions);
	if (!ext)
		return NULL;
	/* __skb_ext_set() counts offsets in units of 8 bytes from the extension block's start. */
	at = (void *)ext + bpf_core_field_offset(struct skb_ext, offset) + id;
	path = AT(how, struct sec_path, (void *)ext + ((__u32)BYTE(how, at) << 3));
	/*
	 * At most XFRM_MAX_DEPTH = 6, so the lowest byte tells all, whether the kernel has an int
	 * there or, of 7.3, a byte. Both targets are little-endian.
	 */
	at = (void *)path + bpf_core_field_offset(struct sec_path, len);
	len = BYTE_AT(how, at);
	if (!len || len > 6)
		return NULL;
	if (len == 1)
		return FIELD_AT(how, path, xvec[0]);
	path = AT(how, struct sec_path, (void *)path + sizeof(void *) * (len - 1));
	return FIELD_AT(how, path, xvec[0]);
}

static __always_inline struct dst_entry *skb_route(enum way how, struct sk_buff *skb)
{
	return (struct dst_entry *)(FIELD(how, skb, _skb_refdst) & ~SKB_DST_NOREF);
}

/* The SA that a packet to be sent is at: that of its bundle's current step. */
static __always_inline struct xfrm_state *sa_sending(enum way how, struct sk_buff *skb)
{
	struct dst_entry *dst = skb_route(how, skb);

	if (!dst)
		return NULL;
	dst = AT(how, struct dst_entry, dst);
	return FIELD_AT(how, dst, xfrm);
}

static __always_inline struct net *skb_netns(enum way how, struct sk_buff *skb)
{
	struct net_device *dev = FIELD(how, skb, dev);
	struct dst_entry *dst;

	if (dev)
		return FIELD(how, dev, nd_net.net);
	dst = skb_route(how, skb);
	if (!dst)
		return NULL;
	dst = AT(how, struct dst_entry, dst);
	dev = FIELD_AT(how, dst, dev);
	return dev ? FIELD_AT(how, dev, nd_net.net) : NULL;
}

/* The 32-bit halves that xfrm_input() keeps of the packet it works on, in host order. */
static __always_inline __u64 cb_input_esn(struct sk_buff *skb)
{
	__u32 half[2] = {};

	bpf_probe_read_kernel(half, sizeof(half),
			      (void *)skb + bpf_core_field_offset(struct sk_buff, cb) +
				      bpf_core_field_offset(struct xfrm_skb_cb, seq));
	return (__u64)bpf_ntohl(half[1]) << 32 | bpf_ntohl(half[0]);
}

/*
 * An SA's replay state in one form. There are three in the kernel: 32 numbers in x->replay, more in
 * x->replay_esn, and with XFRM_STATE_ESN 64-bit numbers there (xfrm_init_replay(); up to 5.13 the
 * same three behind x->repl).
 */
struct replay {
	__u32 window;
	__u32 seq;
	__u32 seq_hi;
	__u32 oseq;
	__u32 oseq_hi;
	__u8 esn;
};

/* Of an SA that is an argument, or where `how` is PROBED. */
static __always_inline void read_replay(enum way how, struct xfrm_state *x, struct replay *r)
{
	struct xfrm_replay_state_esn *esn = FIELD(how, x, replay_esn);

	__builtin_memset(r, 0, sizeof(*r));
	if (!esn) {
		r->window = FIELD(how, x, props.replay_window);
		/* xfrm_replay_check_legacy(): the bitmap has 32 bits, whatever the SA asks for. */
		if (r->window > 32)
			r->window = 32;
		r->seq = FIELD(how, x, replay.seq);
		r->oseq = FIELD(how, x, replay.oseq);
		return;
	}
	r->window = FIELD(how, esn, replay_window);
	r->seq = FIELD(how, esn, seq);
	r->oseq = FIELD(how, esn, oseq);
	if (!(FIELD(how, x, props.flags) & XFRM_STATE_ESN))
		return;
	r->esn = 1;
	r->seq_hi = FIELD(how, esn, seq_hi);
	r->oseq_hi = FIELD(how, esn, oseq_hi);
}

static __always_inline __u64 join(__u32 hi, __u32 low)
{
	return (__u64)hi << 32 | low;
}

/* Addresses to the form of abi.h: 16 bytes, IPv4 mapped. `from` is 4 or 16 bytes of kernel memory. */
static __always_inline void read_address(enum way how, __u8 to[16], const void *from, __u8 family)
{
	__builtin_memset(to, 0, 16);
	if (family == 6) {
		read_words(how, to, from, 16, 4);
		return;
	}
	to[10] = 0xff;
	to[11] = 0xff;
	read_words(how, to + 12, from, 4, 4);
}

#endif
