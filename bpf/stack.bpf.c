//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * In the stack: which packets xfrm drops, why, and whose they are. All hooks lie on error paths, so
 * that nothing runs while nothing is wrong.
 *
 *   kfree_skb                 raw_tp: names the counter that moved for the packet being freed
 *   audit_replay              fentry on xfrm_audit_state_replay: duplicate or late, by the SA's window
 *   audit_icvfail             ... _icvfail: integrity failure or ESN mis-epoch
 *   audit_notfound            ... _notfound: SPI and number of a packet without an SA
 *   audit_notfound_simple     ... _notfound_simple: IPv6 destination options and routing headers
 *   audit_replay_overflow     ... _replay_overflow: an outbound SA has used up its numbers
 *   audit_*_kprobe            the same five as kprobes
 *   pick_netns, shadow_sync   run by the loader through BPF_PROG_TEST_RUN, attached to nothing
 *
 * For the loader
 * --------------
 * 1. Choose. Of each audit hook keep the fentry program, or its twin `NAME_kprobe` where fentry does
 *    not load, or neither where the kernel lacks the function (no CONFIG_AUDITSYSCALL); delete the
 *    others from the spec. The attach target stands in the section name. kfree_skb, pick_netns and
 *    shadow_sync load on every kernel with BTF; keep all three or none.
 * 2. Set, in .rodata (internal/kernel has the facts):
 *      cfg_sites               site table, sorted by start, unused entries all ones
 *      cfg_filter_locations    1 if that table could be made, 0 if the symbols are not readable
 *      cfg_has_reason          1 if the kernel has `enum skb_drop_reason`
 *      cfg_reason_xfrm_policy  SKB_DROP_REASON_XFRM_POLICY by name, 0 if there is none
 *      cfg_have_kfree          1 if kfree_skb will be attached
 *      cfg_have_audit          1 if audit_replay and audit_icvfail or their twins will be
 *      cfg_mib_slots           __LINUX_MIB_XFRMMAX by name
 *      cfg_cause_of_mib        enum cause by LINUX_MIB_XFRM* number
 *      cfg_events_per_sec      events per second, CPU and cause
 *    Replace `events` and `lost_counts` by the wire object's maps.
 * 3. Load. From a thread inside the network namespace to observe run pick_netns once, with no flags
 *    and no CPU given (it reads its own task's namespace); it returns 1 when it has found one. Keep
 *    a file descriptor of the namespace open as long as programs are attached, so that it stays.
 * 4. Attach everything. Nothing is counted on a CPU before it is primed.
 * 5. Prime (without kfree_skb there is nothing to prime, and it does no harm): run shadow_sync with
 * BPF_F_TEST_RUN_ON_CPU on every online CPU. It returns 0 (done) or SYNC_BUSY (it interrupted kfree_skb on
 * that CPU; run it again) or SYNC_NO_NETNS. A CPU that comes online later is primed by its first shadow_sync.
 * 6. With each snapshot run shadow_sync on every online CPU again, then read residue_counts. A unit
 *    becomes residue at the second shadow_sync that finds it unclaimed, so before a final reading
 *    run it twice, some 10 ms apart.
 *
 * Packets of CAUSE_NO_STATE are in unknown_spis, all others in stack_counts. A packet that belongs
 * to no SA (plaintext that a policy refuses, an outbound look-up that fails) is counted there under
 * SPI 0, protocol 0 and address ::. For each counter: sum of causes + unknown_spis + residue = its
 * movement since priming, the losses in lost_counts aside.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"
#include "xfrm.h"

#include "entry.h"
#include "netns.h"
#include "stack_maps.h"
#include "claim.h"
#include "compat.h"
#include "stack_delta.h"
#include "stack_judge.h"
#include "stack_count.h"
#include "stack_refuse.h"
#include "stack_audit.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum sync {
	SYNC_DONE,
	SYNC_BUSY,
	SYNC_NO_NETNS,
};

static __always_inline void prime(struct shadow *s)
{
	for (int i = 1; i < MIB_SLOTS; i++) {
		s->masks[class_of(cfg_cause_of_mib[i]) & 15] |= 1ULL << i;
		s->counted[i] = s->now[i];
		s->looked[i] = s->now[i];
		s->synced[i] = s->now[i];
	}
	barrier();
	s->primed = 1;
}

/*
 * Runs on the CPU whose record it keeps, in interrupt context. What the last run already found
 * unclaimed becomes residue; what moved since may belong to a packet that is about to be freed.
 */
SEC("raw_tp")
int shadow_sync(void *ctx)
{
	struct shadow *s = my_shadow();
	__u64 *residue;
	__s64 unclaimed;
	__u32 slot;

	/* Nobody claims units without kfree_skb; then there is no residue either. */
	if (!cfg_have_kfree)
		return SYNC_DONE;
	if (!s || s->busy)
		return SYNC_BUSY;
	if (!s->primed) {
		s->base = counters_base(s);
		if (!s->base)
			return SYNC_NO_NETNS;
		read_counters(s);
		prime(s);
		return SYNC_DONE;
	}
	read_counters(s);
	for (int i = 1; i < MIB_SLOTS; i++) {
		slot = i;
		unclaimed = s->synced[i] - s->counted[i];
		s->synced[i] = s->now[i];
		if (unclaimed <= 0)
			continue;
		s->counted[i] += unclaimed;
		residue = bpf_map_lookup_elem(&residue_counts, &slot);
		if (residue)
			*residue += unclaimed;
	}
	return SYNC_DONE;
}

