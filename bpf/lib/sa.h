/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Finding an SA that the first look did not find, and opening it. Off the straight path. */
#ifndef XFRMSCOPE_SA_H
#define XFRMSCOPE_SA_H

#include "maps.h"
#include "packet.h"
#include "window.h"

/* SAs of one direction with one SPI whose IPv6 destinations fold to the same 32 bits. */
#define SA_PROBES 4
/* How often opening is begun again because another CPU opened an SA in our place. */
#define SA_OPEN_TRIES 3

/* Answers other than a slot. */
#define SA_NONE	  (-1)
#define SA_RACED  (-2)
#define SA_OPENED (1LL << 32) /* added to the slot that the packet itself opened */

static __always_inline bool same_address(const void *a, const void *b)
{
	const __u32 *x = a, *y = b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline __u32 fold_address(const __be32 *a)
{
	return a[0] ^ a[1] ^ a[2] ^ a[3];
}

/* Whatever an SA before it left in the slot. By eights, so that the verifier has few rounds to follow. */
static __always_inline void sa_clear(struct sa_state *sa)
{
	struct sa_line {
		__u64 words[8];
	} *lines = (struct sa_line *)sa;

	_Static_assert(sizeof(*sa) % sizeof(*lines) == 0, "sa_state is made of whole lines");
	NO_UNROLL
	for (int i = 0; i < (int)(sizeof(*sa) / sizeof(*lines)); i++)
		for (int j = 0; j < 8; j++)
			WRITE_ONCE(lines[i].words[j], 0); /* or clang makes it a memset, which BPF has not */
}

/*
 * Everything that the packet says is written before the slot is published, so no CPU can see an SA
 * without its first packet in it.
 */
static __always_inline void sa_begin(struct sa_state *sa, const struct packet *p)
{
	__u64 seq = SEQ_BIAS + p->seq, word = 0;

	sa_clear(sa);
	__builtin_memcpy(sa->dst, p->dst, sizeof(sa->dst));
	__builtin_memcpy(sa->src, p->src, sizeof(sa->src));
	sa->spi = p->spi;
	sa->ifindex = p->ifindex;
	sa->sport = p->sport;
	sa->dport = p->dport;
	sa->family = p->family;
	sa->dir = p->dir;
	sa->encap = p->encap;
	sa->first = seq;
	sa->original_first = seq;
	sa->highest = seq;
	sa->first_index = 1;
	sa->created_ns = packet_time(p);
	sa->last_ns = cfg_offline ? sa->created_ns : 0;
	window_step(&word, seq);
	*window_word(sa, seq) = word;
}

/* A slot for an SA; of those set aside only for one that the kernel has. False: there is none. */
static __always_inline bool slot_take(const struct sa_key *key, __u32 *slot)
{
	struct sa_key known = *key;

	if (!bpf_map_pop_elem(&free_slots, slot))
		return true;
	known.probe = 0;
	return bpf_map_lookup_elem(&known_sas, &known) && !bpf_map_pop_elem(&kept_slots, slot);
}

/*
 * Takes a free slot for the packet's SA and publishes it under the key. SA_OPENED with the slot;
 * SA_RACED when another CPU has published an SA there first; SA_NONE, counted, when it cannot be.
 */
static __noinline __s64 sa_open(struct packet *p, const struct sa_key *key)
{
	struct sa_state *sa;
	__u32 slot;
	long err;

	if (!slot_take(key, &slot)) {
		lose(LOST_SA_TABLE_FULL);
		return SA_NONE;
	}
	sa = bpf_map_lookup_elem(&sa_states, &slot);
	if (!sa) {
		lose(LOST_SLOT);
		return SA_NONE;
	}
	sa_begin(sa, p);
	err = bpf_map_update_elem(&sa_slots, key, &slot, BPF_NOEXIST);
	if (!err) {
		p->seq64 = SEQ_BIAS + p->seq;
		p->top = p->seq64;
		WRITE_ONCE(sa->used, 1);
		packet_event(p, EVENT_SA_NEW, p->seq64, 0, 0);
		return SA_OPENED | slot;
	}
	if (bpf_map_push_elem(&free_slots, &slot, 0))
		lose(LOST_SLOT);
	if (err == -EEXIST)
		return SA_RACED;
	lose(LOST_SA_INSERT);
	return SA_NONE;
}

/*
 * The slot of the current packet's SA; a new one, with SA_OPENED, if the SA is new; SA_NONE, counted, when
 * there is none to be had. All probes are looked at before one is taken: an SA may sit behind a
 * place that has become free.
 */
__noinline __s64 sa_find(void)
{
	struct packet *p = packet_current();
	struct sa_key key = {};

	if (!p)
		return SA_NONE;
	key.spi = p->spi;
	key.dst_fold = p->family == 4 ? p->dst[3] : fold_address(p->dst);
	key.dir = p->dir;
	key.family = p->family;

	NO_UNROLL
	for (int i = 0; i < SA_OPEN_TRIES; i++) {
		__u64 vacant = SA_PROBES;
		__s64 opened;

		NO_UNROLL
		for (int probe = 0; probe < SA_PROBES; probe++) {
			struct sa_state *sa;
			__u32 *found, slot;

			key.probe = probe;
			found = bpf_map_lookup_elem(&sa_slots, &key);
			if (!found) {
				if (vacant == SA_PROBES)
					vacant = probe;
				FORGET(vacant, p->spi);
				continue;
			}
			slot = *found;
			sa = bpf_map_lookup_elem(&sa_states, &slot);
			if (!sa) {
				lose(LOST_SLOT);
				return SA_NONE;
			}
			if (same_address(sa->dst, p->dst))
				return slot;
		}
		if (vacant == SA_PROBES) {
			lose(LOST_SA_HASH);
			return SA_NONE;
		}
		key.probe = vacant;
		opened = sa_open(p, &key);
		if (opened != SA_RACED)
			return opened;
	}
	lose(LOST_SA_INSERT);
	return SA_NONE;
}

#endif
