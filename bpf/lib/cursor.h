/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A place in a packet, with two ends: where the readable bytes end, and where the packet ends by
 * its own account. They differ for padded frames, for captures that a snap length has cut and for
 * packets that TC holds in pages.
 */
#ifndef XFRMSCOPE_CURSOR_H
#define XFRMSCOPE_CURSOR_H

#include "verifier.h"

struct cursor {
	void *data;
	void *end;
	__u64 at;    /* where we are, from data */
	__u64 limit; /* where the packet ends by its own account, from data */
	void *ctx;   /* struct xdp_md or __sk_buff */
	bool from_xdp;
	bool cut; /* a header lay in the packet, but not in the readable bytes */
};

static __always_inline __u64 cursor_left(const struct cursor *c)
{
	return c->limit - c->at;
}

/*
 * Whether the next `size` bytes are there; *header is then where they begin. Not by returning NULL:
 * clang takes packet pointers for 32-bit numbers, as the context declares them, and would compare
 * only that half.
 */
static __always_inline bool cursor_take(struct cursor *c, void **header, __u32 size)
{
	*header = c->data + c->at;
	if (c->at + size > c->limit)
		return false;
	if (*header + size > c->end) {
		c->cut = true;
		return false;
	}
	c->at += size;
	return true;
}

#define cursor_pull(c, header) cursor_take(c, (void **)(header), sizeof(**(header)))

/* Passes over bytes that nobody reads, so they need not be readable. */
static __always_inline bool cursor_skip(struct cursor *c, __u32 size)
{
	if (c->at + size > c->limit)
		return false;
	c->at += size;
	return true;
}

/* A number that the verifier knows nothing of: see FORGET. */
static __always_inline __u64 cursor_unknown(const struct cursor *c)
{
	return c->end - c->data;
}

#endif
