/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the audit hooks know of a packet that xfrm is about to drop. They note it for kfree_skb, which
 * runs next on the same CPU; without that they count the packet themselves.
 */
#ifndef XFRMSCOPE_STACK_AUDIT_H
#define XFRMSCOPE_STACK_AUDIT_H

#include "claim.h"
#include "stack_count.h"
#include "stack_judge.h"
#include "stack_maps.h"

/* Where the audit hooks write down what they know; cleared. */
static __always_inline struct drop *new_note(struct sk_buff *skb, __u8 dir)
{
	struct shadow *s = my_shadow();
	struct drop *d;

	if (!s || (cfg_have_kfree && !s->primed))
		return NULL;
	d = &s->notes[dir & 1];
	forget(d);
	d->key.dir = dir;
	return d;
}

/* The packet is freed right after; kfree_skb counts it if it is there. */
static __always_inline int note(struct drop *d, struct sk_buff *skb)
{
	if (cfg_have_kfree) {
		d->skb = (__u64)skb;
		return 0;
	}
	know_device(d, skb);
	explain_drop(d, skb, 0);
	account(NULL, d, 0, 0, 0);
	claim((__u64)skb);
	return 0;
}

static __always_inline bool is_ours(enum way how, struct xfrm_state *x)
{
	return FIELD(how, x, xs_net.net) == target_net;
}

static __always_inline int on_replay(enum way how, struct xfrm_state *x, struct sk_buff *skb, __be32 net_seq)
{
	struct drop *d;

	if (!is_ours(how, x))
		return 0;
	d = new_note(skb, DIR_IN);
	if (!d)
		return 0;
	know_sa(how, d, x, DIR_IN);
	judge_replay(how, d, x, bpf_ntohl(net_seq));
	return note(d, skb);
}

static __always_inline int on_icvfail(enum way how, struct xfrm_state *x, struct sk_buff *skb)
{
	struct drop *d;

	if (!is_ours(how, x))
		return 0;
	d = new_note(skb, DIR_IN);
	if (!d)
		return 0;
	know_sa(how, d, x, DIR_IN);
	judge_integrity(how, d, x, skb, CAUSE_INTEGRITY_FAILED);
	return note(d, skb);
}

static __always_inline int on_notfound(enum way how, struct sk_buff *skb, __be32 net_spi, __be32 net_seq)
{
	struct drop *d;

	if (skb_netns(how, skb) != target_net)
		return 0;
	d = new_note(skb, DIR_IN);
	if (!d)
		return 0;
	know_headers(d, skb);
	d->key.spi = bpf_ntohl(net_spi);
	d->seq = bpf_ntohl(net_seq);
	d->cause = CAUSE_NO_STATE;
	d->class = MIB_LOST_STATE;
	return note(d, skb);
}

static __always_inline int on_replay_overflow(enum way how, struct xfrm_state *x, struct sk_buff *skb)
{
	struct replay r;
	struct drop *d;

	if (!is_ours(how, x))
		return 0;
	d = new_note(skb, DIR_OUT);
	if (!d)
		return 0;
	know_sa(how, d, x, DIR_OUT);
	read_replay(how, x, &r);
	d->seq = join(r.oseq_hi, r.oseq);
	d->top = d->seq;
	d->cause = CAUSE_OUT_SEQ_ERROR;
	d->class = MIB_OSEQ;
	return note(d, skb);
}

#endif