/* The namespace whose counters moved: the SA's own on output, the device's otherwise. */
static __always_inline bool is_target(struct sk_buff *skb)
{
	struct xfrm_state *x;

	if (skb_netns(CAST, skb) == target_net)
		return true;
	x = sa_sending(CAST, skb);
	return x && FIELD_AT(CAST, x, xs_net.net) == target_net;
}

/* Who the packet belongs to when no audit hook has said so, and what its number tells. */
static __always_inline void identify(struct drop *d, struct sk_buff *skb, __u32 cause, __u32 class)
{
	struct xfrm_state *x;
	__u32 spi, seq;

	forget(d);
	d->cause = cause;
	d->class = class;
	if (class == MIB_OUTPUT || class == MIB_OSEQ || class == MIB_LOOKUP) {
		d->key.dir = DIR_OUT;
		x = sa_sending(CAST, skb);
		/* With crypto offload the bundle is gone, but the SA is in the sec_path. */
		if (!x && class != MIB_LOOKUP)
			x = sa_received(CAST, skb);
		if (x)
			know_sa(CAST, d, x, DIR_OUT);
		else if (class != MIB_LOOKUP)
			lose(LOST_NO_SA);
		return;
	}
	d->key.dir = DIR_IN;
	if (class == MIB_LOST_STATE) {
		know_headers(d, skb);
		packet_numbers(skb, d->key.proto, &spi, &seq);
		d->key.spi = spi;
		d->seq = seq;
		return;
	}
	x = sa_received(CAST, skb);
	if (!x) {
		if (class == MIB_SEQ || class == MIB_PROTO || class == MIB_INPUT)
			lose(LOST_NO_SA);
		return;
	}
	know_sa(CAST, d, x, DIR_IN);
	d->flow.elsewhere = FIELD_AT(CAST, x, xs_net.net) != target_net;
	if (class == MIB_PROTO) {
		judge_integrity(CAST, d, x, skb, CAUSE_PROTO_ERROR);
		return;
	}
	if (class == MIB_SEQ || class == MIB_INPUT) {
		packet_numbers(skb, d->key.proto, &spi, &seq);
		d->seq = seq;
		/*
		 * With the audit hooks in place this is xfrm_replay_recheck_esn(), which refuses a
		 * packet whose epoch ended during decryption and calls no audit function.
		 */
		if (class == MIB_SEQ && !cfg_have_audit)
			judge_replay(CAST, d, x, seq);
	}
}

/*
 * What was refused without moving a counter, CAUSE_NONE if nothing was: the default policy's block of
 * a packet to be forwarded, whose route the failed look-up has taken away (__xfrm_route_forward()), and
 * what an xfrm interface or VTI throws away.
 */
static __always_inline __u32 silent_cause(struct sk_buff *skb, __u32 site, __u32 reason)
{
	if (site == SITE_INTERFACE)
		return CAUSE_OUT_INTERFACE;
	if (site == SITE_FORWARD && cfg_reason_xfrm_policy && reason == cfg_reason_xfrm_policy &&
	    !skb_route(CAST, skb))
		return CAUSE_OUT_DEFAULT_BLOCK;
	return CAUSE_NONE;
}

static __always_inline void refuse_silently(void *ctx, struct shadow *s, struct sk_buff *skb, __u64 location,
					    __u32 site, __u32 cause, __u32 reason)
{
	struct drop *d = &s->notes[DIR_OUT];

	forget(d);
	d->key.dir = DIR_OUT;
	d->cause = cause;
	know_device(d, skb);
	know_flow(d, skb, site);
	count_refusal(d);
	explain_drop(d, skb, 0);
	tell(ctx, d, location, 0, reason);
}

/*
 * Three more counters move before decryption and after it, and a packet that was decrypted is in the SA's
 * own count. Policy checks come after it. xfrm_input() knows two mode errors: at the first one the
 * transport header is still that of the SPI, at the second the decrypted packet has taken its place.
 */
static __always_inline __u32 after_decryption(__u32 cause, __u32 sa_spi, struct sk_buff *skb, __u32 site)
{
	bool policy = site == SITE_DELIVER || site == SITE_FORWARD;
	__u32 spi, seq;

	if (cause == CAUSE_STATE_MODE_ERROR) {
		packet_numbers(skb, IPPROTO_ESP, &spi, &seq);
		return sa_spi && spi != sa_spi ? CAUSE_INNER_MODE_ERROR : cause;
	}
	if (!policy || !sa_spi)
		return cause;
	if (cause == CAUSE_IN_HDR_ERROR)
		return CAUSE_POL_HDR_ERROR;
	return cause == CAUSE_IN_BUFFER_ERROR ? CAUSE_POL_BUFFER_ERROR : cause;
}

