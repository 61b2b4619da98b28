/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The window, and the handful of operations that differ between the two builds: atomic ones
 * (BPF_CMPXCHG, kernel 5.12 and later) and, with WINDOW_LOCK, plain ones under a spin lock.
 *
 * Why the figures are exact on any number of CPUs: one operation sets the bit of a number and tells
 * whether it was set before, so that each number is unique once and a duplicate ever after. Only
 * then does its packet try to raise `highest`. Whoever raises it from H to S adds the S-H-1 numbers
 * between to `holes`; who cannot, because a higher number is there, takes one hole away. Summed up,
 * holes = (numbers from first to highest) - (packets that raised it) - (packets that did not), in
 * whatever order the CPUs come.
 *
 * A CPU may join a number by what it last raised `highest` to itself, instead of reading it. That is never
 * above the true one, and the number is taken so only if it lies at most a window further on. So either it
 * was joined rightly, or `highest` has since passed it by more than a window: then its block is older than
 * all in the window, the bit set in it means nothing, and the number is settled again (MARK_AGAIN).
 */
#ifndef XFRMSCOPE_WINDOW_H
#define XFRMSCOPE_WINDOW_H

#include "abi.h"
#include "config.h"
#include "maps.h"
#include "verifier.h"

#define READ_ONCE(x)	 (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))

/* Adds without asking for the old value: one instruction on every kernel, in both builds. */
#define atomic_add(ptr, n) ((void)__sync_fetch_and_add(ptr, n))

/*
 * How often an atomic update is tried after another CPU was faster. A capture is read by one CPU at a
 * time, and nothing is guessed then, so one try will do, and the verifier has a third less to follow: that
 * is asked after a failure only, so that what succeeds at once does not pay for the question.
 */
#define WINDOW_TRIES 32
/* The same where it is done in a loop, which the verifier has to follow through both. */
#define WINDOW_TRIES_FEW 8
#define LAST_TRY	 cfg_offline

enum mark {
	MARK_NEW,     /* the bit was clear, and is set by us */
	MARK_SEEN,    /* the bit was set */
	MARK_PAST,    /* the word already belongs to a later block: outside the window */
	MARK_FAILED,  /* the other CPUs were faster every time */
	MARK_RAISED,  /* MARK_NEW, and `highest` is our number now */
	MARK_OUTSIDE, /* not tried: beyond SEQ_HORIZON */
	MARK_AGAIN,   /* settled by a highest number that was long past; to be settled anew */
};

/* The number joined to 64 bits: of all that end in these 32 bits, the one nearest to the highest. */
static __always_inline __u64 join(__u64 top, __u32 seq)
{
	return top + (__s64)(__s32)(seq - (__u32)top);
}

/* Whether the window reaches from the one to the other. */
static __always_inline bool window_reaches(__u64 top, __u64 seq)
{
	return seq - top + SEQ_HORIZON <= 2 * SEQ_HORIZON;
}

static __always_inline __u64 *window_word(struct sa_state *sa, __u64 seq)
{
	return &sa->window[(seq / SEQ_BLOCK_BITS) % SEQ_BLOCKS];
}

/* A block's tag is its number's low half; older and newer are told by the sign of the difference. */
static __always_inline __u32 window_tag(__u64 seq)
{
	return seq / SEQ_BLOCK_BITS;
}

/*
 * What becomes of a word when `seq` is marked in it. MARK_NEW: *word is to be replaced. An older
 * block makes way, because nothing can be inside the window and as far behind as that.
 */
static __always_inline enum mark window_step(__u64 *word, __u64 seq)
{
	__u32 tag = window_tag(seq);
	__u64 bit = 1ULL << (seq % SEQ_BLOCK_BITS);
	__u64 old = *word;

	if ((__u32)(old >> 32) == tag) {
		if (old & bit)
			return MARK_SEEN;
		*word = old | bit;
		return MARK_NEW;
	}
	if (old && (__s32)((__u32)(old >> 32) - tag) > 0)
		return MARK_PAST;
	*word = (__u64)tag << 32 | bit;
	return MARK_NEW;
}

#ifndef WINDOW_LOCK

static __always_inline bool window_cas(__u32 slot, __u64 *at, __u64 old, __u64 new)
{
	return __sync_val_compare_and_swap(at, old, new) == old;
}

static __always_inline __u64 window_fetch_add(__u32 slot, __u64 *at, __u64 n)
{
	return __sync_fetch_and_add(at, n);
}

