/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ring of packets, what was lost on the way into it, and which packets are wanted. Records are
 * reserved at one of three sizes and filled in place: no buffer that an interrupt could share, and no
 * second copy.
 */
#ifndef XFRMSCOPE_PACKET_RING_H
#define XFRMSCOPE_PACKET_RING_H

#include "config.h"
#include "packet_abi.h"
#include "verifier.h"

/* Set by the loader. */
volatile const __u32 cfg_only = PACKET_ONLY_ALL;
volatile const __u32 cfg_snaplen = 0; /* bytes of each packet; 0: its headers */
volatile const __u32 cfg_dirs = 3;    /* 1 << enum direction */
volatile const __u8 cfg_by_spi = 0;   /* 1: only SAs whose SPI is in chosen_spis */
volatile const __u8 cfg_by_peer = 0;  /* 1: only packets from or to this prefix */
volatile const __u64 cfg_peer[2] = {};
volatile const __u64 cfg_peer_mask[2] = {};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 256);
	__type(key, struct packet_place);
	__type(value, struct packet_count);
} packet_counts SEC(".maps");

/* Written by the loader: --spi, and the SPIs that belong to --reqid at this moment. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u8);
} chosen_spis SEC(".maps");

/* Packets that the wire found late or repeated, so that what becomes of them is copied as well. */
struct picked_key {
	__u32 spi;
	__u32 seq;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct picked_key);
	__type(value, __u8);
} picked_packets SEC(".maps");

struct packet_small {
	struct packet_head head;
	__u8 data[PACKET_SMALL];
};

struct packet_medium {
	struct packet_head head;
	__u8 data[PACKET_MEDIUM];
};

struct packet_large {
	struct packet_head head;
	__u8 data[PACKET_LARGE];
};

static const struct packet_count no_packets;

static __always_inline struct packet_count *packet_count_of(__u32 ifindex, __u32 point)
{
	struct packet_place place = { .ifindex = ifindex, .point = point };
	struct packet_count *c = bpf_map_lookup_elem(&packet_counts, &place);

	if (c)
		return c;
	bpf_map_update_elem(&packet_counts, &place, &no_packets, BPF_NOEXIST);
	return bpf_map_lookup_elem(&packet_counts, &place);
}

static __always_inline bool peer_is(const __u8 address[16])
{
	const __u64 *a = (const __u64 *)address;

	return (a[0] & cfg_peer_mask[0]) == cfg_peer[0] && (a[1] & cfg_peer_mask[1]) == cfg_peer[1];
}

/* The user's filter, as far as one packet by itself can be judged by it. */
static __always_inline bool packet_chosen(const struct packet_head *h)
{
	__u32 spi = h->spi;

	if (!(cfg_dirs >> (h->dir & 1) & 1))
		return false;
	if (cfg_by_spi && !bpf_map_lookup_elem(&chosen_spis, &spi))
		return false;
	return !cfg_by_peer || peer_is(h->dst) || peer_is(h->src);
}

/* Whether it is one of those that the wire found out of order. */
static __always_inline bool packet_picked(const struct packet_head *h)
{
	struct picked_key key = { .spi = h->spi, .seq = h->seq };

	return h->flags & PACKET_FLAG_SEQ && bpf_map_lookup_elem(&picked_packets, &key);
}

enum packet_from {
	FROM_FRAME,  /* `from` is the context of a TC program */
	FROM_MEMORY, /* `from` is an address of the kernel */
};

/* The length in the form that the verifier keeps (clang 19, kernel 5.10); size is a power of two. */
#define BOUND_LENGTH(length, size)                        \
	do {                                              \
		barrier_var(length);                      \
		length = ((length - 1) & (size - 1)) + 1; \
	} while (0)

#define PACKET_PUT(type, size)                                                 \
	do {                                                                   \
		struct type *r = bpf_ringbuf_reserve(&packets, sizeof(*r), 0); \
		if (!r) {                                                      \
			if (c)                                                 \
				c->lost++;                                     \
			return;                                                \
		}                                                              \
		if (c) {                                                       \
			h->lost = c->lost - c->told;                           \
			c->told = c->lost;                                     \
		}                                                              \
		__builtin_memcpy(&r->head, h, sizeof(r->head));                \
		r->head.cap_len = 0;                                           \
		if (length && length <= size) {                                \
			__u64 n = length;                                      \
			long err;                                              \
                                                                               \
			BOUND_LENGTH(n, size);                                 \
			if (kind == FROM_FRAME)                                \
				err = bpf_skb_load_bytes(from, 0, r->data, n); \
			else                                                   \
				err = bpf_probe_read_kernel(r->data, n, from); \
			if (!err)                                              \
				r->head.cap_len = n;                           \
		}                                                              \
		bpf_ringbuf_submit(r, 0);                                      \
	} while (0)

/* Copies `length` bytes behind the head into the ring. `c` may be NULL: its table is full. */
static __always_inline void packet_put(struct packet_head *h, struct packet_count *c, void *from,
				       enum packet_from kind, __u64 length)
{
	h->cpu = bpf_get_smp_processor_id();
	if (length > PACKET_LARGE)
		length = PACKET_LARGE;
	if (length <= PACKET_SMALL)
		PACKET_PUT(packet_small, PACKET_SMALL);
	else if (length <= PACKET_MEDIUM)
		PACKET_PUT(packet_medium, PACKET_MEDIUM);
	else
		PACKET_PUT(packet_large, PACKET_LARGE);
}

#endif