static __always_inline void attribute(void *ctx, struct shadow *s, struct sk_buff *skb, __u64 location,
				      __u32 site, __u32 classes, __u32 reason)
{
	__u32 slot, cause, class, noted = MIB_NONE;
	struct drop *d = NULL;

	if (s->notes[DIR_IN].skb == (__u64)skb)
		d = &s->notes[DIR_IN];
	else if (s->notes[DIR_OUT].skb == (__u64)skb)
		d = &s->notes[DIR_OUT];
	if (d)
		noted = d->class;
	slot = claim_unit(s, classes, noted);
	if (!slot) {
		cause = silent_cause(skb, site, reason);
		if (cause)
			refuse_silently(ctx, s, skb, location, site, cause, reason);
		return;
	}
	cause = cfg_cause_of_mib[slot < MIB_SLOTS ? slot : 0];
	class = class_of(cause);
	/* Before decryption it is the encapsulation that is compared, afterwards the selector. */
	if (cause == CAUSE_STATE_MISMATCH && site == SITE_INPUT)
		cause = CAUSE_ENCAP_MISMATCH;
	if (!d || d->class != class) {
		d = class == MIB_OUTPUT || class == MIB_OSEQ || class == MIB_LOOKUP ? &s->notes[DIR_OUT]
										    : &s->notes[DIR_IN];
		identify(d, skb, cause, class);
	} else if (class == MIB_LOST_STATE) {
		/* The hook cannot tell an unknown SPI from an SA of the other direction. */
		d->cause = cause;
	}
	d->cause = after_decryption(d->cause, d->key.spi, skb, site);
	know_device(d, skb);
	if (is_refusal(cause, class)) {
		know_flow(d, skb, site);
		count_refusal(d);
	}
	explain_drop(d, skb, slot);
	account(ctx, d, location, slot, reason);
	/*
	 * A packet that came out of one SA and for which the look-up of another fails is counted here for
	 * no SA; for the first one the drop program counts it.
	 */
	if (class != MIB_LOOKUP || !sa_received(CAST, skb))
		claim((__u64)skb);
}

SEC("raw_tp/kfree_skb")
int kfree_skb(struct bpf_raw_tracepoint_args *ctx)
{
	struct sk_buff *skb = AT(CAST, struct sk_buff, ctx->args[0]);
	__u64 location = ctx->args[1];
	__u32 reason = cfg_has_reason ? (__u32)ctx->args[2] : 0;
	__u32 classes = CLASSES_ALL;
	__u32 site = SITE_MAX;
	struct shadow *s;

	if (cfg_filter_locations) {
		site = site_of(location);
		/* clang knows more of the function than the verifier does, and would omit the test. */
		barrier_var(site);
		if (site >= SITE_MAX)
			return 0;
		classes = classes_of_site[site];
		/* ip_forward() and ip6_forward() say so when __xfrm_route_forward() fails. */
		if (site == SITE_FORWARD && cfg_reason_xfrm_policy && reason != cfg_reason_xfrm_policy)
			classes &= ~CLASS(MIB_LOOKUP);
	}
	s = my_shadow();
	if (!s || !s->primed || !is_target(skb))
		return 0;
	/*
	 * A failed look-up takes a forwarded packet's route away (__xfrm_route_forward()). One that
	 * still has its route died of something else, of its hop limit for example.
	 */
	if (site != SITE_LOOKUP && site != SITE_INTERFACE && skb_route(CAST, skb))
		classes &= ~CLASS(MIB_LOOKUP);
	if (s->busy) {
		/* Interrupted by ourselves (before 6.2, which counts this as a recursion miss). */
		lose(LOST_CONTENTION);
		return 0;
	}
	s->busy = 1;
	barrier();
	attribute(ctx, s, skb, location, site, classes, reason);
	barrier();
	s->busy = 0;
	return 0;
}

ON_ENTRY(xfrm_audit_state_replay, audit_replay, on_replay(how, x, skb, net_seq), struct xfrm_state *x,
	 struct sk_buff *skb, __be32 net_seq)
ON_ENTRY(xfrm_audit_state_icvfail, audit_icvfail, on_icvfail(how, x, skb), struct xfrm_state *x,
	 struct sk_buff *skb, __u8 proto)
ON_ENTRY(xfrm_audit_state_notfound, audit_notfound, on_notfound(how, skb, net_spi, net_seq),
	 struct sk_buff *skb, __u16 family, __be32 net_spi, __be32 net_seq)
ON_ENTRY(xfrm_audit_state_notfound_simple, audit_notfound_simple, on_notfound(how, skb, 0, 0),
	 struct sk_buff *skb, __u16 family)
ON_ENTRY(xfrm_audit_state_replay_overflow, audit_replay_overflow, on_replay_overflow(how, x, skb),
	 struct xfrm_state *x, struct sk_buff *skb)
