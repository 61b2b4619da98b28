//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How long packets spend in xfrm, for each SA. On demand only: two hooks run for every packet.
 *
 *   input         fentry on xfrm_input: a packet begins
 *   input_done    ... gro_cells_receive: tunnel mode hands it on
 *   input_done4   ... xfrm4_transport_finish, input_done6 xfrm6_transport_finish: transport mode does
 *   output        ... xfrm_output: a packet begins
 *   output_done   ... __ip_local_out, output_done6 __ip6_local_out: the encrypted packet is sent on
 *   *_kprobe      the same as kprobes
 *
 * A function's entry and return are no pair here: with an asynchronous cipher xfrm_input() returns
 * before the packet is decrypted and is entered again for it on another CPU, and it returns 0 for what
 * it drops. So both ends are entries of functions that a packet meets once, and what joins them is the
 * packet's address. A packet that is dropped in between leaves its beginning behind; the table is LRU,
 * and an address that comes again for another packet is told by its age and its destination.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"
#include "xfrm.h"

#include "entry.h"
#include "netns.h"
#include "compat.h"
#include "latency_abi.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct sock;

/* Fields that no other object reads. A flavour of a kernel struct is found under the name before ___. */
struct sk_buff___latency {
	__u32 end; /* sk_buff_data_t: offset from head on 64 bits */
} __attribute__((preserve_access_index));

struct skb_shared_info {
	__u16 gso_size;
} __attribute__((preserve_access_index));

/* No cipher takes so long: what was noted so long ago was another packet at this address. */
#define STALE_NS 1000000000ULL

/* xfrm_input() is entered again with it when an asynchronous cipher is done (xfrm_input_resume). */
#define RESUMED -1

/* A packet on its way. The key is only filled in on output, where its SA is not known any more at the end. */
struct flying {
	__u64 start_ns;
	__u32 async;
	__u32 pad;
	struct stack_key key;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LATENCY_FLYING);
	__type(key, __u64);
	__type(value, struct flying);
} flying SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, LATENCY_SAS);
	__type(key, struct stack_key);
	__type(value, struct latency_count);
} latency_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LATENCY_MAX);
	__type(key, enum latency_miss);
	__type(value, __u64);
} latency_misses SEC(".maps");

static const struct latency_count no_latency;

static __always_inline void miss(enum latency_miss why)
{
	__u32 key = why;
	__u64 *count = bpf_map_lookup_elem(&latency_misses, &key);

	if (count)
		*count += 1;
}

static __always_inline bool is_ours(enum way how, struct xfrm_state *x)
{
	return x && FIELD_AT(how, x, xs_net.net) == target_net;
}

static __always_inline void name_sa(enum way how, struct stack_key *key, struct xfrm_state *x,
				    enum direction dir)
{
	key->family = FIELD_AT(how, x, props.family) == AF_INET6 ? 6 : 4;
	key->proto = FIELD_AT(how, x, id.proto);
	key->spi = bpf_ntohl(FIELD_AT(how, x, id.spi));
	key->dir = dir;
	read_address(how, key->dst, (void *)x + bpf_core_field_offset(struct xfrm_state, id.daddr),
		     key->family);
}

/* floor(log2(n)), 0 for 0. */
static __always_inline __u32 bucket_of(__u64 n)
{
	__u32 b = 0;

	if (n >> LATENCY_BUCKETS)
		return LATENCY_BUCKETS - 1;
	if (n >> 16) {
		n >>= 16;
		b += 16;
	}
	if (n >> 8) {
		n >>= 8;
		b += 8;
	}
	if (n >> 4) {
		n >>= 4;
		b += 4;
	}
	if (n >> 2) {
		n >>= 2;
		b += 2;
	}
	return b + (n >> 1 ? 1 : 0);
}

static __always_inline void record(struct stack_key *key, __u64 ns, bool async)
{
	struct latency_count *c = bpf_map_lookup_elem(&latency_counts, key);

	if (!c) {
		bpf_map_update_elem(&latency_counts, key, &no_latency, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&latency_counts, key);
		if (!c) {
			miss(LATENCY_TABLE_FULL);
			return;
		}
	}
	c->hist[bucket_of(ns) & (LATENCY_BUCKETS - 1)] += 1;
	c->packets += 1;
	c->sum_ns += ns;
	if (ns > c->max_ns)
		c->max_ns = ns;
	if (async)
		c->async += 1;
}

