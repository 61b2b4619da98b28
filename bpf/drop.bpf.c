//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Drops outside xfrm: packets of IPsec that the kernel frees as dropped before decryption, after it,
 * or on their way out, and IKE's, by function, reason and device.
 *
 *   host_drop   raw_tp/kfree_skb: counts what the stack programs have not counted
 *   pick_netns  run by the loader through BPF_PROG_TEST_RUN, attached to nothing
 *
 * It looks at every packet that this machine drops, of whatever kind, so what is not IPsec leaves
 * early: without a sec_path and without an IPsec header behind the IP header.
 *
 * For the loader: attach it after the stack object's kfree_skb, with whose claimed_skb this object's
 * is replaced, so that each packet is counted once (lib/claim.h). Which frees are losses, and which
 * function an address belongs to, is for user space to say: the transport layer frees with the same
 * call what it has dealt with, and drivers what they have sent.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "drop_abi.h"
#include "xfrm.h"
#include "verifier.h"
#include "netns.h"
#include "events.h"
#include "claim.h"
#include "stacks.h"
#include "drop_packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* 1: raw_tp/kfree_skb passes the drop reason as its third argument. */
const volatile __u32 cfg_has_reason = 0;

/* Of packets whose SA the kernel itself names, and of those that this host sends. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct drop_key);
	__type(value, __u64);
} host_drops SEC(".maps");

/* Of packets as they came in: apart, so that a flood of invented ones cannot take the others' place. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct drop_key);
	__type(value, __u64);
} stray_drops SEC(".maps");

static __always_inline void count_in(void *map, const struct drop_key *key, __u64 packets, enum lost full)
{
	__u64 *sum = bpf_map_lookup_elem(map, key);

	if (sum) {
		*sum += packets;
		return;
	}
	if (!bpf_map_update_elem(map, key, &packets, BPF_NOEXIST))
		return;
	/* Another CPU may have been first; then the element is there, with nothing of ours in it. */
	sum = bpf_map_lookup_elem(map, key);
	if (sum)
		*sum += packets;
	else
		lose(full);
}

/* The SA that decrypted the packet, and that the packet is plain. */
static __always_inline void know_received(struct drop_key *key, struct xfrm_state *x)
{
	key->family = FIELD_AT(CAST, x, props.family) == AF_INET6 ? 6 : 4;
	key->stage = DROP_AFTER_DECAP;
	key->dir = DIR_IN;
	key->proto = FIELD_AT(CAST, x, id.proto);
	key->spi = bpf_ntohl(FIELD_AT(CAST, x, id.spi));
	key->sport = 0;
	key->dport = 0;
	read_address(CAST, key->dst, &x->id.daddr, key->family);
	read_address(CAST, key->src, &x->props.saddr, key->family);
	key->reqid = FIELD_AT(CAST, x, props.reqid);
	key->if_id = FIELD_AT(CAST, x, if_id);
}

/* The family of the packet itself, which is not that of the SA where they differ. */
static __always_inline __u8 packet_family(struct sk_buff *skb)
{
	return BYTE_OF(CAST, FIELD(CAST, skb, head) + FIELD(CAST, skb, network_header)) >> 4 == 6 ? 6 : 4;
}

/* Whose namespace: the device's, else the SA's; false: another one's. */
static __always_inline bool is_ours(struct sk_buff *skb, struct xfrm_state *x, struct drop_key *key)
{
	struct net *net = skb_netns(CAST, skb);

	if (!net && x)
		net = FIELD_AT(CAST, x, xs_net.net);
	if (!net)
		key->flags |= DROP_FLAG_NO_NETNS;
	return !net || net == target_net;
}

/*
 * One drop as an event, for whoever follows them. Which of them are losses is for user space to say, as it
 * is of the counts.
 */
static __always_inline void tell_drop(void *ctx, struct sk_buff *skb, const struct drop_key *key)
{
	struct subject s;
	struct event *e;

	if (!kind_wanted(EVENT_HOST_DROP, key->dir))
		return;
	if (cfg_filter) {
		__builtin_memcpy(s.src, key->src, sizeof(s.src));
		__builtin_memcpy(s.dst, key->dst, sizeof(s.dst));
		__builtin_memcpy(s.sa_dst, key->dst, sizeof(s.sa_dst));
		s.spi = key->spi;
		s.reqid = key->reqid;
		/* Decrypted, it is at a device of the inside. */
		s.ifindex = key->stage == DROP_AFTER_DECAP ? 0 : key->ifindex;
		if (!subject_wanted(&s))
			return;
	}
	e = event_begin(EVENT_HOST_DROP, bpf_ktime_get_ns());
	if (!e)
		return;
	__builtin_memcpy(e->src, key->src, sizeof(e->src));
	__builtin_memcpy(e->dst, key->dst, sizeof(e->dst));
	e->location = key->location;
	e->value = FIELD(CAST, skb, len);
	e->spi = key->spi;
	e->extent = key->hook;
	e->ifindex = key->ifindex;
	e->reqid = key->reqid;
	e->reason = key->reason;
	e->mib = key->flags;
	e->sport = key->sport;
	e->dport = key->dport;
	e->cause = key->stage;
	e->dir = key->dir;
	e->family = key->family;
	e->stack = kernel_stack(ctx);
	bpf_ringbuf_submit(e, 0);
}

SEC("raw_tp/kfree_skb")
int host_drop(struct bpf_raw_tracepoint_args *ctx)
{
	struct sk_buff *skb = AT(CAST, struct sk_buff, ctx->args[0]);
	struct drop_key key = {};
	struct standing at = {};
	struct xfrm_state *x;
	bool outer, out;

	if (claimed((__u64)skb))
		return 0;
	x = sa_received(CAST, skb);
	outer = read_outer(CAST, &key, skb);
	if (!x && !outer)
		return 0;
	/*
	 * With crypto offload a packet to be sent has its SA in the sec_path as well, in front of which
	 * stands the ESP header; a decrypted one has lost that.
	 */
	if (x && (!outer || key.spi != bpf_ntohl(FIELD_AT(CAST, x, id.spi))))
		know_received(&key, x);
	if (!is_ours(skb, x, &key) || packet_type(CAST, skb) == PACKET_OTHER)
		return 0;
	read_standing(CAST, skb, packet_family(skb), &at);
	key.location = ctx->args[1];
	key.reason = cfg_has_reason ? (__u32)ctx->args[2] : 0;
	key.ifindex = at.at ? at.at : at.out ? at.out : at.iif;
	if (at.iif && at.at && at.at != at.iif)
		key.flags |= DROP_FLAG_MOVED;
	if (key.stage == DROP_AFTER_DECAP) {
		key.hook = hook_received(&at);
		count_in(&host_drops, &key, packet_count(CAST, skb), LOST_STACK_TABLE_FULL);
		tell_drop(ctx, skb, &key);
		return 0;
	}
	out = is_outbound(&at);
	key.dir = out ? DIR_OUT : DIR_IN;
	key.hook = out ? hook_sent(&at) : hook_received(&at);
	if (out && key.stage == DROP_BEFORE_XFRM)
		key.stage = DROP_EGRESS;
	if (out)
		count_in(&host_drops, &key, packet_count(CAST, skb), LOST_STACK_TABLE_FULL);
	else
		count_in(&stray_drops, &key, packet_count(CAST, skb), LOST_UNKNOWN_TABLE_FULL);
	tell_drop(ctx, skb, &key);
	return 0;
}
