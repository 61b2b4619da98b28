/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counting a dropped packet and telling of it. */
#ifndef XFRMSCOPE_STACK_COUNT_H
#define XFRMSCOPE_STACK_COUNT_H

#include "claim.h"
#include "events.h"
#include "stack_maps.h"
#include "stacks.h"

static __always_inline void forget(struct drop *d)
{
	__builtin_memset(d, 0, sizeof(*d));
}

/* What a new element starts as; too large for the stack of a program. */
static const struct stack_count no_drops;

static __always_inline __u32 log2_bucket(__u64 distance)
{
	__u64 limit = 2;
	__u32 bucket = 0;

	for (int i = 1; i < HIST_BUCKETS; i++) {
		/* The borrow of limit - 1 - distance: 1 if distance >= limit, without a branch. */
		bucket += (limit - 1 - distance) >> 63;
		limit <<= 1;
	}
	return bucket & (HIST_BUCKETS - 1);
}

static __always_inline void count_unknown(struct drop *d)
{
	struct stack_key key = d->key;
	__u64 one = 1, *packets;

	packets = bpf_map_lookup_elem(&unknown_spis, &key);
	if (packets) {
		(*packets)++;
		return;
	}
	if (!bpf_map_update_elem(&unknown_spis, &key, &one, BPF_NOEXIST))
		return;
	/* Another CPU may have been first; then the element is there, with nothing of ours in it. */
	packets = bpf_map_lookup_elem(&unknown_spis, &key);
	if (packets)
		(*packets)++;
	else
		lose(LOST_UNKNOWN_TABLE_FULL);
}

static __always_inline void count_cause(struct drop *d)
{
	struct stack_key key = d->key;
	struct stack_count *c;
	__u32 cause = d->cause;

	c = bpf_map_lookup_elem(&stack_counts, &key);
	if (!c) {
		bpf_map_update_elem(&stack_counts, &key, &no_drops, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&stack_counts, &key);
		if (!c) {
			lose(LOST_STACK_TABLE_FULL);
			return;
		}
	}
	if (cause >= CAUSE_MAX)
		return;
	c->causes[cause]++;
	c->reqid = d->reqid;
	c->if_id = d->if_id;
	if (d->replay_window)
		c->replay_window = d->replay_window;
	if (!d->distance)
		return;
	if (d->distance > c->late_max)
		c->late_max = d->distance;
	c->late_hist[log2_bucket(d->distance)]++;
}

static __always_inline bool may_tell(__u32 cause, __u64 now_ns)
{
	struct event_budget *budget = bpf_map_lookup_elem(&drop_budgets, &cause);

	if (!budget)
		return false;
	if (now_ns - budget->second_ns >= SECOND_NS) {
		budget->second_ns = now_ns;
		budget->used = 0;
	}
	if (budget->used >= cfg_events_per_sec)
		return false;
	budget->used++;
	return true;
}

/* The addresses that an event shows: where no SA can be named, the packet's own. */
static __always_inline bool shows_flow(const struct drop *d)
{
	return !d->key.spi && d->flow.family;
}

static __always_inline bool drop_wanted(const struct drop *d)
{
	struct subject s;

	if (!kind_wanted(EVENT_XFRM_DROP, d->key.dir))
		return false;
	if (!cfg_filter)
		return true;
	if (shows_flow(d)) {
		__builtin_memcpy(s.src, d->flow.src, sizeof(s.src));
		__builtin_memcpy(s.dst, d->flow.dst, sizeof(s.dst));
	} else {
		__builtin_memcpy(s.src, d->src, sizeof(s.src));
		__builtin_memcpy(s.dst, d->key.dst, sizeof(s.dst));
	}
	__builtin_memcpy(s.sa_dst, s.dst, sizeof(s.sa_dst));
	s.spi = d->key.spi;
	s.reqid = d->reqid;
	/* Decrypted, or not encrypted yet, a packet is at devices of the inside. */
	s.ifindex = d->key.dir == DIR_IN && !d->flow.family ? d->ifindex : 0;
	return subject_wanted(&s);
}

/* `ctx` is that of the tracepoint, NULL where the drop is told from elsewhere and has no stack. */
static __always_inline void tell(void *ctx, struct drop *d, __u64 location, __u32 slot, __u32 reason)
{
	__u64 now_ns = bpf_ktime_get_ns();
	struct event *e;

	if (!drop_wanted(d))
		return;
	if (!may_tell(d->cause, now_ns)) {
		lose(LOST_SUPPRESSED);
		return;
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lose(LOST_RING_FULL);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = now_ns;
	e->seq = d->seq;
	e->top = d->top;
	e->value = d->distance;
	e->location = location;
	__builtin_memcpy(e->src, d->src, sizeof(e->src));
	__builtin_memcpy(e->dst, d->key.dst, sizeof(e->dst));
	e->sport = d->sport;
	e->dport = d->dport;
	e->family = d->key.family;
	if (shows_flow(d)) {
		__builtin_memcpy(e->src, d->flow.src, sizeof(e->src));
		__builtin_memcpy(e->dst, d->flow.dst, sizeof(e->dst));
		e->sport = d->flow.sport;
		e->dport = d->flow.dport;
		e->family = d->flow.family;
	}
	e->spi = d->key.spi;
	e->ifindex = d->ifindex;
	e->cpu = bpf_get_smp_processor_id();
	e->reqid = d->reqid;
	e->replay_window = d->replay_window;
	e->mib = slot;
	e->reason = reason;
	e->kind = EVENT_XFRM_DROP;
	e->cause = d->cause;
	e->dir = d->key.dir;
	e->stack = ctx ? kernel_stack(ctx) : 0;
	bpf_ringbuf_submit(e, 0);
}

/* The one place where a dropped packet is counted. */
static __always_inline void account(void *ctx, struct drop *d, __u64 location, __u32 slot, __u32 reason)
{
	if (d->cause == CAUSE_NO_STATE)
		count_unknown(d);
	else
		count_cause(d);
	tell(ctx, d, location, slot, reason);
	d->skb = 0;
}

/* For the packet and the drops programs, if they are there: they run later for the same packet on this CPU.
 */
static __always_inline void explain_drop(const struct drop *d, struct sk_buff *skb, __u32 slot)
{
	__u32 zero = 0;
	struct claim_mark *mark = bpf_map_lookup_elem(&claimed_skb, &zero);

	if (!mark)
		return;
	mark->mib = slot;
	mark->cause = d->cause;
	mark->seq = d->seq;
	mark->top = d->top;
	mark->distance = d->distance;
	mark->spi = d->key.spi;
	mark->dir = d->key.dir;
	mark->explained = (__u64)skb;
}

#endif
