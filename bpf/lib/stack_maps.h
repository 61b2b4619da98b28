/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Settings and maps of the stack programs. */
#ifndef XFRMSCOPE_STACK_MAPS_H
#define XFRMSCOPE_STACK_MAPS_H

#include "abi.h"
#include "events.h"
#include "xfrm.h"

/* Slots for xfrm counters; 7.3 has 32 and slot 0 is not one (LINUX_MIB_XFRMNUM). */
#define MIB_SLOTS 48
#define SITES	  256 /* a power of two: see site_of() */

/*
 * Where a packet can be dropped on account of xfrm. Each kind of place goes with the counters that
 * are incremented before a packet is freed there.
 */
enum site_kind {
	SITE_INPUT,	/* xfrm_input() and what it calls */
	SITE_DELIVER,	/* policy check of a packet for this host */
	SITE_FORWARD,	/* policy check and look-up of a packet that is routed */
	SITE_OUTPUT,	/* xfrm_output() and what it calls */
	SITE_LOOKUP,	/* other look-ups with a packet at hand: local output */
	SITE_INTERFACE, /* an xfrm interface or VTI that sends */
	SITE_MAX,
};

/* One function's addresses, end excluded. */
struct site {
	__u64 start;
	__u64 end;
	enum site_kind kind;
	__u32 pad;
};

/* Sorted by start; unused ones at the end with start and end all ones. */
const volatile struct site cfg_sites[SITES];
/* 0: the symbol table is not readable, any place may be one of ours. */
const volatile __u32 cfg_filter_locations = 0;
/* 1: raw_tp/kfree_skb passes the drop reason as its third argument. */
const volatile __u32 cfg_has_reason = 0;
/* SKB_DROP_REASON_XFRM_POLICY of this kernel, 0: it has none. */
const volatile __u32 cfg_reason_xfrm_policy = 0;
/* 1: kfree_skb is attached and counts; 0: the audit hooks count by themselves. */
const volatile __u32 cfg_have_kfree = 1;
/* 1: the audit hooks are attached. */
const volatile __u32 cfg_have_audit = 1;
/* __LINUX_MIB_XFRMMAX of this kernel: slots there are, slot 0 included. */
const volatile __u32 cfg_mib_slots = 0;
/* enum cause by LINUX_MIB_XFRM* number; CAUSE_OTHER for one without a name here. */
const volatile __u32 cfg_cause_of_mib[MIB_SLOTS];

/* Counters by what their increment says about the packet. */
enum mib_class {
	MIB_NONE,	  /* nothing is known: a counter that this build has no name for */
	MIB_SEQ,	  /* XfrmInStateSeqError: announced by xfrm_audit_state_replay() */
	MIB_PROTO,	  /* XfrmInStateProtoError: xfrm_audit_state_icvfail() */
	MIB_LOST_STATE,	  /* XfrmInNoStates, XfrmInStateDirError: xfrm_audit_state_notfound() */
	MIB_INPUT,	  /* others of xfrm_input() */
	MIB_INPUT_POLICY, /* incremented by xfrm_input() and by policy checks alike */
	MIB_POLICY,	  /* by policy checks of received packets */
	MIB_LOOKUP,	  /* by look-ups, which can happen before there is a packet */
	MIB_OUTPUT,	  /* by xfrm_output() */
	MIB_OSEQ,	  /* XfrmOutStateSeqError: xfrm_audit_state_replay_overflow() */
	MIB_CLASSES,
};

/*
 * A flow that a policy, or the want of one, refused. The SA is the one that decrypted the packets,
 * SPI 0 if none did. Of two ports the higher one is 0, unless it is below 1024: clients draw it by
 * lot, and a row for each would fill the table with one flow's kind. Of ICMP they are type and code.
 */
struct refusal_key {
	__u8 sa_dst[16];
	__u8 src[16];
	__u8 dst[16];
	__u32 spi;
	__u32 ifindex;
	__u16 sport;
	__u16 dport;
	__u8 cause;  /* enum cause */
	__u8 place;  /* enum site_kind */
	__u8 family; /* 4 or 6, of the inner packet; 0: not a refusal */
	__u8 proto;  /* of the inner packet */
	__u8 sa_proto;
	__u8 elsewhere; /* the SA is of another network namespace */
	__u8 pad[2];
};

struct refusal {
	__u64 packets;
	__u64 largest; /* bytes of the largest one */
	__u32 reqid;
	__u32 if_id;
	__u32 mark; /* skb->mark of the last one */
	__u32 pad;
};

/* What is known of one dropped packet. */
struct drop {
	__u64 skb; /* identity only, 0: empty */
	__u64 seq;
	__u64 top;
	__u64 distance; /* below top, of a late or mis-epoch packet */
	struct stack_key key;
	__u8 src[16];
	__u32 reqid;
	__u32 if_id;
	__u32 replay_window;
	__u32 ifindex;
	__u32 cause;
	__u32 class; /* enum mib_class */
	__u16 sport;
	__u16 dport;
	__u32 pad;
	struct refusal_key flow; /* of a refusal */
	__u32 bytes;
	__u32 mark;
	__u32 pad2;
};

/*
 * One CPU's view of the xfrm counters of target_net. A unit of a counter is `counted` once a packet
 * has claimed it or it has been put down as residue.
 */
struct shadow {
	__u64 base; /* this CPU's copy of the counters */
	__u32 primed;
	__u32 busy;	 /* a program is at work on this record */
	__u64 masks[16]; /* by enum mib_class: bit = slot */
	__u64 counted[MIB_SLOTS];
	__u64 looked[MIB_SLOTS]; /* value at the last drop looked at */
	__u64 synced[MIB_SLOTS]; /* value at the last shadow_sync */
	__u64 now[MIB_SLOTS];	 /* scratch */
	struct drop notes[2]; /* by enum direction: what an audit hook said of a packet about to be freed */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shadow);
} shadows SEC(".maps");

/* Preallocated: an element must be had in any context. An SA has one only once it drops. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct stack_key);
	__type(value, struct stack_count);
} stack_counts SEC(".maps");

/* Apart from stack_counts, so that a flood of invented SPIs cannot take an SA's place. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct stack_key);
	__type(value, __u64);
} unknown_spis SEC(".maps");

/* Bounded: more flows than that are counted as lost, and stay in the totals of stack_counts. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct refusal_key);
	__type(value, struct refusal);
} refusals SEC(".maps");

/* Units of a counter, by its number, that no packet claimed. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MIB_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} residue_counts SEC(".maps");

/* cfg_events_per_sec holds for each cause by itself: a flood of one must not hide the others. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CAUSE_MAX);
	__type(key, enum cause);
	__type(value, struct event_budget);
} drop_budgets SEC(".maps");

#endif
