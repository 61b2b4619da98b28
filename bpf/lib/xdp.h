/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet that XDP shows us, from a device or from a capture file. */
#ifndef XFRMSCOPE_XDP_H
#define XFRMSCOPE_XDP_H

#include "account.h"

/* Not inlined, so that the compiler describes struct offline_meta to the Go side. */
static __noinline __u64 offline_time(const struct offline_meta *meta)
{
	return meta->time_ns;
}

static __always_inline int xdp_observe(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct cursor c = { .data = data, .end = end, .limit = end - data, .ctx = ctx, .from_xdp = true };
	struct scene at = { .dir = DIR_IN, .from = FROM_XDP, .ctx = ctx };
	struct view v = {};
	enum why why;

	if (cfg_offline) {
		struct offline_meta *meta = (void *)(long)ctx->data_meta;

		at.dir = DIR_UNKNOWN;
		at.from = FROM_CAPTURE;
		if ((void *)(meta + 1) <= data) {
			at.ifindex = meta->ifindex;
			at.time_ns = offline_time(meta);
			if (meta->wire_len > c.limit)
				c.limit = meta->wire_len;
		}
	}
	if (likely(parse_stranger(&c))) {
		count_class(WHY_NOT_IPSEC, at.dir);
		return XDP_PASS;
	}
	why = parse_eth(&c, &v, 0);
	observe(why, &v, &c, &at);
	return XDP_PASS;
}

#endif
