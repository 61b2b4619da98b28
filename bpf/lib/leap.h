/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sequences that begin anew or leap. One packet proves nothing, since anyone can send one with any
 * number: it takes a run of consecutive numbers, during which the sequence as we knew it stood still.
 */
#ifndef XFRMSCOPE_LEAP_H
#define XFRMSCOPE_LEAP_H

#include "packet.h"
#include "window.h"

/* How many unique packets have arrived, the present one included once it is accounted. */
static __always_inline __u64 arrival_index(struct sa_state *sa)
{
	return READ_ONCE(sa->closed_span) + READ_ONCE(sa->highest) - READ_ONCE(sa->first) + 1 -
	       READ_ONCE(sa->holes) + READ_ONCE(sa->early);
}

/* Keeps, for the late packets to come, at which arrival the numbers from `missing` on were skipped. */
static __always_inline void gap_remember(struct sa_state *sa, __u32 slot, __u64 missing, __u64 index)
{
	__u64 n = window_fetch_add(slot, &sa->gap_count, 1);

	WRITE_ONCE(sa->gaps[n % SEQ_GAPS], missing << 32 | (__u32)index);
}

/*
 * Follows a run: consecutive numbers, while highest stands still. Returns its length with this
 * packet in it, or 0 when another CPU was faster. A number that does not follow begins a new run.
 */
static __always_inline __u32 run_follow(__u32 slot, __u64 *run, __u64 *run_top, const struct packet *p)
{
	__u64 old = READ_ONCE(*run);
	__u32 length = 1;

	if ((__u32)old && old >> 32 == p->seq && READ_ONCE(*run_top) == p->top)
		length = (__u32)old + 1;
	else
		WRITE_ONCE(*run_top, p->top);
	if (!window_cas(slot, run, old, (__u64)(p->seq + 1) << 32 | length))
		return 0;
	return length;
}

/*
 * Empties the words whose tag is so far from the present one that the sign of the difference would
 * soon mean the opposite. Only leaps leave such words behind; in order each word is used anew after
 * SEQ_WINDOW numbers.
 */
#define WINDOW_AGE_MAX (1U << 28)

static __always_inline void window_sweep(struct sa_state *sa, __u64 seq)
{
	NO_UNROLL
	for (int i = 0; i < SEQ_BLOCKS; i++) {
		__u32 age = window_tag(seq) - (__u32)(READ_ONCE(sa->window[i]) >> 32);

		if (age > WINDOW_AGE_MAX)
			WRITE_ONCE(sa->window[i], 0);
	}
}

/* A number of a proven run. Global: the verifier follows its tries once, and not once for each number. */
__noinline int run_step(__u32 slot, __u64 seq)
{
	struct sa_state *sa = bpf_map_lookup_elem(&sa_states, &slot);

	return sa ? window_mark(sa, slot, seq, false, WINDOW_TRIES_FEW) : MARK_FAILED;
}

/*
 * Sets the bits of a proven run, which ends at `last`. A number of it that another CPU marked
 * meanwhile was taken for a late one there and filled a hole; we count it as unique as well, so one
 * of the two becomes a duplicate and the hole is given back.
 */
__noinline int run_mark(__u32 slot, __u64 last, __u32 length)
{
	struct sa_state *sa = bpf_map_lookup_elem(&sa_states, &slot);
	__u64 seen = 0, failed = 0;

	if (!sa)
		return 0;
	window_sweep(sa, last);
	NO_UNROLL
	for (int i = 0; i < SEQ_CONFIRM_INSIDE; i++) {
		enum mark mark;

		if (i >= length)
			break;
		mark = run_step(slot, last - i);
		seen += mark == MARK_SEEN;
		failed += mark != MARK_SEEN && mark != MARK_NEW;
		FORGET(seen, last);
		FORGET(failed, last);
	}
	if (seen) {
		atomic_add(&sa->holes, seen);
		atomic_add(&sa->duplicates, seen);
	}
	if (failed)
		lose(LOST_CONTENTION);
	return 0;
}

/*
 * The sequence began anew with the run that this packet completes. The new numbers are joined to
 * the next epoch, so their blocks are others than the old ones'. False if the old sequence moved.
 */
