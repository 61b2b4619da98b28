/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which xfrm counter moved on account of the packet being freed.
 *
 * XFRM_INC_STATS() adds one to this CPU's copy of a counter, and the same call frees the packet: so
 * a comparison with what has been accounted so far names the counter. Three things blur that, and
 * each unit of a counter is therefore claimed one by one:
 * - look-ups for local senders move counters without any packet (EPERM from sendmsg());
 * - a local sender can be interrupted between counter and kfree_skb(), and its CPU drop a received
 *   packet meanwhile;
 * - drivers add what their hardware counted (XFRM_ADD_STATS).
 * Units that no packet claims age from one shadow_sync to the next and become residue.
 */
#ifndef XFRMSCOPE_STACK_DELTA_H
#define XFRMSCOPE_STACK_DELTA_H

#include "stack_maps.h"

#define CAUSE_SLOTS 64 /* a power of two, so that a mask keeps an index inside: see class_of() */

static const __u8 class_of_cause[CAUSE_SLOTS] = {
	[CAUSE_REPLAY_UNSPECIFIED] = MIB_SEQ,
	[CAUSE_PROTO_ERROR] = MIB_PROTO,
	[CAUSE_NO_STATE] = MIB_LOST_STATE,
	[CAUSE_STATE_DIR_ERROR] = MIB_LOST_STATE,
	[CAUSE_STATE_INVALID] = MIB_INPUT,
	[CAUSE_STATE_EXPIRED] = MIB_INPUT,
	[CAUSE_STATE_MODE_ERROR] = MIB_INPUT,
	[CAUSE_ACQUIRE_ERROR] = MIB_INPUT,
	[CAUSE_IN_IPTFS_ERROR] = MIB_INPUT,
	[CAUSE_IN_ERROR] = MIB_INPUT_POLICY,
	[CAUSE_IN_BUFFER_ERROR] = MIB_INPUT_POLICY,
	[CAUSE_IN_HDR_ERROR] = MIB_INPUT_POLICY,
	[CAUSE_STATE_MISMATCH] = MIB_INPUT_POLICY,
	[CAUSE_ENCAP_MISMATCH] = MIB_INPUT_POLICY,
	[CAUSE_TMPL_MISMATCH] = MIB_POLICY,
	[CAUSE_NO_POLS] = MIB_POLICY,
	[CAUSE_POL_BLOCK] = MIB_POLICY,
	[CAUSE_POL_ERROR] = MIB_POLICY,
	[CAUSE_FWD_HDR_ERROR] = MIB_POLICY,
	[CAUSE_OUT_BUNDLE_GEN_ERROR] = MIB_LOOKUP,
	[CAUSE_OUT_BUNDLE_CHECK_ERROR] = MIB_LOOKUP,
	[CAUSE_OUT_NO_STATES] = MIB_LOOKUP,
	[CAUSE_OUT_DIR_ERROR] = MIB_LOOKUP,
	[CAUSE_OUT_POL_BLOCK] = MIB_LOOKUP,
	[CAUSE_OUT_POL_DEAD] = MIB_LOOKUP,
	[CAUSE_OUT_POL_ERROR] = MIB_LOOKUP,
	[CAUSE_OUT_ERROR] = MIB_OUTPUT,
	[CAUSE_OUT_PROTO_ERROR] = MIB_OUTPUT,
	[CAUSE_OUT_MODE_ERROR] = MIB_OUTPUT,
	[CAUSE_OUT_EXPIRED] = MIB_OUTPUT,
	[CAUSE_OUT_INVALID] = MIB_OUTPUT,
	[CAUSE_OUT_NO_QUEUE_SPACE] = MIB_OUTPUT,
	[CAUSE_OUT_SEQ_ERROR] = MIB_OSEQ,
};

#define CLASS(c) (1U << (c))
#define CLASSES_INPUT                                                                   \
	(CLASS(MIB_SEQ) | CLASS(MIB_PROTO) | CLASS(MIB_LOST_STATE) | CLASS(MIB_INPUT) | \
	 CLASS(MIB_INPUT_POLICY))
#define CLASSES_POLICY (CLASS(MIB_POLICY) | CLASS(MIB_INPUT_POLICY))
#define CLASSES_OUTPUT (CLASS(MIB_OUTPUT) | CLASS(MIB_OSEQ))
#define CLASSES_ALL    ((1U << MIB_CLASSES) - 1)

/*
 * The classes that go with a place. xfrm_input() checks policies as well, by way of rcv_cb of xfrm
 * interfaces and VTI; a counter without a name goes with any place.
 */
static const __u32 classes_of_site[SITE_MAX] = {
	[SITE_INPUT] = CLASS(MIB_NONE) | CLASSES_INPUT | CLASSES_POLICY,
	[SITE_DELIVER] = CLASS(MIB_NONE) | CLASSES_POLICY,
	[SITE_FORWARD] = CLASS(MIB_NONE) | CLASSES_POLICY | CLASS(MIB_LOOKUP),
	[SITE_OUTPUT] = CLASS(MIB_NONE) | CLASSES_OUTPUT,
	[SITE_LOOKUP] = CLASS(MIB_NONE) | CLASS(MIB_LOOKUP),
	[SITE_INTERFACE] = CLASS(MIB_NONE) | CLASS(MIB_LOOKUP),
};