static __always_inline int on_input(enum way how, struct sk_buff *skb, int encap_type)
{
	struct flying begun = {}, *known;
	__u64 at = (__u64)skb;

	if (skb_netns(how, skb) != target_net)
		return 0;
	if (encap_type == RESUMED) {
		known = bpf_map_lookup_elem(&flying, &at);
		if (known)
			known->async = 1;
		return 0;
	}
	begun.start_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&flying, &at, &begun, BPF_ANY);
	return 0;
}

/* gro_cells_receive() serves tunnels without IPsec too; those packets have no SA. */
static __always_inline int on_input_done(enum way how, struct sk_buff *skb)
{
	struct xfrm_state *x = sa_received(how, skb);
	struct stack_key key = {};
	__u64 at = (__u64)skb, ns;
	struct flying *f;

	if (!is_ours(how, x))
		return 0;
	f = bpf_map_lookup_elem(&flying, &at);
	if (!f) {
		miss(LATENCY_NO_START);
		return 0;
	}
	ns = bpf_ktime_get_ns() - f->start_ns;
	if (ns > STALE_NS) {
		miss(LATENCY_STALE);
	} else {
		name_sa(how, &key, x, DIR_IN);
		record(&key, ns, f->async);
	}
	bpf_map_delete_elem(&flying, &at);
	return 0;
}

static __always_inline int on_output(enum way how, struct sk_buff *skb)
{
	struct sk_buff___latency *more = (void *)skb;
	struct xfrm_state *x = sa_sending(how, skb);
	struct skb_shared_info *shared;
	struct flying begun = {};
	__u64 at = (__u64)skb;

	if (!is_ours(how, x))
		return 0;
	shared = (void *)FIELD(how, skb, head) + FIELD(how, more, end);
	shared = AT(how, struct skb_shared_info, shared);
	if (FIELD_AT(how, shared, gso_size)) {
		miss(LATENCY_SEGMENTED);
		return 0;
	}
	name_sa(how, &begun.key, x, DIR_OUT);
	begun.start_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&flying, &at, &begun, BPF_ANY);
	return 0;
}

/* Every packet that this machine sends passes here; hardly any other than xfrm's is in the table. */
static __always_inline int on_output_done(enum way how, struct sk_buff *skb, __u8 family)
{
	__u64 at = (__u64)skb, ns;
	struct stack_key key;
	struct flying *f;
	__u8 dst[16] __attribute__((aligned(8)));
	void *ip;

	f = bpf_map_lookup_elem(&flying, &at);
	if (!f || f->key.dir != DIR_OUT)
		return 0;
	ns = bpf_ktime_get_ns() - f->start_ns;
	ip = FIELD(how, skb, head) + FIELD(how, skb, network_header);
	read_address(how, dst, ip + (family == 6 ? 24 : 16), family);
	key = f->key;
	if (ns > STALE_NS || __builtin_memcmp(dst, key.dst, sizeof(dst)))
		miss(LATENCY_STALE);
	else
		record(&key, ns, false);
	bpf_map_delete_elem(&flying, &at);
	return 0;
}

ON_ENTRY(xfrm_input, input, on_input(how, skb, encap_type), struct sk_buff *skb, int nexthdr, __u32 spi,
	 int encap_type)
ON_ENTRY(gro_cells_receive, input_done, on_input_done(how, skb), void *cells, struct sk_buff *skb)
ON_ENTRY(xfrm4_transport_finish, input_done4, on_input_done(how, skb), struct sk_buff *skb)
ON_ENTRY(xfrm6_transport_finish, input_done6, on_input_done(how, skb), struct sk_buff *skb)
ON_ENTRY(xfrm_output, output, on_output(how, skb), struct sock *sk, struct sk_buff *skb)
ON_ENTRY(__ip_local_out, output_done, on_output_done(how, skb, 4), struct net *net, struct sock *sk,
	 struct sk_buff *skb)
ON_ENTRY(__ip6_local_out, output_done6, on_output_done(how, skb, 6), struct net *net, struct sock *sk,
	 struct sk_buff *skb)
