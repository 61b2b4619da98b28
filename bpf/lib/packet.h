/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet of an SA as the functions off the straight path see it. It is built only when one of them
 * is called. Those functions are global and find the packet in a map, so that the verifier looks at
 * each of them once, and not once for every way in which the parser can reach it.
 */
#ifndef XFRMSCOPE_PACKET_H
#define XFRMSCOPE_PACKET_H

#include "kernel.h"
#include "abi.h"
#include "events.h"
#include "verifier.h"

struct packet {
	__be32 src[4]; /* IPv4-mapped where IPv4 */
	__be32 dst[4];
	__u64 time_ns; /* of a capture */
	__u64 seq64;   /* joined and biased */
	__u64 top;     /* highest number that it was compared with */
	__u32 spi;
	__u32 seq; /* as in the packet */
	__u32 ifindex;
	__u32 slot;
	__u16 sport;
	__u16 dport;
	__u8 family;
	__u8 dir;
	__u8 encap;
	__u8 mark;	    /* enum mark */
	struct ike_hdr ike; /* of an IKE message */
};

/* One for each CPU: programs run with bottom halves disabled, so none interrupts another. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} current_packet SEC(".maps");

static __always_inline struct packet *packet_current(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&current_packet, &key);
}

/* A capture's time is its own, even where that is 0 because the file tells none. */
static __always_inline __u64 packet_time(const struct packet *p)
{
	return cfg_offline ? p->time_ns : bpf_ktime_get_ns();
}

/* Not inlined, so that the compiler describes struct event to the Go side. */
static __noinline int event_fill(struct event *e, const struct packet *p)
{
	e->top = p->top;
	__builtin_memcpy(e->src, p->src, sizeof(e->src));
	__builtin_memcpy(e->dst, p->dst, sizeof(e->dst));
	e->spi = p->spi;
	e->ifindex = p->ifindex;
	e->sport = p->sport;
	e->dport = p->dport;
	e->dir = p->dir;
	e->family = p->family;
	return 0;
}

/* Off the way of those who filter nothing: the lists are asked only where there is one. */
static __always_inline bool packet_wanted(const struct packet *p, enum event_kind kind)
{
	struct subject s;

	if (!kind_wanted(kind, p->dir))
		return false;
	if (!cfg_filter)
		return true;
	__builtin_memcpy(s.src, p->src, sizeof(s.src));
	__builtin_memcpy(s.dst, p->dst, sizeof(s.dst));
	__builtin_memcpy(s.sa_dst, p->dst, sizeof(s.sa_dst));
	s.spi = p->spi;
	s.reqid = 0;
	s.ifindex = p->ifindex;
	return subject_wanted(&s);
}

static __noinline int packet_event_at(const struct packet *p, enum event_kind kind, __u64 seq, __s64 value,
				      __u32 extent)
{
	struct event *e;

	if (!packet_wanted(p, kind))
		return 0;
	e = event_begin(kind, packet_time(p));
	if (!e)
		return 0;
	event_fill(e, p);
	e->seq = seq;
	e->value = value;
	e->extent = extent;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

static __always_inline void packet_event(const struct packet *p, enum event_kind kind, __u64 seq, __s64 value,
					 __u32 extent)
{
	/* A rate of 0 switches events off, and then not even the clock is read. */
	if (cfg_events_per_sec)
		packet_event_at(p, kind, seq, value, extent);
	else
		lose(LOST_SUPPRESSED);
}

#endif
