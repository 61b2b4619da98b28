/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What keeps tunnels alive and is not ESP: IKE headers and NAT keepalives. Off the straight path. */
#ifndef XFRMSCOPE_CONTROL_H
#define XFRMSCOPE_CONTROL_H

#include <bpf/bpf_endian.h>

#include "maps.h"
#include "packet.h"
#include "window.h"

/*
 * An IKE header goes to user space whole, since all that is known of IKE is in there. Its limit is its own:
 * losing packets must not crowd out what tells why, and a flood of IKE must not crowd out the rest.
 */
__noinline int ike_report(void)
{
	struct packet *p = packet_current();
	struct event *e;
	__u64 now;

	if (!p)
		return 0;
	if (!packet_wanted(p, EVENT_IKE))
		return 0;
	now = packet_time(p);
	if (!event_allowed(EVENT_IKE, now, cfg_ike_per_sec)) {
		lose(LOST_IKE_SUPPRESSED);
		return 0;
	}
	e = event_reserve(EVENT_IKE, now);
	if (!e)
		return 0;
	event_fill(e, p);
	e->seq = (__u64)bpf_ntohl(p->ike.initiator[0]) << 32 | bpf_ntohl(p->ike.initiator[1]);
	e->top = (__u64)bpf_ntohl(p->ike.responder[0]) << 32 | bpf_ntohl(p->ike.responder[1]);
	e->value = bpf_ntohl(p->ike.id);
	e->extent = (__u32)p->ike.version << 24 | p->ike.exchange << 16 | p->ike.flags << 8 | p->ike.next;
	e->replay_window = bpf_ntohl(p->ike.length);
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/*
 * Times the keepalives of one binding. The plain stores may lose to another CPU that has a keepalive of
 * the same binding at the same moment, which keepalives, twenty seconds apart, do not do.
 */
__noinline int keepalive_count(void)
{
	struct packet *p = packet_current();
	struct keepalive_key key = {};
	struct keepalive *k, first = {};
	__u64 now, interval;

	if (!p)
		return 0;
	now = packet_time(p);
	__builtin_memcpy(key.src, p->src, sizeof(key.src));
	__builtin_memcpy(key.dst, p->dst, sizeof(key.dst));
	key.sport = p->sport;
	key.dport = p->dport;
	key.dir = p->dir;
	key.family = p->family;
	k = bpf_map_lookup_elem(&keepalives, &key);
	if (!k) {
		first.packets = 1;
		first.first_ns = now;
		first.last_ns = now;
		if (bpf_map_update_elem(&keepalives, &key, &first, BPF_NOEXIST))
			lose(LOST_KEEPALIVE_TABLE_FULL);
		return 0;
	}
	interval = now - k->last_ns;
	/* A capture's clock may go back. */
	if (now > k->last_ns) {
		if (!k->interval_min_ns || interval < k->interval_min_ns)
			k->interval_min_ns = interval;
		if (interval > k->interval_max_ns)
			k->interval_max_ns = interval;
		k->last_ns = now;
	}
	atomic_add(&k->packets, 1);
	return 0;
}

#endif
