/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a TCP segment says about its connection (RFC 9293). The packets of one end of one connection
 * come one after the other but for a moment in which a flow moves between CPUs; nothing is locked
 * here, and such a moment may cost a count.
 */
#ifndef XFRMSCOPE_INNER_FLOW_H
#define XFRMSCOPE_INNER_FLOW_H

#include "inner_abi.h"

#define INNER_SECOND_NS 1000000000ULL
/* The least time after which a sender repeats a segment unasked: TCP_RTO_MIN of Linux. */
#define INNER_RTO_NS 200000000ULL

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* One segment, in host byte order. */
struct segment {
	__u64 now_ns;
	__u32 seq;
	__u32 ack;
	__u32 payload;
	__u32 size; /* of one segment, where the packet is several; else 0 */
	__u32 ts;   /* timestamp and its echo (RFC 7323), with has_ts */
	__u32 ts_echo;
	__u16 window;
	__u8 flags;
	__u8 from;  /* which end sent it: 0 or 1 */
	__u8 dir;   /* enum direction */
	__u8 scale; /* a SYN's window scale option, or SCALE_NOT_SENT */
	__u8 congested;
	__u8 local;
	__u8 has_ts;
};

static __always_inline bool seq_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

static __always_inline void zero_ends(struct inner_end *e, __u64 now)
{
	__u64 lasted = now - e->zero_since_ns;

	e->zeros[(e->zero_episodes - 1) & (ZERO_EPISODES - 1)].lasted_ns = lasted;
	e->zero_ns += lasted;
	if (lasted > e->zero_longest_ns)
		e->zero_longest_ns = lasted;
	e->zero_since_ns = 0;
}

static __always_inline void zero_begins(struct inner_end *e, struct inner_end *peer, __u64 now)
{
	struct zero_episode *z = &e->zeros[e->zero_episodes & (ZERO_EPISODES - 1)];

	z->start_ns = now;
	z->lasted_ns = 0;
	e->zero_episodes += 1;
	e->zero_since_ns = now;
	/* How long a probe waits for its answer is the receiver's doing and no time of the path. */
	peer->rtt_ns = 0;
	e->echo_ns = 0;
}

/* What a connection leaves behind for one with the same addresses and ports: its totals only. */
static __always_inline void end_renews(struct inner_end *e, __u64 now)
{
	if (e->zero_since_ns)
		zero_ends(e, now);
	e->seen &= SEEN_LOCAL;
	e->scale = SCALE_UNKNOWN;
	e->offered = SCALE_UNKNOWN;
	e->rtt_ns = 0;
	e->echo_ns = 0;
	e->gap_ns = 0;
}

/*
 * Both ends have to offer scaling for either to use it (RFC 7323 section 2.2), and an end answers with
 * the option only where it was offered. A SYN-ACK without it settles both.
 */
static __always_inline void on_syn(struct inner_flow *f, struct inner_end *me, struct inner_end *peer,
				   const struct segment *s)
{
	if (!(s->flags & TCP_ACK)) {
		bool again = (me->seen & SEEN_SYN) && me->seq_next == s->seq + 1;

		if (again) {
			me->retransmissions += 1;
			me->rtt_ns = 0;
			return;
		}
		end_renews(me, s->now_ns);
		end_renews(peer, s->now_ns);
		f->connections += 1;
	} else if (s->scale == SCALE_NOT_SENT) {
		me->scale = 0;
		peer->scale = 0;
	} else {
		me->scale = s->scale;
		if (peer->seen & SEEN_SYN)
			peer->scale = peer->offered;
	}
	me->offered = s->scale;
	me->seen |= SEEN_SYN | SEEN_SEQ;
	me->seq_next = s->seq + 1;
	me->rtt_seq = s->seq + 1;
	me->rtt_ns = s->now_ns;
	me->steady = 1;
}

/* `steady` is false where the time may hold a pause of an end's own making; a smoothed value must not. */
static __always_inline void rtt_sample(struct inner_rtt *r, __u64 rtt, bool steady)
{
	if (!r->samples || rtt < r->min_ns)
		r->min_ns = rtt;
	if (rtt > r->max_ns)
		r->max_ns = rtt;
	if (r->samples < RTT_EARLY)
		r->early_ns += rtt;
	r->samples += 1;
	r->sum_ns += rtt;
	if (!steady)
		return;
	if (r->smooth_ns)
		r->smooth_ns += (__s64)(rtt - r->smooth_ns) >> 3;
	else
		r->smooth_ns = rtt;
	r->steady += 1;
	if (r->steady >= RTT_WARM && r->smooth_ns > r->smooth_max_ns)
		r->smooth_max_ns = r->smooth_ns;
}

