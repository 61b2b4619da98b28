/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet that TC shows us. */
#ifndef XFRMSCOPE_TC_H
#define XFRMSCOPE_TC_H

#include "account.h"

/*
 * What TC is asked to make readable: Ethernet, two tags, IPv6, and extension headers for most that
 * is met. Packets with more than that stay as they are and count as truncated.
 */
#define PULL_BYTES 256

/*
 * One look at the packet. False, with nothing counted, when a header is out of reach; the last look
 * counts in any case.
 */
static __always_inline bool tc_look(struct __sk_buff *skb, enum direction dir, bool l3, __u64 asides,
				    bool last)
{
	struct scene at = { .dir = dir, .from = FROM_TC, .ctx = skb };
	struct cursor c = {
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
		.limit = skb->len,
		.ctx = skb,
	};
	struct view v = {};
	enum why why;

	if (!l3 && !last && !skb->vlan_present && likely(parse_stranger(&c))) {
		count_class(WHY_NOT_IPSEC, dir);
		return true;
	}
	v.asides = asides;
	why = l3 ? parse_l3(&c, &v) : parse_eth(&c, &v, skb->vlan_present ? 1 : 0);
	if (!last && unlikely(c.cut))
		return false;
	observe(why, &v, &c, &at);
	return true;
}

/*
 * TC may hold a packet's headers in pages, out of reach. Then, and only then, they are pulled into
 * the linear part, which moves bytes but changes none, and the packet is looked at again.
 */
static __always_inline int tc_observe(struct __sk_buff *skb, enum direction dir, bool l3)
{
	__u64 asides = 0;

	if (likely(tc_look(skb, dir, l3, 0, false)))
		return TCX_NEXT;
	if (bpf_skb_pull_data(skb, skb->len < PULL_BYTES ? skb->len : PULL_BYTES))
		lose(LOST_PULL);
	else
		asides = ASIDE_BIT(ASIDE_PULLED);
	tc_look(skb, dir, l3, asides, true);
	return TCX_NEXT;
}

#endif
