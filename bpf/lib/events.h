/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The event ring, its rate limit and the losses of both. Shared by the wire and the stack objects,
 * which the loader joins by replacing the maps of the one with those of the other.
 */
#ifndef XFRMSCOPE_EVENTS_H
#define XFRMSCOPE_EVENTS_H

#include "abi.h"
#include "config.h"
#include "filter.h"

#define SECOND_NS 1000000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

/* One second's allowance of one kind of event on one CPU. */
struct event_budget {
	__u64 second_ns; /* when the second began, by the clock of the events */
	__u64 used;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EVENT_MAX);
	__type(key, enum event_kind);
	__type(value, struct event_budget);
} event_budgets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOST_MAX);
	__type(key, enum lost);
	__type(value, __u64);
} lost_counts SEC(".maps");

static __always_inline void lose(enum lost what)
{
	__u32 key = what;
	__u64 *count = bpf_map_lookup_elem(&lost_counts, &key);

	if (count)
		*count += 1;
}

/*
 * Whether an event of this kind may still be sent in this second, of which `limit` are. A clock that goes
 * back, as that of a capture file may, opens a new second.
 */
static __always_inline bool event_allowed(enum event_kind kind, __u64 now_ns, __u32 limit)
{
	__u32 key = kind;
	struct event_budget *budget = bpf_map_lookup_elem(&event_budgets, &key);

	if (!budget)
		return false;
	if (now_ns - budget->second_ns >= SECOND_NS) {
		budget->second_ns = now_ns;
		budget->used = 0;
	}
	if (budget->used >= limit)
		return false;
	budget->used += 1;
	return true;
}

/* A zeroed event of this kind in the ring, to be filled and submitted; NULL, counted, when it is full. */
static __always_inline struct event *event_reserve(enum event_kind kind, __u64 now_ns)
{
	struct event *e;

	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lose(LOST_RING_FULL);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = now_ns;
	e->kind = kind;
	e->cpu = bpf_get_smp_processor_id();
	return e;
}

/* The same within the rate limit of ordinary events; NULL, counted, beyond it. */
static __always_inline struct event *event_begin(enum event_kind kind, __u64 now_ns)
{
	if (!event_allowed(kind, now_ns, cfg_events_per_sec)) {
		lose(LOST_SUPPRESSED);
		return NULL;
	}
	return event_reserve(kind, now_ns);
}

#endif
