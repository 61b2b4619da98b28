/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where the inner programs write: flows, and what became of the packets that they met. */
#ifndef XFRMSCOPE_INNER_MAPS_H
#define XFRMSCOPE_INNER_MAPS_H

#include "inner_abi.h"

/*
 * Least recently used: a host with more connections than room keeps the busy ones. What was thrown
 * out is known all the same, as the difference between the flows opened and those that are there.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, INNER_FLOWS);
	__type(key, struct inner_key);
	__type(value, struct inner_flow);
} inner_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, INNER_MAX);
	__type(key, enum inner_fate);
	__type(value, __u64);
} inner_fates SEC(".maps");

/* A flow of zeros to insert: it is too large for the stack. Nobody writes it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct inner_flow);
} blank_flow SEC(".maps");

/* A SYN's options, no more than 40 bytes. One entry for each direction, so that one interrupts no other. */
struct inner_options {
	__u8 bytes[64];
	__u32 length;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct inner_options);
} inner_options SEC(".maps");

static __always_inline void fate(enum inner_fate what)
{
	__u32 key = what;
	__u64 *count = bpf_map_lookup_elem(&inner_fates, &key);

	if (count)
		*count += 1;
}

/* The flow of a key; a new one if there is none and `open` is set. */
static __always_inline struct inner_flow *flow_of(const struct inner_key *key, __u64 now, bool open)
{
	struct inner_flow *f = bpf_map_lookup_elem(&inner_flows, key), *blank;
	__u32 zero = 0;

	if (f || !open)
		return f;
	blank = bpf_map_lookup_elem(&blank_flow, &zero);
	if (!blank)
		return NULL;
	if (!bpf_map_update_elem(&inner_flows, key, blank, BPF_NOEXIST))
		fate(INNER_OPENED);
	f = bpf_map_lookup_elem(&inner_flows, key);
	if (!f) {
		fate(INNER_FULL);
		return NULL;
	}
	if (!f->opened_ns) {
		f->end[0].scale = SCALE_UNKNOWN;
		f->end[1].scale = SCALE_UNKNOWN;
		f->end[0].offered = SCALE_UNKNOWN;
		f->end[1].offered = SCALE_UNKNOWN;
		f->opened_ns = now;
	}
	return f;
}

#endif
