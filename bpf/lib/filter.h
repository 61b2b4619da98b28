/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which events are wanted. What is not wanted is turned away before it costs room in the ring or a part of
 * the rate. Asked on the way to an event only, never for a packet that is the next of its SA. Shared by all
 * objects that send events; the maps are written by the loader and are the same ones in all of them.
 */
#ifndef XFRMSCOPE_FILTER_H
#define XFRMSCOPE_FILTER_H

#include "abi.h"

#define BPF_MAP_TYPE_LPM_TRIE 11 /* uapi/linux/bpf.h */

/* Bits of cfg_filter: which of the lists below have anything in them. */
#define FILTER_SPI    (1 << 0)
#define FILTER_PEER   (1 << 1)
#define FILTER_REQID  (1 << 2)
#define FILTER_DEVICE (1 << 3)

/* Of everybody that reads the ring, only `trace` wants these. */
#define KINDS_ON_REQUEST (1U << EVENT_HOST_DROP | 1U << EVENT_PMTU)

/* Kinds that are wanted, a bit each by enum event_kind. */
const volatile __u32 cfg_kinds = ~KINDS_ON_REQUEST;
/* Directions that are wanted, a bit each by enum direction. */
const volatile __u32 cfg_directions = ~0U;
const volatile __u32 cfg_filter = 0;

struct filter_prefix {
	__u32 bits;
	__u8 addr[16];
};

/* An SA as the SA database identifies it. */
struct filter_sa {
	__u8 dst[16];
	__u32 spi;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} filter_spis SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct filter_prefix);
	__type(value, __u8);
} filter_peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} filter_reqids SEC(".maps");

/* The SAs that have these reqids, since the wire does not tell. User space follows the SA database. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct filter_sa);
	__type(value, __u8);
} filter_sas SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} filter_devices SEC(".maps");

/* Whose event it is. `sa_dst` is the SA's destination where that is not `dst`. */
struct subject {
	__u8 src[16];
	__u8 dst[16];
	__u8 sa_dst[16];
	__u32 spi;
	__u32 reqid;   /* 0: the SA database has to tell */
	__u32 ifindex; /* where an encrypted packet or IKE is; 0: none, or the packet is one of the inside */
};

static __always_inline bool kind_wanted(enum event_kind kind, __u8 dir)
{
	return cfg_kinds >> (kind & 31) & 1 && cfg_directions >> (dir & 31) & 1;
}

static __always_inline bool peer_known(const __u8 *address)
{
	struct filter_prefix key = { .bits = 128 };

	__builtin_memcpy(key.addr, address, sizeof(key.addr));
	return bpf_map_lookup_elem(&filter_peers, &key);
}

static __always_inline bool sa_known(const struct subject *s)
{
	struct filter_sa key = { .spi = s->spi };

	if (s->reqid)
		return bpf_map_lookup_elem(&filter_reqids, &s->reqid);
	if (!s->spi)
		return false;
	__builtin_memcpy(key.dst, s->sa_dst, sizeof(key.dst));
	return bpf_map_lookup_elem(&filter_sas, &key);
}

/* Whether the lists let this one pass. An event at no device passes the list of devices. */
static __noinline int subject_wanted(const struct subject *s)
{
	if (cfg_filter & FILTER_SPI && !bpf_map_lookup_elem(&filter_spis, &s->spi))
		return 0;
	if (cfg_filter & FILTER_DEVICE && s->ifindex && !bpf_map_lookup_elem(&filter_devices, &s->ifindex))
		return 0;
	if (cfg_filter & FILTER_PEER && !peer_known(s->src) && !peer_known(s->dst) && !peer_known(s->sa_dst))
		return 0;
	if (cfg_filter & FILTER_REQID && !sa_known(s))
		return 0;
	return 1;
}

#endif