/* An acknowledgement whose timestamp the sender will echo: awaited if no other one is. */
static __always_inline void echo_await(struct inner_end *me, const struct segment *s, bool advanced)
{
	__u32 edge = s->ack + me->window;

	if (!s->has_ts || me->scale > 14 || !me->window)
		return;
	if (me->echo_ns) {
		/* Several of one tick: the sender has seen the last of them. */
		if (s->ts == me->echo_ts)
			me->echo_edge = edge;
		return;
	}
	if (!advanced)
		return;
	me->echo_ts = s->ts;
	me->echo_edge = edge;
	me->echo = 0;
	me->echo_ns = s->now_ns;
}

/*
 * Data that echoes a timestamp of the reader: how long that took, and whether the sender used up the
 * window that it then knew. Near the reader nothing else tells, since what is in flight is still on
 * its way here.
 */
static __always_inline void echo_seen(struct inner_end *me, struct inner_end *peer, const struct segment *s,
				      __u32 end)
{
	__s32 later = s->ts_echo - peer->echo_ts;
	__u64 took = s->now_ns - peer->echo_ns;

	if (!peer->echo_ns || !s->has_ts || later < 0)
		return;
	if (later > 0) {
		if (peer->echo & ECHO_TIMED) {
			me->edge_checked += 1;
			if (peer->echo & ECHO_EDGE)
				me->edge_hit += 1;
		}
		peer->echo_ns = 0;
		return;
	}
	/* One that sent nothing for most of that time may have had nothing to send. */
	if (!(peer->echo & ECHO_TIMED))
		rtt_sample(&me->back, took, s->now_ns - me->data_ns < took / 2);
	peer->echo |= ECHO_TIMED;
	if ((__s32)(peer->echo_edge - end) < (__s32)me->segment_max)
		peer->echo |= ECHO_EDGE;
}

static __always_inline void on_window(struct inner_end *me, struct inner_end *peer, const struct segment *s)
{
	__u64 window = s->window;

	if (me->scale <= 14)
		window <<= me->scale;
	me->window = window;
	me->seen |= SEEN_WINDOW;
	if (!window) {
		me->zero_packets += 1;
		if (!me->zero_since_ns)
			zero_begins(me, peer, s->now_ns);
		return;
	}
	if (me->zero_since_ns)
		zero_ends(me, s->now_ns);
	if (!me->window_min || window < me->window_min)
		me->window_min = window;
	if (window > me->window_max)
		me->window_max = window;
}

/* The acknowledgement and the window of a segment; one that is older than what came says nothing new. */
static __always_inline void on_ack(struct inner_end *me, struct inner_end *peer, const struct segment *s)
{
	bool advanced = !(me->seen & SEEN_ACK) || me->ack != s->ack;

	if ((me->seen & SEEN_ACK) && seq_before(s->ack, me->ack))
		return;
	me->ack = s->ack;
	me->seen |= SEEN_ACK;
	if (peer->rtt_ns && !seq_before(s->ack, peer->rtt_seq)) {
		rtt_sample(&peer->ahead, s->now_ns - peer->rtt_ns, peer->steady);
		peer->rtt_ns = 0;
	}
	/* A SYN's window is never scaled, and nobody fills it. */
	if (s->flags & TCP_SYN)
		return;
	on_window(me, peer, s);
	echo_await(me, s, advanced);
}

/* Numbers that passed before, or that had been skipped. */
static __always_inline void on_old_data(struct inner_end *me, const struct inner_end *peer,
					const struct segment *s, __u32 segments)
{
	/*
	 * A sender repeats what the other end says is missing, or what its timer says. Before either
	 * can have happened the segment was only overtaken on its way here.
	 */
	if (me->gap_ns && s->now_ns - me->gap_ns < INNER_RTO_NS && peer->last_ns < me->gap_ns) {
		me->reordered += segments;
		return;
	}
	me->retransmissions += segments;
	me->rtt_ns = 0; /* Karn's rule, RFC 6298 section 3 */
}

/* How many segments so many bytes were. One that only ends a connection has no size. */
static __always_inline __u32 skipped_segments(__u32 bytes, __u32 size)
{
	return size ? (bytes + size - 1) / size : 1;
}

