/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From class to counters: what each packet costs, and all that most packets cost. */
#ifndef XFRMSCOPE_ACCOUNT_H
#define XFRMSCOPE_ACCOUNT_H

#include "control.h"
#include "disorder.h"
#include "mark.h"
#include "parse.h"
#include "rebind.h"
#include "sa.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum from {
	FROM_XDP,
	FROM_TC,
	FROM_CAPTURE,
};

/* Where and when a packet was seen. Inlined, so what nobody asks for is never read. */
struct scene {
	enum direction dir;
	enum from from;
	void *ctx;     /* struct xdp_md or __sk_buff */
	__u32 ifindex; /* FROM_CAPTURE */
	__u64 time_ns; /* FROM_CAPTURE, else 0 */
};

static __always_inline __u32 scene_ifindex(const struct scene *at)
{
	switch (at->from) {
	case FROM_XDP:
		return ((struct xdp_md *)at->ctx)->ingress_ifindex;
	case FROM_TC:
		return ((struct __sk_buff *)at->ctx)->ifindex;
	default:
		return at->ifindex;
	}
}

static __always_inline void count_class(enum why why, enum direction dir)
{
	__u32 key = why;
	struct by_direction *count = bpf_map_lookup_elem(&why_counts, &key);

	if (count)
		count->packets[dir] += 1;
}

__noinline int count_asides(__u32 asides, enum direction dir)
{
	__u64 index = dir;

	if (index >= DIR_MAX)
		return 0;
	/* Or clang scales dir before it compares it, and the verifier sees a number without bounds. */
	asm volatile("" : "+r"(index));
	NO_UNROLL
	for (__u32 aside = 0; aside < ASIDE_MAX; aside++) {
		/* A copy: a counter whose address is taken is unknown to the verifier after each call. */
		struct by_direction *count;
		__u32 key = aside;

		if (!(asides & ASIDE_BIT(aside)))
			continue;
		count = bpf_map_lookup_elem(&aside_counts, &key);
		if (count && index < DIR_MAX)
			count->packets[index] += 1;
	}
	return 0;
}

static __always_inline struct packet *packet_fill(const struct view *v, const struct cursor *c,
						  const struct scene *at)
{
	struct packet *p = packet_current();

	if (!p)
		return NULL;
	if (v->family == 4) {
		const struct iphdr *ip = c->data + v->ip_at;

		if ((void *)(ip + 1) > c->end)
			return NULL;
		p->src[0] = p->src[1] = p->dst[0] = p->dst[1] = 0;
		p->src[2] = p->dst[2] = bpf_htonl(0xffff);
		p->src[3] = ip->saddr;
		p->dst[3] = ip->daddr;
	} else {
		const struct ipv6hdr *ip = c->data + v->ip_at;

		if ((void *)(ip + 1) > c->end)
			return NULL;
		__builtin_memcpy(p->src, ip->saddr, sizeof(p->src));
		__builtin_memcpy(p->dst, ip->daddr, sizeof(p->dst));
	}
	p->time_ns = at->time_ns;
	p->spi = v->spi;
	p->seq = v->seq;
	p->ifindex = scene_ifindex(at);
	p->sport = v->encap ? v->sport : 0;
	p->dport = v->encap ? v->dport : 0;
	p->family = v->family;
	p->dir = at->dir;
	p->encap = v->encap;
	return p;
}

/* What the outer header says beside the SA's identity, in the form of struct sa_state. */
struct outer {
	__u64 src_high;
	__u64 src_low;
	__u8 tos; /* DSCP and ECN (RFC 3168 section 5) */
};

#define ECN_MASK 3
#define ECN_CE	 3

/* What sa_look compares an SA with. */
struct sought {
	__u32 spi;
	__u8 dir;
	__u8 family;
	__u64 high; /* the destination as it lies in memory, IPv4-mapped where IPv4 */
	__u64 low;
};

static __always_inline bool is_sought(const struct sa_state *sa, const struct sought *sought)
{
	return sa->spi == sought->spi && *(const __u64 *)&sa->dst[8] == sought->low &&
	       *(const __u64 *)&sa->dst[0] == sought->high && sa->family == sought->family &&
	       sa->dir == sought->dir;
}