static __always_inline bool restart(struct sa_state *sa, struct packet *p, __u32 length)
{
	__u64 before = arrival_index(sa);
	__u64 first = ((p->top >> 32) + 1) << 32 | (__u32)(p->seq - length + 1);
	__u64 last = first + length - 1;

	if (!window_cas(p->slot, &sa->highest, p->top, last))
		return false;
	atomic_add(&sa->closed_span, p->top - READ_ONCE(sa->first) + 1);
	WRITE_ONCE(sa->first, first);
	WRITE_ONCE(sa->first_index, before + 1);
	run_mark(p->slot, last, length);
	NO_UNROLL
	for (int i = 0; i < SEQ_GAPS; i++)
		WRITE_ONCE(sa->gaps[i], 0);
	atomic_add(&sa->restarts, 1);
	WRITE_ONCE(sa->restart_ns, packet_time(p));
	WRITE_ONCE(sa->gap_last, 0);
	packet_event(p, EVENT_RESTART, first, 0, 0);
	return true;
}

/* The sequence went on beyond the window; what lies between is missing. False if it moved. */
static __always_inline bool jump(struct sa_state *sa, struct packet *p, __u32 length)
{
	__u64 before = arrival_index(sa);
	__u64 skipped = p->seq64 - p->top - length;

	if (!window_cas(p->slot, &sa->highest, p->top, p->seq64))
		return false;
	atomic_add(&sa->holes, skipped);
	run_mark(p->slot, p->seq64, length);
	gap_remember(sa, p->slot, p->top + 1, before + 1);
	atomic_add(&sa->jumps, 1);
	atomic_add(&sa->jumped, skipped);
	packet_event(p, EVENT_JUMP, p->seq64, skipped, 0);
	return true;
}

/*
 * A number too far from highest to say whether it was seen. The run that proves a new beginning
 * turns from stale into unique, but for this packet, which was never counted as stale.
 */
static __always_inline void outside(struct sa_state *sa, struct packet *p)
{
	__s64 distance = p->seq64 - p->top;
	__u32 length = run_follow(p->slot, &sa->outside_run, &sa->outside_top, p);

	if (length == SEQ_CONFIRM) {
		bool wrapped = p->seq64 >> 32 != p->top >> 32;
		bool behind = distance < 0 || (wrapped && distance >= SEQ_LEAP_MAX);

		if (behind ? restart(sa, p, SEQ_CONFIRM) : jump(sa, p, SEQ_CONFIRM)) {
			atomic_add(&sa->stale, -(SEQ_CONFIRM - 1));
			return;
		}
	}
	atomic_add(&sa->stale, 1);
	packet_event(p, EVENT_STALE, p->seq64, distance, 0);
}

enum below {
	BELOW_REPEATED, /* seen before */
	BELOW_EARLY,	/* new, and below the first number */
	BELOW_FILLS,	/* new, and fills a hole */
};

/*
 * A sender that begins anew within the window sends the numbers from 1 on and nothing else, whether they
 * were seen before or not; SEQ_CONFIRM_INSIDE of them in order are believed. True with the packet that
 * completes them. Those before it are then of the new sequence and no longer repeated or early ones of
 * the old; that they came late stays in the figures of lateness.
 */
static __always_inline bool begins_anew(struct sa_state *sa, struct packet *p, enum below below)
{
	__u64 early, fills, repeated;
	__u32 length;

	if (p->seq != 1 && !(__u32)READ_ONCE(sa->inside_run))
		return false;
	length = run_follow(p->slot, &sa->inside_run, &sa->inside_top, p);
	if (length == 1) {
		WRITE_ONCE(sa->inside_early, 0);
		WRITE_ONCE(sa->inside_fills, 0);
		if (p->seq != 1)
			WRITE_ONCE(sa->inside_run, 0);
	}
	if (length != SEQ_CONFIRM_INSIDE) {
		if (below == BELOW_EARLY)
			atomic_add(&sa->inside_early, 1);
		if (below == BELOW_FILLS)
			atomic_add(&sa->inside_fills, 1);
		return false;
	}
	early = READ_ONCE(sa->inside_early);
	fills = READ_ONCE(sa->inside_fills);
	repeated = SEQ_CONFIRM_INSIDE - 1 - early - fills;
	atomic_add(&sa->early, -early);
	atomic_add(&sa->holes, fills);
	if (restart(sa, p, SEQ_CONFIRM_INSIDE)) {
		atomic_add(&sa->duplicates, -repeated);
		return true;
	}
	atomic_add(&sa->early, early);
	atomic_add(&sa->holes, -fills);
	return false;
}

/* A number that was seen before. */
static __always_inline void duplicate(struct sa_state *sa, struct packet *p)
{
	if (begins_anew(sa, p, BELOW_REPEATED))
		return;
	atomic_add(&sa->duplicates, 1);
	packet_event(p, EVENT_DUPLICATE, p->seq64, p->top - p->seq64, 0);
}

#endif