static __always_inline void on_data(struct inner_end *me, struct inner_end *peer, const struct segment *s)
{
	__u32 end = s->seq + s->payload + (s->flags & TCP_FIN ? 1 : 0), one, segments = 1, in_flight, room;
	bool limited = false;

	one = s->payload;
	if (s->size && s->size < s->payload) {
		one = s->size;
		segments = (s->payload + one - 1) / one;
	}
	if (s->payload)
		me->segments += segments;
	if (one > me->segment_max)
		me->segment_max = one;
	if (!(me->seen & SEEN_SEQ)) {
		me->seen |= SEEN_SEQ;
		me->seq_next = s->seq;
	}
	if (seq_before(s->seq, me->seq_next)) {
		on_old_data(me, peer, s, segments);
		if (seq_before(me->seq_next, end))
			me->seq_next = end;
		return;
	}
	if (s->seq != me->seq_next) {
		me->gaps += 1;
		me->skipped += skipped_segments(s->seq - me->seq_next, me->segment_max);
		me->gap_ns = s->now_ns;
	}
	me->seq_next = end;
	echo_seen(me, peer, s, end);
	me->data_ns = s->now_ns;
	if (!(peer->seen & SEEN_ACK))
		return;
	in_flight = end - peer->ack;
	/* The other end may have acknowledged what did not pass here. */
	if ((__s32)in_flight < 0)
		return;
	if (in_flight > me->in_flight_max)
		me->in_flight_max = in_flight;
	if (peer->scale <= 14 && (peer->seen & SEEN_WINDOW)) {
		room = peer->window > in_flight ? peer->window - in_flight : 0;
		if (room < me->segment_max) {
			me->limited += segments;
			limited = true;
		}
	}
	/*
	 * Only a segment that is acknowledged at once tells the path's time: a receiver waits with its
	 * answer to a single one (RFC 9293 section 3.8.6.3), but not with the second, and a sender that
	 * has used up the window waits for it in any case.
	 */
	if (!me->rtt_ns && !peer->zero_since_ns && (limited || in_flight >= 2 * me->segment_max)) {
		me->rtt_seq = end;
		me->rtt_ns = s->now_ns;
		/* The last segment of a full window may be an odd one, and then its answer waits. */
		me->steady = !limited;
	}
}

/* Sent into a window of zero, or to keep a connection alive: a number below the next, at most a byte. */
static __always_inline bool on_probe(struct inner_end *me, const struct inner_end *peer,
				     const struct segment *s)
{
	bool zero = peer->zero_since_ns != 0;

	if (s->payload > 1 || (s->flags & (TCP_FIN | TCP_SYN | TCP_RST)) || !(me->seen & SEEN_SEQ))
		return false;
	if (s->seq == me->seq_next - 1) {
		if (zero)
			me->probes += 1;
		else
			me->keepalives += 1;
		return true;
	}
	/* Other systems send the next byte itself. */
	if (zero && s->payload == 1 && s->seq == me->seq_next && (peer->seen & SEEN_ACK) &&
	    peer->ack == s->seq) {
		me->probes += 1;
		return true;
	}
	return false;
}

/* False: this end is counted at the other hook, where the packet came in. */
static __always_inline bool flow_segment(struct inner_flow *f, const struct segment *s)
{
	struct inner_end *me = &f->end[s->from & 1], *peer = &f->end[(s->from & 1) ^ 1];
	__u8 vantage = 1 + s->dir;

	if (me->vantage && me->vantage != vantage && s->now_ns - me->last_ns < INNER_SECOND_NS)
		return false;
	me->vantage = vantage;
	if (!me->first_ns)
		me->first_ns = s->now_ns;
	__sync_fetch_and_add(&me->packets, 1);
	__sync_fetch_and_add(&me->bytes, s->payload);
	if (s->congested)
		me->congested += 1;
	if (s->local)
		me->seen |= SEEN_LOCAL;

	if (s->flags & TCP_RST) {
		/* Windows of a reset mean nothing, and those before it no longer matter. */
		me->seen |= SEEN_RST;
		if (me->zero_since_ns)
			zero_ends(me, s->now_ns);
		if (peer->zero_since_ns)
			zero_ends(peer, s->now_ns);
		me->last_ns = s->now_ns;
		return true;
	}
	if (s->flags & TCP_SYN)
		on_syn(f, me, peer, s);
	else if (!on_probe(me, peer, s) && (s->payload || (s->flags & TCP_FIN)))
		on_data(me, peer, s);
	if (s->flags & TCP_FIN)
		me->seen |= SEEN_FIN;
	if (s->flags & TCP_ACK)
		on_ack(me, peer, s);
	me->last_ns = s->now_ns;
	return true;
}

#endif