/*
 * The packet's SA, if it is where it is looked for first; NULL otherwise. Addresses are read before
 * the lookups: after them the verifier no longer knows that the packet was long enough.
 */
static __always_inline struct sa_state *sa_look(const struct view *v, const struct cursor *c,
						const struct scene *at, __u32 *slot, struct outer *o)
{
	struct sought sought = { .spi = v->spi, .dir = at->dir, .family = v->family };
	struct sa_key key = { .spi = v->spi, .dir = at->dir, .family = v->family };
	__u32 *hint = NULL, *found, place;
	struct sa_state *sa;

	if (v->family == 4) {
		const struct iphdr *ip = c->data + v->ip_at;

		if ((void *)(ip + 1) > c->end)
			return NULL;
		key.dst_fold = ip->daddr;
		o->tos = ip->tos;
		o->src_low = (__u64)ip->saddr << 32 | bpf_htonl(0xffff);
		sought.low = (__u64)ip->daddr << 32 | bpf_htonl(0xffff);
	} else {
		const struct ipv6hdr *ip = c->data + v->ip_at;

		if ((void *)(ip + 1) > c->end)
			return NULL;
		o->tos = bpf_ntohl(ip->version_class_flow) >> 20;
		o->src_high = *(const __u64 *)&ip->saddr[0];
		o->src_low = *(const __u64 *)&ip->saddr[2];
		sought.high = *(const __u64 *)&ip->daddr[0];
		sought.low = *(const __u64 *)&ip->daddr[2];
		key.dst_fold = sought.high ^ sought.high >> 32 ^ sought.low ^ sought.low >> 32;
	}
	if (cfg_hints) {
		/* Fibonacci hashing: the high bits of a product with 2^32 divided by the golden ratio. */
		place = ((key.spi ^ key.dst_fold) + at->dir) * 0x9e3779b1U >> (32 - HINT_BITS);
		hint = bpf_map_lookup_elem(&sa_hints, &place);
		if (!hint)
			return NULL;
		*slot = *hint;
		sa = bpf_map_lookup_elem(&sa_states, slot);
		if (likely(sa && READ_ONCE(sa->used) && is_sought(sa, &sought)))
			return sa;
	}
	found = bpf_map_lookup_elem(&sa_slots, &key);
	if (!found)
		return NULL;
	*slot = *found;
	sa = bpf_map_lookup_elem(&sa_states, slot);
	if (!sa || !is_sought(sa, &sought))
		return NULL;
	if (cfg_hints && hint)
		WRITE_ONCE(*hint, *slot);
	return sa;
}

/* Whether the packet comes from where the SA's packets came from. */
static __always_inline bool same_origin(struct sa_state *sa, const struct view *v, const struct scene *at,
					const struct outer *o)
{
	__u64 ports =
		ports_word(v->encap ? v->sport : 0, v->encap ? v->dport : 0, v->family, at->dir, v->encap);

	return *(const __u64 *)&sa->src[8] == o->src_low && *(const __u64 *)&sa->src[0] == o->src_high &&
	       READ_ONCE(*sa_ports(sa)) == ports;
}

