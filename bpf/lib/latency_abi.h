/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What latency.bpf.c and the Go side share: how long packets spend in xfrm, for each SA. The rules of
 * abi.h hold; the key of the table is struct stack_key.
 */
#ifndef XFRMSCOPE_LATENCY_ABI_H
#define XFRMSCOPE_LATENCY_ABI_H

#define LATENCY_BUCKETS 32
#define LATENCY_SAS	1024 /* SAs measured; more are counted as LATENCY_TABLE_FULL */
#define LATENCY_FLYING	8192 /* packets between beginning and end; the least recently seen makes room */

struct latency_count {
	__u64 hist[LATENCY_BUCKETS]; /* log2 of nanoseconds: bucket b counts 2^b <= ns < 2^(b+1), last open */
	__u64 packets;
	__u64 sum_ns;
	__u64 max_ns;
	__u64 async; /* of packets: those that the cipher finished later, perhaps on another CPU */
};

/* Packets whose time is not known. */
enum latency_miss {
	LATENCY_TABLE_FULL, /* no room for another SA */
	LATENCY_NO_START,   /* inbound: the beginning was not noted, or made room for others */
	LATENCY_STALE,	    /* the beginning found is that of another packet, which was dropped */
	LATENCY_SEGMENTED,  /* outbound: cut into segments inside xfrm_output(), which makes new packets of it
			     */
	LATENCY_MAX,
};

#endif
