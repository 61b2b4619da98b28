/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tables of the path MTU programs, and how they are written. */
#ifndef XFRMSCOPE_PMTU_COUNT_H
#define XFRMSCOPE_PMTU_COUNT_H

#include "events.h"
#include "pmtu_abi.h"

/*
 * Two tables, so that ICMP messages, which anybody can send, never take the place of what this host
 * saw of its own packets. A run without end lets go of what has not moved; what does not fit is counted.
 */
#define PMTU_TABLE_MAX 2048

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PMTU_TABLE_MAX);
	__type(key, struct pmtu_key);
	__type(value, struct pmtu_count);
} pmtu_own SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PMTU_TABLE_MAX);
	__type(key, struct pmtu_key);
	__type(value, struct pmtu_count);
} pmtu_told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PMTU_TOTAL_MAX);
	__type(key, enum pmtu_total);
	__type(value, __u64);
} pmtu_totals SEC(".maps");

/*
 * The ICMP message that this CPU is about to send. __icmp_send() may give up without a word; where it
 * does not, icmp_out_count() follows on the same CPU. A message that another one interrupts in between
 * is taken for one that was not sent.
 */
struct pmtu_telling {
	struct pmtu_key key;
	__u32 open;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pmtu_telling);
} pmtu_telling SEC(".maps");

/* One event before it is counted. */
struct pmtu_event {
	struct pmtu_key key;
	__u32 size;
	__u32 took;
	__u32 sa_spi;
	__be32 ports;
	__u32 ifindex;
	__u8 sa_dst[16];
	__u8 reporter[16];
};

static const struct pmtu_count pmtu_nothing;

static __always_inline void pmtu_add(enum pmtu_total which)
{
	__u32 key = which;
	__u64 *n = bpf_map_lookup_elem(&pmtu_totals, &key);

	if (n)
		*n += 1;
}

static __always_inline struct pmtu_count *pmtu_entry(void *table, const struct pmtu_key *key)
{
	struct pmtu_count *c = bpf_map_lookup_elem(table, key);

	if (c)
		return c;
	/* Another CPU may be first; then the look-up finds its element. */
	bpf_map_update_elem(table, key, &pmtu_nothing, BPF_NOEXIST);
	return bpf_map_lookup_elem(table, key);
}

/* Which way the packet goes that an event is about: only reassembly is about one that came. */
static __always_inline __u8 pmtu_dir(const struct pmtu_event *e)
{
	return e->key.kind == PMTU_REASM_EXPIRED ? DIR_IN : DIR_OUT;
}

/* One event for whoever follows them. */
static __noinline void pmtu_tell(const struct pmtu_event *from, __u64 now)
{
	__u32 spi = from->key.spi ? from->key.spi : from->sa_spi;
	struct subject s;
	struct event *e;

	if (cfg_filter) {
		__builtin_memcpy(s.src, from->key.src, sizeof(s.src));
		__builtin_memcpy(s.dst, from->key.dst, sizeof(s.dst));
		if (from->key.spi)
			__builtin_memcpy(s.sa_dst, from->key.dst, sizeof(s.sa_dst));
		else
			__builtin_memcpy(s.sa_dst, from->sa_dst, sizeof(s.sa_dst));
		s.spi = spi;
		s.reqid = 0;
		/* It came from inside, or is about a packet that did. */
		s.ifindex = 0;
		if (!subject_wanted(&s))
			return;
	}
	e = event_begin(EVENT_PMTU, now);
	if (!e)
		return;
	__builtin_memcpy(e->src, from->key.src, sizeof(e->src));
	__builtin_memcpy(e->dst, from->key.dst, sizeof(e->dst));
	__builtin_memcpy(&e->seq, from->reporter, 8);
	__builtin_memcpy(&e->top, from->reporter + 8, 8);
	e->value = from->key.mtu;
	e->extent = from->size;
	e->spi = spi;
	e->ifindex = from->ifindex;
	e->cause = from->key.kind;
	e->dir = pmtu_dir(from);
	e->family = from->key.family;
	bpf_ringbuf_submit(e, 0);
}

static __noinline void pmtu_record(void *table, const struct pmtu_event *e)
{
	struct pmtu_count *c = pmtu_entry(table, &e->key);
	__u64 now = bpf_ktime_get_ns();

	if (kind_wanted(EVENT_PMTU, pmtu_dir(e)))
		pmtu_tell(e, now);
	pmtu_add((enum pmtu_total)(e->key.kind));
	if (!c) {
		pmtu_add(PMTU_TOTAL_UNRECORDED);
		return;
	}
	if (!c->first_ns)
		c->first_ns = now;
	c->last_ns = now;
	if (!c->followed_last_ns || now - c->followed_last_ns > PMTU_PAUSE_NS) {
		c->ports = e->ports;
		c->followed_first_ns = now;
		c->followed_last_ns = now;
	} else if (c->ports == e->ports) {
		c->followed_last_ns = now;
		if (now - c->followed_first_ns > PMTU_GRACE_NS)
			__sync_fetch_and_add(&c->late, 1);
	}
	c->size = e->size;
	if (e->size > c->size_max)
		c->size_max = e->size;
	c->took = e->took;
	c->sa_spi = e->sa_spi;
	c->ifindex = e->ifindex;
	__builtin_memcpy(c->sa_dst, e->sa_dst, sizeof(c->sa_dst));
	__builtin_memcpy(c->reporter, e->reporter, sizeof(c->reporter));
	__sync_fetch_and_add(&c->packets, 1);
}

#endif