static __always_inline void account(const struct view *v, const struct cursor *c, const struct scene *at)
{
	struct outer o = {};
	struct sa_state *sa;
	struct sa_count *count;
	struct packet *p;
	bool opened = false, moved = false, guess;
	__u64 top, seq;
	enum mark mark;
	__u32 slot = 0;

	sa = sa_look(v, c, at, &slot, &o);
	if (unlikely(!sa)) {
		__s64 found;

		if (!packet_fill(v, c, at))
			return;
		found = sa_find();
		if (found < 0)
			return;
		opened = found & SA_OPENED;
		slot = found;
		sa = bpf_map_lookup_elem(&sa_states, &slot);
		if (!sa)
			return;
	}
	count = bpf_map_lookup_elem(&sa_counts, &slot);
	if (unlikely(!count)) {
		lose(LOST_SLOT);
		return;
	}
	count->packets += 1;
	count->bytes += v->bytes;
	count->dscps |= 1ULL << (o.tos >> 2);
	if (unlikely(v->bytes > count->largest))
		count->largest = v->bytes;
	if (unlikely((o.tos & ECN_MASK) == ECN_CE))
		atomic_add(&sa->ce, 1);
	if (cfg_offline)
		sa->last_ns = at->time_ns;
	if (cfg_marks && unlikely(!(v->seq & (cfg_marks - 1)))) {
		if (packet_fill(v, c, at))
			mark_report();
	}
	if (unlikely(opened)) {
		count->newest = SEQ_BIAS + v->seq;
		return;
	}

	/*
	 * Skipped as far as this CPU knows, but not by much: other CPUs have packets of the SA, too, and the
	 * cache lines of `highest` and of the window's word travel between them. Read first, they would
	 * come for sharing only, and once more to be written. So both are guessed, which the exchange
	 * puts right, and each is asked for once. Elsewhere they are read, which costs nothing there and
	 * has them fetched while others are on their way.
	 */
	seq = join(count->newest, v->seq);
	guess = !cfg_offline && seq - count->newest - 2 < SEQ_HORIZON - 2;
	if (guess) {
		top = seq - 1;
	} else {
		top = READ_ONCE(sa->highest);
		seq = join(top, v->seq);
	}
	if (likely(window_reaches(top, seq))) {
		mark = window_settle(sa, slot, seq, &top, guess);
		if (likely(mark == MARK_RAISED)) {
			count->newest = seq;
			moved = !same_origin(sa, v, at, &o);
			if (likely(seq == top + 1 && !moved))
				return;
		} else if (unlikely(join(top, v->seq) != seq || !window_reaches(top, seq))) {
			mark = MARK_AGAIN;
		}
	} else {
		mark = MARK_OUTSIDE;
	}
	p = packet_fill(v, c, at);
	if (!p)
		return;
	p->seq64 = seq;
	p->top = top;
	p->slot = slot;
	p->mark = mark;
	if (unlikely(moved)) {
		rebind(slot);
		if (seq == top + 1)
			return;
	}
	disorder(slot);
}

/* IKE and NAT keepalives: nothing of an SA, but signs of life of its peer. */
static __always_inline void control(enum why why, struct view *v, const struct cursor *c,
				    const struct scene *at)
{
	const struct ike_hdr *ike = c->data + (v->ike_at & IKE_AT_MASK);
	struct packet *p;

	v->encap = 0;
	v->spi = 0;
	v->seq = 0;
	p = packet_fill(v, c, at);
	if (!p)
		return;
	p->top = 0;
	p->sport = v->sport;
	p->dport = v->dport;
	if (why == WHY_KEEPALIVE) {
		keepalive_count();
		return;
	}
	if ((void *)(ike + 1) > c->end)
		return;
	__builtin_memcpy(&p->ike, ike, sizeof(p->ike));
	ike_report();
}

static __always_inline void count_packet(enum why why, const struct view *v, const struct scene *at)
{
	__u32 asides = v->asides;

	count_class(why, at->dir);
	if (likely(!asides))
		return;
	if ((why == WHY_ESP || why == WHY_ESP_UDP) && asides & ASIDE_BIT(ASIDE_FRAG_FIRST))
		asides |= ASIDE_BIT(ASIDE_FRAG_ESP);
	count_asides(asides, at->dir);
}

/*
 * Accounts a packet that has been given its class. The question is asked first, so that the compiler
 * carries what belongs to ESP on the ways that lead to ESP alone: asked later, each exit of the
 * parser would fill in all of the view.
 */
static __always_inline void observe(enum why why, struct view *v, const struct cursor *c,
				    const struct scene *at)
{
	__u64 unknown = cursor_unknown(c);

	if (why != WHY_ESP && why != WHY_ESP_UDP) {
		count_packet(why, v, at);
		if (unlikely(why == WHY_IKE || why == WHY_KEEPALIVE))
			control(why, v, c, at);
		return;
	}
	FORGET(v->asides, unknown);
	count_packet(why, v, at);
	account(v, c, at);
}

#endif
