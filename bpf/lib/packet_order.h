/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * In order, late, repeated: a window of its own for each SA on the wire. The wire program's cannot be
 * asked, because it has marked the number by the time that TC sees the packet. This one is under a
 * lock, which every kernel has: who captures packets pays more for the copy than for the lock.
 */
#ifndef XFRMSCOPE_PACKET_ORDER_H
#define XFRMSCOPE_PACKET_ORDER_H

#include "packet_abi.h"

#define ORDER_WORDS   256
#define ORDER_HORIZON ((ORDER_WORDS - 1) * 32)
/* The tag above a word's 32 bits: 27 bits of block number, the rest counts restarts. */
#define ORDER_EPOCH_SHIFT 27

struct order_key {
	__u8 dst[16];
	__u32 spi;
	__u8 dir;
	__u8 family;
	__u16 pad;
};

struct order_state {
	struct bpf_spin_lock lock;
	__u32 highest;
	__u32 epoch;
	__u32 begun;
	/* Consecutive numbers outside the window, and repeated ones from 1 on: what proves a restart. */
	__u32 outside_next;
	__u32 outside_run;
	__u32 inside_next;
	__u32 inside_run;
	__u32 run_top; /* `highest` when they began: a sequence that goes on has not been restarted */
	__u32 pad;
	__u64 words[ORDER_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct order_key);
	__type(value, struct order_state);
} order_states SEC(".maps");

/* Zeros, as bytes: a constant with a lock in it is refused (kernel check_map_prog_compatibility). */
static const char no_order[sizeof(struct order_state)];

static __always_inline void order_restart(struct order_state *s, __u32 seq)
{
	s->epoch++;
	s->highest = seq;
	s->outside_run = 0;
	s->inside_run = 0;
}

/* The number's bit is set; whether it was so before. */
static __always_inline bool order_mark(struct order_state *s, __u32 seq)
{
	__u64 *word = &s->words[(seq / 32) % ORDER_WORDS];
	__u32 tag = s->epoch << ORDER_EPOCH_SHIFT | seq / 32;
	__u64 bit = 1ULL << (seq % 32);

	if (*word >> 32 != tag)
		*word = (__u64)tag << 32;
	if (*word & bit)
		return true;
	*word |= bit;
	return false;
}

/* Under the lock. */
static __always_inline enum packet_order order_settle(struct order_state *s, __u32 seq, __u64 *distance)
{
	__s32 ahead = seq - s->highest;

	*distance = ahead < 0 ? -(__s64)ahead : ahead;
	if (!s->begun) {
		s->begun = 1;
		s->epoch = 1; /* a word of zeros belongs to no block */
		s->highest = seq;
		*distance = 0;
		order_mark(s, seq);
		return ORDER_FIRST;
	}
	if (s->run_top != s->highest) {
		s->run_top = s->highest;
		s->outside_run = 0;
		s->inside_run = 0;
	}
	if (*distance > ORDER_HORIZON) {
		s->outside_run = seq == s->outside_next ? s->outside_run + 1 : 1;
		s->outside_next = seq + 1;
		if (s->outside_run < SEQ_CONFIRM)
			return ORDER_OUTSIDE;
		order_restart(s, seq);
		order_mark(s, seq);
		return ORDER_RESTART;
	}
	if (ahead > 0) {
		s->highest = seq;
		order_mark(s, seq);
		*distance = ahead - 1;
		return ahead == 1 ? ORDER_NEXT : ORDER_AHEAD;
	}
	if (!order_mark(s, seq))
		return ORDER_LATE;
	if (seq == 1)
		s->inside_run = 1;
	else
		s->inside_run = s->inside_run && seq == s->inside_next ? s->inside_run + 1 : 0;
	s->inside_next = seq + 1;
	if (s->inside_run < SEQ_CONFIRM_INSIDE)
		return ORDER_DUPLICATE;
	order_restart(s, seq);
	order_mark(s, seq);
	return ORDER_RESTART;
}

static __always_inline void order_judge(struct packet_head *h)
{
	struct order_key key = { .spi = h->spi, .dir = h->dir, .family = h->family };
	struct order_state *s;
	__u64 distance;
	__u8 order;

	__builtin_memcpy(key.dst, h->dst, sizeof(key.dst));
	s = bpf_map_lookup_elem(&order_states, &key);
	if (!s) {
		bpf_map_update_elem(&order_states, &key, no_order, BPF_NOEXIST);
		s = bpf_map_lookup_elem(&order_states, &key);
		if (!s)
			return; /* no room: ORDER_NONE says so */
	}
	bpf_spin_lock(&s->lock);
	order = order_settle(s, h->seq, &distance);
	bpf_spin_unlock(&s->lock);
	h->order = order;
	h->distance = distance;
}

#endif