/*
 * What a number's word holds if all numbers before it have come and none after it. As good a value to begin
 * comparing with as any; the right one mostly, and then the word need not be read first: a read brings
 * its cache line for sharing only, and the exchange would have to fetch it from the other CPU once more.
 */
static __always_inline __u64 window_guess(__u64 seq)
{
	__u32 before = (1U << (seq % SEQ_BLOCK_BITS)) - 1;

	if (!before)
		return (__u64)(window_tag(seq) - SEQ_BLOCKS) << 32 | (__u32)-1;
	return (__u64)window_tag(seq) << 32 | before;
}

static __always_inline enum mark window_mark(struct sa_state *sa, __u32 slot, __u64 seq, bool guess,
					     int tries)
{
	__u64 *at = window_word(sa, seq);
	__u64 old = guess ? window_guess(seq) : READ_ONCE(*at);

	NO_UNROLL
	for (int i = 0; i < tries; i++) {
		__u64 word = old, seen;
		enum mark mark = window_step(&word, seq);

		if (mark != MARK_NEW)
			return mark;
		seen = __sync_val_compare_and_swap(at, old, word);
		if (seen == old)
			return MARK_NEW;
		if (LAST_TRY)
			break;
		old = seen;
	}
	return MARK_FAILED;
}

/*
 * Marks a number and raises `highest` to it if it is lower. *top is what the caller took for the
 * highest, a guess perhaps; it becomes the value that was raised, or the one that was found.
 */
static __always_inline enum mark window_settle(struct sa_state *sa, __u32 slot, __u64 seq, __u64 *top,
					       bool guess)
{
	enum mark mark = window_mark(sa, slot, seq, guess, WINDOW_TRIES);
	__u64 old = *top;

	if (mark != MARK_NEW) {
		*top = READ_ONCE(sa->highest);
		return mark;
	}
	NO_UNROLL
	for (int i = 0; i < WINDOW_TRIES; i++) {
		__u64 seen;

		if (seq <= old) {
			*top = old;
			return MARK_NEW;
		}
		seen = __sync_val_compare_and_swap(&sa->highest, old, seq);
		if (seen == old) {
			*top = old;
			return MARK_RAISED;
		}
		old = seen;
		if (LAST_TRY)
			break;
	}
	*top = old;
	return MARK_FAILED;
}

#else /* WINDOW_LOCK */

/* No helper and no function may be called between lock and unlock (kernel check_func_call). */
static __always_inline bool window_cas(__u32 slot, __u64 *at, __u64 old, __u64 new)
{
	struct sa_lock *lock = bpf_map_lookup_elem(&sa_locks, &slot);
	bool same;

	if (!lock)
		return false;
	bpf_spin_lock(&lock->lock);
	same = *at == old;
	if (same)
		*at = new;
	bpf_spin_unlock(&lock->lock);
	return same;
}

static __always_inline __u64 window_fetch_add(__u32 slot, __u64 *at, __u64 n)
{
	struct sa_lock *lock = bpf_map_lookup_elem(&sa_locks, &slot);
	__u64 old;

	if (!lock)
		return 0;
	bpf_spin_lock(&lock->lock);
	old = *at;
	*at = old + n;
	bpf_spin_unlock(&lock->lock);
	return old;
}

static __always_inline enum mark window_mark(struct sa_state *sa, __u32 slot, __u64 seq, bool guess,
					     int tries)
{
	struct sa_lock *lock = bpf_map_lookup_elem(&sa_locks, &slot);
	__u64 *at = window_word(sa, seq), word;
	enum mark mark;

	if (!lock)
		return MARK_FAILED;
	bpf_spin_lock(&lock->lock);
	word = *at;
	mark = window_step(&word, seq);
	if (mark == MARK_NEW)
		*at = word;
	bpf_spin_unlock(&lock->lock);
	return mark;
}

static __always_inline enum mark window_settle(struct sa_state *sa, __u32 slot, __u64 seq, __u64 *top,
					       bool guess)
{
	struct sa_lock *lock = bpf_map_lookup_elem(&sa_locks, &slot);
	__u64 *at = window_word(sa, seq), word, old;
	enum mark mark;

	if (!lock)
		return MARK_FAILED;
	bpf_spin_lock(&lock->lock);
	word = *at;
	old = sa->highest;
	mark = window_step(&word, seq);
	if (mark == MARK_NEW) {
		*at = word;
		if (seq > old) {
			sa->highest = seq;
			mark = MARK_RAISED;
		}
	}
	bpf_spin_unlock(&lock->lock);
	*top = old;
	return mark;
}

#endif

#endif
