/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What inner.bpf.c and the Go side share: the TCP flows inside the tunnels. The rules of abi.h hold.
 */
#ifndef XFRMSCOPE_INNER_ABI_H
#define XFRMSCOPE_INNER_ABI_H

#define INNER_FLOWS    8192 /* flows followed at once; the least recently used one makes room */
#define ZERO_EPISODES  8    /* zero-window episodes kept with their times, the newest */
#define RTT_EARLY      32   /* samples that make up the early average */
#define RTT_WARM       8    /* steady samples before the highest smoothed value counts */
#define SCALE_UNKNOWN  0xff
#define SCALE_NOT_SENT 0xfe

/* Every packet of the observed namespace that an inner hook meets is counted under one of these. */
enum inner_fate {
	INNER_TCP,	 /* accounted to a flow */
	INNER_OTHER,	 /* no TCP segment: other protocols, later fragments, IPv6 with extension headers */
	INNER_FRAGMENT,	 /* first fragment of a TCP segment: its length is not known */
	INNER_PAGED,	 /* the driver left the TCP header in pages, out of a probe's reach */
	INNER_BAD,	 /* truncated, or lengths impossible */
	INNER_ELSEWHERE, /* decrypted here and encrypted again: counted where it came in */
	INNER_FULL,	 /* the table refused a new flow */
	INNER_OPENED,	 /* not a fate but a fact beside it: flows begun */
	INNER_MAX,
};

/* Bits of inner_end.seen. */
enum inner_seen {
	SEEN_SYN = 1,
	SEEN_FIN = 2,
	SEEN_RST = 4,
	SEEN_SEQ = 8,	  /* seq_next is valid */
	SEEN_ACK = 16,	  /* ack is valid */
	SEEN_LOCAL = 32,  /* a socket of this host sends it */
	SEEN_WINDOW = 64, /* window is valid */
};

/* What the echo that is awaited has told so far: a set. */
enum inner_echo {
	ECHO_TIMED = 1, /* the time is taken */
	ECHO_EDGE = 2,	/* the window was used up */
};

/*
 * A TCP connection, whichever end opened it. End 0 is the one whose address and port are smaller,
 * compared as they lie in memory, so that both directions find the same entry.
 */
struct inner_key {
	__u64 addr[2][2];
	__u16 port[2];
	__u8 family; /* 4 or 6 */
	__u8 pad[3];
};

/* How long something took there and back. */
struct inner_rtt {
	__u64 samples;
	__u64 sum_ns;
	__u64 early_ns; /* sum of the first RTT_EARLY samples */
	__u64 min_ns;
	__u64 max_ns;
	__u64 smooth_ns;     /* RFC 6298 section 2, alpha 1/8 */
	__u64 smooth_max_ns; /* its highest value, after the first RTT_WARM */
	__u64 steady;	     /* samples that went into it */
};

struct zero_episode {
	__u64 start_ns;
	__u64 lasted_ns; /* 0: not over, or overwritten before it was */
};

/*
 * One end of a connection: what it sent, as seen where it crosses this host's IPsec. The windows are
 * those that it advertises, so zero-window episodes are its own receiver's. Only packets of this end
 * write here, but for the times that the other end's packets take, and their ends.
 */
struct inner_end {
	/* the SA that carried its last packet */
	__u8 sa_dst[16];
	__u64 sa; /* address of the kernel's state: tells that the SA is still the same one */
	__u32 spi;
	__u32 reqid;
	__u8 sa_proto;
	__u8 sa_family; /* 4 or 6 */
	__u8 vantage;	/* 1 + enum direction of the hook that counts this end; 0: none yet */
	__u8 scale;	/* window scale (RFC 7323), SCALE_UNKNOWN while the handshake was not seen */
	__u8 offered;	/* what its SYN said, SCALE_NOT_SENT if nothing */
	__u8 steady;	/* the segment being timed left room in the window */
	__u8 pad[2];
	enum inner_seen seen; /* a set of them */
	__u32 segment_max;    /* largest payload of one segment */

	/* state of the current connection */
	__u32 seq_next;	 /* number after the highest one sent */
	__u32 ack;	 /* highest acknowledgement sent */
	__u64 window;	 /* last one advertised, scaled where the scale is known */
	__u64 gap_ns;	 /* when numbers were last skipped */
	__u64 rtt_ns;	 /* when the segment being timed passed; 0: none is */
	__u64 echo_ns;	 /* when the acknowledgement passed whose echo is awaited; 0: none is */
	__u64 data_ns;	 /* when its last data passed */
	__u32 rtt_seq;	 /* the acknowledgement that ends the timing */
	__u32 echo_ts;	 /* its timestamp */
	__u32 echo_edge; /* the number up to which it allowed to send */
	enum inner_echo echo;

	/* totals over all connections of the entry */
	__u64 packets;
	__u64 bytes;	       /* of payload, repeated ones included */
	__u64 segments;	       /* that carry payload; a super-packet counts as what it will be cut into */
	__u64 retransmissions; /* segments with numbers that had passed before */
	__u64 reordered;       /* segments that filled a gap before the other end can have asked */
	__u64 gaps;	       /* times that numbers were skipped: lost or late before they came here */
	__u64 skipped;	       /* segments of the largest size that these numbers filled */
	__u64 limited;	       /* segments after which less than one more fitted into the other's window */
	__u64 probes;	       /* window probes: sent into a window of zero */
	__u64 keepalives;      /* the same outside one */
	__u64 congested;       /* packets with the ECN mark CE (RFC 3168) */
	__u64 in_flight_max;   /* bytes sent and not acknowledged, by what passed here */
	__u64 window_min;      /* of those advertised, zero left aside */
	__u64 window_max;
	__u64 first_ns;
	__u64 last_ns;

	__u64 zero_episodes;
	__u64 zero_packets;    /* that advertised zero */
	__u64 zero_ns;	       /* total of the episodes that are over */
	__u64 zero_longest_ns; /* of those */
	__u64 zero_since_ns;   /* start of the one that is not over; 0: none */
	struct zero_episode zeros[ZERO_EPISODES];

	/* from a segment of this end passing here to its acknowledgement passing back */
	struct inner_rtt ahead;
	/*
	 * From an acknowledgement for this end passing here to the first segment of this end that echoes
	 * its timestamp (RFC 7323 section 3): the way that `ahead` does not see.
	 */
	struct inner_rtt back;
	__u64 edge_checked; /* acknowledgements whose echo was followed to its end */
	__u64 edge_hit;	    /* of these, those whose window this end then used up */
};

struct inner_flow {
	struct inner_end end[2];
	__u64 opened_ns;
	__u64 connections; /* that used these addresses and ports, one after the other */
};

#endif
