//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every packet that the kernel frees as dropped, IPsec or not, by reason, place, device and SA. For
 * `xfrmscope drops` alone: while nobody runs it, it is not loaded.
 *
 *   any_drop    raw_tp/kfree_skb
 *   pick_netns  run by the loader through BPF_PROG_TEST_RUN, attached to nothing
 *
 * Packets that were consumed, delivered or sent take the other tracepoint, consume_skb, unless a driver
 * says "dropped" of what it has sent. Nothing is left out for want of a reason, a socket, a device or a
 * route. For the loader: attach it after the stack object's kfree_skb, with whose claimed_skb this
 * object's is replaced; what that program has found out about the packet is then known here.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"
#include "xfrm.h"
#include "verifier.h"
#include "netns.h"
#include "claim.h"
#include "stacks.h"
#include "drops_packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define SECOND_NS 1000000000ULL

/* 1: raw_tp/kfree_skb passes the drop reason as its third argument. */
const volatile __u32 cfg_has_reason = 0;
/* 1: packets of all network namespaces, not only target_net's. */
const volatile __u32 cfg_all_netns = 0;
/* Live records that one CPU may send within a second; 0: none are wanted. */
const volatile __u32 cfg_follow = 0;

const volatile __u32 cfg_reasons_len = 0;
const volatile __u32 cfg_reasons[DROPS_FILTERS];
const volatile __u32 cfg_spis_len = 0;
const volatile __u32 cfg_spis[DROPS_FILTERS];
const volatile __u32 cfg_interfaces_len = 0;
const volatile struct drops_interface cfg_interfaces[DROPS_FILTERS];
const volatile __u32 cfg_prefixes_len = 0;
const volatile struct drops_prefix cfg_prefixes[DROPS_FILTERS];

/* Preallocated: an element must be had in any context. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct drops_key);
	__type(value, struct drops_count);
} drops SEC(".maps");

/*
 * The same without SA and stack, for when the first is full: anybody can invent SPIs, but not reasons and
 * functions.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct drops_key);
	__type(value, struct drops_count);
} drops_folded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROPS_LOST_MAX);
	__type(key, enum drops_lost);
	__type(value, __u64);
} drops_lost SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} drops_ring SEC(".maps");

struct drops_budget {
	__u64 second_ns;
	__u64 used;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drops_budget);
} drops_budgets SEC(".maps");

static __always_inline void lose(enum drops_lost what, __u64 packets)
{
	__u32 key = what;
	__u64 *count = bpf_map_lookup_elem(&drops_lost, &key);

	if (count)
		*count += packets;
}

static __always_inline bool reason_wanted(__u32 reason)
{
	if (!cfg_reasons_len)
		return true;
	UNROLL
	for (int i = 0; i < DROPS_FILTERS; i++)
		if (i < cfg_reasons_len && cfg_reasons[i] == reason)
			return true;
	return false;
}

static __always_inline bool spi_wanted(__u32 spi)
{
	if (!cfg_spis_len)
		return true;
	UNROLL
	for (int i = 0; i < DROPS_FILTERS; i++)
		if (i < cfg_spis_len && cfg_spis[i] == spi)
			return true;
	return false;
}

/* By name, so that a device which comes later is found too; by number where the packet has left it. */
static __always_inline bool interface_wanted(const struct drops_key *key)
{
	const __u64 *name = (const __u64 *)key->ifname;

	if (!cfg_interfaces_len)
		return true;
	UNROLL
	for (int i = 0; i < DROPS_FILTERS; i++) {
		const volatile __u64 *want = (const volatile __u64 *)cfg_interfaces[i].name;

		if (i >= cfg_interfaces_len)
			continue;
		if (name[0] == want[0] && name[1] == want[1])
			return true;
		if (!name[0] && key->ifindex && key->ifindex == cfg_interfaces[i].index)
			return true;
	}
	return false;
}

static __always_inline bool in_prefix(const __u8 *address, int i)
{
	const __u64 *a = (const __u64 *)address;

	return !((a[0] ^ cfg_prefixes[i].addr[0]) & cfg_prefixes[i].mask[0]) &&
	       !((a[1] ^ cfg_prefixes[i].addr[1]) & cfg_prefixes[i].mask[1]);
}

