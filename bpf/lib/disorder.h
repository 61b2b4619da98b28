/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What happens to packets that are not the next of their SA: gaps, late ones, duplicates. Off the
 * straight path, so clock, ring and further atomics are affordable.
 */
#ifndef XFRMSCOPE_DISORDER_H
#define XFRMSCOPE_DISORDER_H

#include "leap.h"

/* floor(log2(n)), the last bucket open; n is at least 1. */
static __always_inline __u32 log2_bucket(__u64 n)
{
	__u32 bucket = 0;

	if (n >= 1 << (HIST_BUCKETS - 1))
		return HIST_BUCKETS - 1;
	if (n >= 1 << 8) {
		bucket += 8;
		n >>= 8;
	}
	if (n >= 1 << 4) {
		bucket += 4;
		n >>= 4;
	}
	if (n >= 1 << 2) {
		bucket += 2;
		n >>= 2;
	}
	bucket += n >= 2;
	return bucket & (HIST_BUCKETS - 1);
}

static __always_inline void raise(__u32 slot, __u64 *at, __u64 n)
{
	NO_UNROLL
	for (int i = 0; i < WINDOW_TRIES; i++) {
		__u64 old = READ_ONCE(*at);

		if (old >= n || window_cas(slot, at, old, n))
			return;
		if (LAST_TRY)
			break;
	}
	lose(LOST_CONTENTION);
}

/* Arrival index of the packet that first passed over a number; *floor is set if it is no longer known. */
static __always_inline __u64 passed_at(struct sa_state *sa, __u64 seq, bool *floor)
{
	__u64 count = READ_ONCE(sa->gap_count);
	__u32 oldest = 0;

	NO_UNROLL
	for (int i = 0; i < SEQ_GAPS; i++) {
		__u64 gap;

		if (i >= count)
			break;
		gap = READ_ONCE(sa->gaps[(count - 1 - i) % SEQ_GAPS]);
		if (!gap)
			break;
		oldest = gap;
		if ((__s32)((__u32)seq - (__u32)(gap >> 32)) >= 0)
			return oldest;
	}
	*floor = true;
	return oldest;
}

/*
 * A number seen for the first time, after a higher one. Its reorder extent (RFC 4737 section 4.2.2) is the
 * distance, in arrivals, to the first packet with a higher number, which is the one that skipped it.
 */
static __always_inline void late(struct sa_state *sa, struct packet *p)
{
	struct sa_count *count = bpf_map_lookup_elem(&sa_counts, &p->slot);
	__u64 displacement = p->top - p->seq64;
	bool early = p->seq64 < READ_ONCE(sa->first), floor = false;
	__u32 index, passed, extent;

	if (begins_anew(sa, p, early ? BELOW_EARLY : BELOW_FILLS))
		return;
	atomic_add(&sa->late, 1);
	if (early)
		atomic_add(&sa->early, 1);
	else
		atomic_add(&sa->holes, -1);
	/*
	 * In order as far as this CPU can tell: the path kept the order, and the CPUs lost it. What the path
	 * disordered comes late on the CPU that received the higher number, too.
	 */
	if (count && (__s32)(p->seq - (__u32)count->newest) > 0)
		atomic_add(&sa->late_spread, 1);
	index = arrival_index(sa);
	passed = early ? READ_ONCE(sa->first_index) : passed_at(sa, p->seq64, &floor);
	extent = index - passed;
	/* When even the oldest gap that is known is not, or CPUs overtook each other: at least one. */
	if (!passed || (__s32)extent < 1)
		extent = 1;
	if (floor)
		atomic_add(&sa->extent_unknown, 1);
	atomic_add(&sa->extent_hist[log2_bucket(extent)], 1);
	atomic_add(&sa->displacement_hist[log2_bucket(displacement)], 1);
	raise(p->slot, &sa->extent_max, extent);
	raise(p->slot, &sa->displacement_max, displacement);
	packet_event(p, EVENT_LATE, p->seq64, displacement, extent);
}

/* Keeps how long gaps are and how far it is from one to the next. */
static __always_inline void gap_measure(struct sa_state *sa, __u64 missing, __u64 length)
{
	__u64 last = READ_ONCE(sa->gap_last), spacing = missing - last;

	atomic_add(&sa->gap_hist[log2_bucket(length)], 1);
	WRITE_ONCE(sa->gap_last, missing);
	if (!last || last >= missing)
		return; /* the first one, or another CPU was faster */
	if (spacing > SPACING_MAX)
		spacing = SPACING_MAX;
	atomic_add(&sa->spacings, 1);
	atomic_add(&sa->spacing_sum, spacing);
	atomic_add(&sa->spacing_squares, spacing * spacing);
}

static __always_inline void gap(struct sa_state *sa, struct packet *p)
{
	__u64 skipped = p->seq64 - p->top - 1;

	atomic_add(&sa->holes, skipped);
	atomic_add(&sa->gap_events, 1);
	gap_remember(sa, p->slot, p->top + 1, arrival_index(sa));
	gap_measure(sa, p->top + 1, skipped);
	packet_event(p, EVENT_GAP, p->seq64, skipped, 0);
}

/*
 * Settles a number again, from the highest one as it is. What is known of this CPU was so old that the
 * sequence had begun anew meanwhile, or gone on beyond the window; so the number was joined to an epoch
 * or marked in a block that is past, which means nothing: a word of an older block is empty.
 */
static __always_inline enum mark settle_again(struct sa_state *sa, struct packet *p)
{
	__u64 top = READ_ONCE(sa->highest), seq = join(top, p->seq);
	enum mark mark = MARK_OUTSIDE;
	struct sa_count *count;

	if (window_reaches(top, seq))
		mark = window_settle(sa, p->slot, seq, &top, false);
	p->seq64 = seq;
	p->top = top;
	count = bpf_map_lookup_elem(&sa_counts, &p->slot);
	if (mark == MARK_RAISED && count)
		count->newest = seq;
	return mark;
}

/* Everything that window_settle can say but "raised by one". */
__noinline int disorder(__u32 slot)
{
	struct sa_state *sa = bpf_map_lookup_elem(&sa_states, &slot);
	struct packet *p = packet_current();

	if (!sa || !p)
		return 0;
	if (p->mark == MARK_AGAIN)
		p->mark = settle_again(sa, p);
	if (p->mark == MARK_RAISED && p->seq64 == p->top + 1)
		return 0;
	switch (p->mark) {
	case MARK_RAISED:
		gap(sa, p);
		break;
	case MARK_NEW:
		late(sa, p);
		break;
	case MARK_SEEN:
		duplicate(sa, p);
		break;
	case MARK_OUTSIDE:
		outside(sa, p);
		break;
	case MARK_PAST:
		/* Another CPU moved the window on after we had looked. */
		atomic_add(&sa->stale, 1);
		packet_event(p, EVENT_STALE, p->seq64, p->seq64 - p->top, 0);
		break;
	default:
		atomic_add(&sa->stale, 1);
		lose(LOST_CONTENTION);
	}
	return 0;
}

#endif
