/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The wire program's tables. The loader may change every max_entries that is set to SA_MAX here,
 * to one and the same number.
 *
 * A slot is a number below SA_MAX; sa_states and sa_counts hold what is known of the SA in it.
 * Slots travel: user space fills free_slots with all of them before anything is attached, the first
 * packet of an SA takes one. To end an SA, user space deletes its key from sa_slots, writes 0 into
 * its `used` (a hint leads to the slot as long as that is 1), waits until no program that still saw
 * it can be running (an RCU grace period), reads the last figures, zeroes its sa_counts on every CPU
 * and puts the slot back. The kernel clears sa_states.
 */
#ifndef XFRMSCOPE_MAPS_H
#define XFRMSCOPE_MAPS_H

#include "abi.h"

#define SA_MAX 4096

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SA_MAX);
	__type(key, struct sa_key);
	__type(value, __u32); /* slot */
} sa_slots SEC(".maps");

/*
 * Where an SA probably is: slots by a hash of SPI and destination. A hint may be wrong, since the SA
 * in the slot says itself whether it is the one; a right one saves the lookup in sa_slots, which costs
 * more than all the rest of a packet's way together.
 */
#define HINT_BITS 16

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << HINT_BITS);
	__type(key, __u32);
	__type(value, __u32);
} sa_hints SEC(".maps");

/* Mapped by the reader, which scans it a hundred times faster than it could iterate over a hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SA_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sa_state);
} sa_states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SA_MAX);
	__type(key, __u32);
	__type(value, struct sa_count);
} sa_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, SA_MAX);
	__type(value, __u32);
} free_slots SEC(".maps");

/*
 * Anybody can invent SPIs and fill the table; the SAs that a rekey brings must find room nevertheless. So
 * user space may set slots aside in kept_slots, for the SAs in known_sas: those that the kernel's own
 * database has, under the key's probe 0.
 */
#define KEPT_SHARE 8

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, SA_MAX / KEPT_SHARE);
	__type(value, __u32);
} kept_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SA_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sa_key);
	__type(value, __u8);
} known_sas SEC(".maps");

/* Packets by direction; the key says of what. */
struct by_direction {
	__u64 packets[DIR_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WHY_MAX);
	__type(key, enum why);
	__type(value, struct by_direction);
} why_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ASIDE_MAX);
	__type(key, enum aside);
	__type(value, struct by_direction);
} aside_counts SEC(".maps");

/* Bindings for which NAT keepalives were seen. Anyone can send some, so their number has an end. */
#define KEEPALIVE_MAX 1024

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KEEPALIVE_MAX);
	__type(key, struct keepalive_key);
	__type(value, struct keepalive);
} keepalives SEC(".maps");

#ifdef WINDOW_LOCK
/* Apart from sa_states, because a memory-mapped array may not hold a spin lock. */
struct sa_lock {
	struct bpf_spin_lock lock;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SA_MAX);
	__type(key, __u32);
	__type(value, struct sa_lock);
} sa_locks SEC(".maps");
#endif

#endif