/* A mask instead of a comparison, which the verifier of 6.1 loses track of. */
static __always_inline __u32 class_of(__u32 cause)
{
	cause &= CAUSE_SLOTS - 1;
	barrier_var(cause);
	return class_of_cause[cause & (CAUSE_SLOTS - 1)];
}

/*
 * Units older than this drop may only be claimed by classes that never move without a packet: what
 * a look-up counted for a local sender must not be laid at the door of a packet whose hop limit
 * ended in ip_forward().
 */
#define CLASSES_PATIENT (CLASSES_INPUT | CLASSES_OUTPUT)

/*
 * The kind of the site that holds an address, SITE_MAX if none does. A function of its own (not
 * static), so that the verifier walks its branches once, instead of the whole program behind each.
 */
__noinline __u32 site_of(__u64 location)
{
	__u32 at = 0;

	for (__u32 step = SITES / 2; step; step >>= 1) {
		if (cfg_sites[(at + step) & (SITES - 1)].start <= location)
			at += step;
	}
	at &= SITES - 1;
	if (location < cfg_sites[at].start || location >= cfg_sites[at].end)
		return SITE_MAX;
	return cfg_sites[at].kind;
}

/* The lowest bit set, 64 if there is none. Its own function for the same reason. */
__noinline __u32 first_bit(__u64 bits)
{
	__u32 at = 0;

	if (!bits)
		return 64;
	if (!(bits & 0xffffffff)) {
		bits >>= 32;
		at += 32;
	}
	if (!(bits & 0xffff)) {
		bits >>= 16;
		at += 16;
	}
	if (!(bits & 0xff)) {
		bits >>= 8;
		at += 8;
	}
	if (!(bits & 0xf)) {
		bits >>= 4;
		at += 4;
	}
	if (!(bits & 0x3)) {
		bits >>= 2;
		at += 2;
	}
	return at + !(bits & 1);
}

/* 1 if the two differ, without a branch: 48 of them in a row would be 2^48 paths to verify. */
static __always_inline __u64 differ(__u64 a, __u64 b)
{
	__u64 d = a ^ b, minus = -d;

	barrier_var(minus);
	return (d | minus) >> 63;
}

static __always_inline struct shadow *my_shadow(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&shadows, &zero);
}

static __always_inline void read_counters(struct shadow *s)
{
	__u32 slots = cfg_mib_slots;

	if (slots > MIB_SLOTS)
		slots = MIB_SLOTS;
	bpf_probe_read_kernel(s->now, slots * sizeof(s->now[0]), (void *)s->base);
}

/*
 * A pointer's value as a number. The verifier forbids arithmetic on the addresses of maps and their
 * values; read back from memory they are numbers to it.
 */
static __always_inline __u64 number_of(void *pointer)
{
	__u64 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), &pointer);
	return number;
}

/*
 * This CPU's copy of the counters lies at their per-CPU address plus the CPU's offset. The offset is
 * had from a map of our own, whose element's per-CPU address and this CPU's copy are both at hand:
 * no symbol of the kernel is needed, on any architecture.
 */
static __always_inline __u64 counters_base(struct shadow *mine)
{
	struct net *net = target_net;
	__u64 percpu = 0;

	bpf_probe_read_kernel(&percpu, sizeof(percpu),
			      (void *)number_of(&shadows) + bpf_core_field_offset(struct bpf_array, pptrs));
	if (!net || !percpu)
		return 0;
	return (__u64)BPF_CORE_READ(net, mib.xfrm_statistics) + (number_of(mine) - percpu);
}

/* Bits of the slots of `classes`. */
static __always_inline __u64 slots_of(struct shadow *s, __u32 classes)
{
	__u64 slots = 0;

	for (int c = 0; c < MIB_CLASSES; c++)
		slots |= s->masks[c] & -(__u64)((classes >> c) & 1);
	return slots;
}

/*
 * Claim the unit of a counter that belongs to a packet freed where `classes` are counted; `noted` is
 * the class that an audit hook announced for this very packet, or MIB_NONE. Returns the slot, 0 if
 * no counter moved for it.
 */
static __always_inline __u32 claim_unit(struct shadow *s, __u32 classes, __u32 noted)
{
	__u64 open = 0, fresh = 0, slots;
	__u32 slot;

	read_counters(s);
	for (int i = 1; i < MIB_SLOTS; i++) {
		__u64 now = s->now[i];

		open |= differ(now, s->counted[i]) << i;
		fresh |= differ(now, s->looked[i]) << i;
		s->looked[i] = now;
	}
	slots = noted ? open & slots_of(s, CLASS(noted) & CLASSES_ALL) : 0;
	if (!slots)
		slots = open & fresh & slots_of(s, classes);
	if (!slots)
		slots = open & slots_of(s, classes & CLASSES_PATIENT);
	slot = first_bit(slots);
	barrier_var(slot); /* as in kfree_skb: keep the test for the verifier */
	if (slot == 0 || slot >= MIB_SLOTS)
		return 0;
	s->counted[slot]++;
	return slot;
}

#endif
