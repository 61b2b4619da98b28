/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the path MTU programs and the Go side share. Addresses are 16 bytes with IPv4 mapped, SPIs and
 * MTUs in host byte order, as in abi.h. Times are CLOCK_MONOTONIC.
 */
#ifndef XFRMSCOPE_PMTU_ABI_H
#define XFRMSCOPE_PMTU_ABI_H

enum pmtu_kind {
	PMTU_TELL_SENDER,   /* a packet too big for its route: its sender is to be told by ICMP */
	PMTU_TELL_SOCKET,   /* the same for a socket of this host, which is told without ICMP */
	PMTU_TOLD,	    /* ICMP received: an ESP packet of this host was too big for a router */
	PMTU_APPLIED,	    /* a route of this host takes an MTU from what was told */
	PMTU_FRAGMENTED,    /* a packet was cut into fragments on its way out */
	PMTU_REASM_EXPIRED, /* the first fragment came, the others did not come in time */
	PMTU_KIND_MAX,
};

/* What happened to whom. */
struct pmtu_key {
	__u8 src[16]; /* of the packet, or of the packet that the ICMP message quotes; APPLIED: :: */
	__u8 dst[16];
	__u32 spi; /* of the packet when it is ESP or ESP in UDP, else 0 */
	__u32 mtu; /* that it has to fit, 0 unknown */
	__u8 kind; /* enum pmtu_kind */
	__u8 proto;
	__u8 family; /* 4 or 6 */
	__u8 pad;
};

/* Shared by all CPUs; packets, sent and late are added to atomically, the rest is of the last packet. */
struct pmtu_count {
	__u64 packets;
	__u64 sent; /* TELL_SENDER, IPv4: ICMP messages that really left */
	__u64 late; /* packets of the followed connection more than PMTU_GRACE_NS after its first */
	__u64 first_ns;
	__u64 last_ns;
	__u64 followed_first_ns;
	__u64 followed_last_ns;
	__u32 size; /* of the last packet, its IP header included */
	__u32 size_max;
	__u32 sa_spi;  /* SA that the packet was to take, where its route knows, else 0 */
	__u32 took;    /* TOLD: the MTU that the kernel reads from it; 0 by ip_no_pmtu_disc */
	__be32 ports;  /* of the followed connection */
	__u32 ifindex; /* TELL_SENDER: where the packet came from, or the tunnel device that it was to take */
	__u8 sa_dst[16];
	__u8 reporter[16]; /* TOLD: who sent the ICMP message */
};

/*
 * Whether a sender listens shows in one connection: many hosts can stand behind one address, and each
 * has to be told. So one connection is followed at a time, until it was silent for PMTU_PAUSE_NS: longer
 * than TCP waits before its first repeats, shorter than hosts remember what they were told.
 */
#define PMTU_PAUSE_NS (20 * 1000000000ULL)
/* How long a sender that was told may go on with what is already under way. */
#define PMTU_GRACE_NS (2 * 1000000000ULL)

/* Counts apart from the tables, exact when those are full. The first are those of enum pmtu_kind, in its
 * order. */
enum pmtu_total {
	PMTU_TOTAL_TELL_SENDER,
	PMTU_TOTAL_TELL_SOCKET,
	PMTU_TOTAL_TOLD,
	PMTU_TOTAL_APPLIED,
	PMTU_TOTAL_FRAGMENTED,
	PMTU_TOTAL_REASM_EXPIRED,
	PMTU_TOTAL_TOO_BIG_V6, /* part of TELL_SENDER: ICMPv6 packet too big */
	PMTU_TOTAL_UNRECORDED, /* events of which the tables could not take who and what */
	PMTU_TOTAL_MAX,
};

#endif
