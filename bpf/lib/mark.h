/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Marks: the moments at which this host saw chosen packets. Both ends of a tunnel choose by the sequence
 * number, so both stamp the very same packets, and the difference of their clocks can be told afterwards.
 * Off unless somebody records.
 */
#ifndef XFRMSCOPE_MARK_H
#define XFRMSCOPE_MARK_H

#include "packet.h"

/*
 * A fast tunnel has more chosen packets than are worth an event. A plain limit would leave each end with
 * those of a moment of its own, and the ends with none in common. So the more marks a second has had, the
 * rounder a number has to be: each step has this many marks, and asks for four more zero bits.
 */
#define MARKS_A_STEP	16
#define MARK_STEPS	4
#define MARK_STEP_SHIFT 4

static __always_inline bool mark_due(__u32 seq, __u64 now_ns)
{
	__u32 key = EVENT_MARK;
	struct event_budget *budget = bpf_map_lookup_elem(&event_budgets, &key);
	__u64 step;

	if (!budget)
		return false;
	if (now_ns - budget->second_ns >= SECOND_NS) {
		budget->second_ns = now_ns;
		budget->used = 0;
	}
	step = budget->used / MARKS_A_STEP;
	if (step >= MARK_STEPS || seq & (((__u64)cfg_marks << (step * MARK_STEP_SHIFT)) - 1))
		return false;
	budget->used += 1;
	return true;
}

__noinline int mark_report(void)
{
	struct packet *p = packet_current();
	struct event *e;
	__u64 now;

	if (!p)
		return 0;
	now = packet_time(p);
	/* A capture's packets are all wanted. One that is passed over live is a sample less, and no loss. */
	if (!cfg_offline && !mark_due(p->seq, now))
		return 0;
	e = event_reserve(EVENT_MARK, now);
	if (!e)
		return 0;
	event_fill(e, p);
	e->seq = p->seq;
	e->top = 0;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

#endif