static __always_inline bool peer_wanted(const struct drops_key *key, const struct drops_packet *p)
{
	if (!cfg_prefixes_len)
		return true;
	UNROLL
	for (int i = 0; i < DROPS_FILTERS; i++) {
		if (i >= cfg_prefixes_len)
			continue;
		if (p->family && (in_prefix(p->src, i) || in_prefix(p->dst, i)))
			return true;
		if (key->spi && in_prefix(key->sa_dst, i))
			return true;
	}
	return false;
}

static __always_inline struct drops_count *row(void *map, const struct drops_key *key)
{
	struct drops_count empty = {};
	struct drops_count *c = bpf_map_lookup_elem(map, key);

	if (c)
		return c;
	/* Another CPU may be first; then the element is there all the same. */
	bpf_map_update_elem(map, key, &empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

static __always_inline void count(struct drops_key *key, const struct drops_packet *p, __u64 packets)
{
	struct drops_count *c = row(&drops, key);

	if (!c) {
		key->spi = 0;
		key->sa_proto = 0;
		key->sa_from = DROPS_SA_NONE;
		key->dir = DIR_UNKNOWN;
		key->stack = -1;
		key->flags |= DROPS_FLAG_FOLDED;
		__builtin_memset(key->sa_dst, 0, sizeof(key->sa_dst));
		c = row(&drops_folded, key);
		lose(c ? DROPS_LOST_FOLDED : DROPS_LOST_TABLE_FULL, packets);
		if (!c)
			return;
	}
	if (!c->packets)
		c->example = *p;
	c->packets += packets;
	c->bytes += p->length;
}

static __always_inline bool may_follow(__u64 now_ns)
{
	__u32 zero = 0;
	struct drops_budget *budget = bpf_map_lookup_elem(&drops_budgets, &zero);

	if (!budget)
		return false;
	if (now_ns - budget->second_ns >= SECOND_NS) {
		budget->second_ns = now_ns;
		budget->used = 0;
	}
	if (budget->used >= cfg_follow)
		return false;
	budget->used++;
	return true;
}

static __always_inline void follow(const struct drops_key *key, const struct drops_packet *p, __u32 packets)
{
	struct drops_record *r;

	if (!may_follow(p->time_ns)) {
		lose(DROPS_LOST_WITHHELD, 1);
		return;
	}
	r = bpf_ringbuf_reserve(&drops_ring, sizeof(*r), 0);
	if (!r) {
		lose(DROPS_LOST_RING_FULL, 1);
		return;
	}
	r->key = *key;
	r->packet = *p;
	r->packets = packets;
	r->cpu = bpf_get_smp_processor_id();
	bpf_ringbuf_submit(r, 0);
}

/* Namespace and device; false: another namespace's packet. */
static __always_inline bool place_packet(struct drops_key *key, struct sk_buff *skb)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);
	struct net *net = any_netns(skb, dev, cfg_all_netns ? NULL : target_net);

	if (!cfg_all_netns && net && net != target_net)
		return false;
	if (net)
		key->netns = BPF_CORE_READ((struct net___drops *)net, ns.inum);
	else
		key->flags |= DROPS_FLAG_NO_NETNS;
	read_device(key, skb, dev);
	return true;
}

SEC("raw_tp/kfree_skb")
int any_drop(struct bpf_raw_tracepoint_args *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx->args[0];
	struct drops_key key = { .stack = -1 };
	struct drops_packet packet = {};
	__u64 packets;
	__u32 mib = 0, cause = 0;

	/* Before anything else: the mark must not outlive the packet. */
	explained((__u64)skb, &mib, &cause);
	key.location = ctx->args[1];
	key.reason = cfg_has_reason ? (__u32)ctx->args[2] : 0;
	key.mib = mib;
	key.cause = cause;
	if (!reason_wanted(key.reason) || !place_packet(&key, skb) || !interface_wanted(&key))
		return 0;
	read_packet(&key, &packet, skb);
	read_sa(&key, &packet, skb);
	if (!spi_wanted(key.spi) || !peer_wanted(&key, &packet))
		return 0;
	packet.time_ns = bpf_ktime_get_ns();
	packets = packet_count(PROBED, skb);
	if (cfg_stacks) {
		key.stack = kernel_stack(ctx) - 1;
		if (key.stack < 0)
			lose(DROPS_LOST_STACK, packets);
	}
	/* count() may take the SA out of the key. */
	if (cfg_follow)
		follow(&key, &packet, packets);
	count(&key, &packet, packets);
	return 0;
}
