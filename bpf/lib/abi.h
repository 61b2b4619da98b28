/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that the kernel programs and the Go side share: enums, map values and events.
 *
 * Rules: enums are append-only with _MAX last; every struct is laid out without implicit padding;
 * SPIs, ports and sequence numbers are in host byte order, addresses are 16 bytes in network order
 * with IPv4 in its IPv4-mapped form (::ffff:a.b.c.d).
 */
#ifndef XFRMSCOPE_ABI_H
#define XFRMSCOPE_ABI_H

/* Where a packet was seen. DIR_UNKNOWN is a capture file, which does not say. */
enum direction {
	DIR_IN,
	DIR_OUT,
	DIR_UNKNOWN,
	DIR_MAX,
};

/*
 * The one class that the wire program gives to each packet. Every exit of the parser has its own
 * value and its own counter, so the classes add up to the packets seen.
 */
enum why {
	WHY_NOT_IP,	    /* neither IPv4 nor IPv6 */
	WHY_NOT_IPSEC,	    /* IP, but nothing of ours */
	WHY_ESP,	    /* ESP directly over IP, accounted to an SA */
	WHY_ESP_UDP,	    /* ESP in UDP (RFC 3948), accounted to an SA */
	WHY_IKE,	    /* IKE on port 500, or on 4500 behind the non-ESP marker */
	WHY_KEEPALIVE,	    /* NAT keepalive: one byte 0xff (RFC 3948 section 2.3) */
	WHY_AH,		    /* AH with something other than ESP inside */
	WHY_FRAG_LATER,	    /* fragment with an offset: no transport header to read */
	WHY_BAD_ETH,	    /* shorter than its Ethernet or VLAN header */
	WHY_VLAN_DEPTH,	    /* more than two VLAN tags */
	WHY_BAD_IPV4,	    /* truncated, version, IHL or total length impossible */
	WHY_BAD_IPV6,	    /* truncated, version or payload length impossible */
	WHY_IPV6_EXT_DEPTH, /* more extension headers than we follow */
	WHY_BAD_IPV6_EXT,   /* truncated extension header */
	WHY_BAD_AH,	    /* truncated AH or impossible AH length */
	WHY_BAD_UDP,	    /* truncated UDP header or impossible length, on an IPsec port */
	WHY_ESP_SHORT,	    /* ends before SPI and sequence number: opens no SA */
	WHY_NATT_SHORT,	    /* UDP encapsulation port, payload shorter than a marker and no keepalive */
	WHY_BAD_IKE,	    /* IKE port, but no IKE header: truncated, initiator SPI 0, version */
	WHY_MAX,
};

/* Facts counted beside the class; a packet can have several. */
enum aside {
	ASIDE_FRAG_FIRST, /* first fragment (offset 0, more to come) */
	ASIDE_AH,	  /* an AH header was passed on the way */
	ASIDE_VLAN,	  /* one tag */
	ASIDE_VLAN2,	  /* two tags */
	ASIDE_PULLED,	  /* TC: headers were not linear and had to be pulled */
	ASIDE_FRAG_ESP,	  /* first fragment of ESP, in UDP or not; it has ASIDE_FRAG_FIRST as well */
	ASIDE_MAX,
};

/* What the programs themselves could not do. Never silent. */
enum lost {
	LOST_SA_TABLE_FULL, /* packet of a new SA, no free slot: counted in its class, not per SA */
	LOST_SA_HASH,	    /* every probe of the SA hash held another SA */
	LOST_SA_INSERT,	    /* the map refused the insertion */
	LOST_SLOT,	    /* a slot that could not be used or given back */
	LOST_CONTENTION, /* an atomic update did not succeed within its tries: the SA's figures blur by one */
	LOST_RING_FULL,	 /* event not delivered: ring buffer full */
	LOST_SUPPRESSED, /* event withheld by the rate limit */
	LOST_PULL,	 /* TC: bpf_skb_pull_data failed, packet classed as truncated */
	LOST_STACK_TABLE_FULL,	   /* stack: per-SA table of causes or drops full */
	LOST_UNKNOWN_TABLE_FULL,   /* stack: table of unknown SPIs or of drops before xfrm full */
	LOST_NO_SA,		   /* stack: a drop whose SA could not be read */
	LOST_IKE_SUPPRESSED,	   /* IKE header withheld by its own rate limit */
	LOST_KEEPALIVE_TABLE_FULL, /* NAT keepalive of a new binding, table full: counted in its class only */
	LOST_REFUSAL_TABLE_FULL,   /* stack: table of refused flows full: counted in its cause only */
	LOST_MAX,
};

/*
 * Why xfrm dropped a packet. The plain ones are named after the kernel's counter
 * (include/uapi/linux/snmp.h, LINUX_MIB_XFRM*); the refined ones say more than the counter does.
 */
enum cause {
	CAUSE_NONE,
	/* refinements of XfrmInStateSeqError */
	CAUSE_REPLAY_DUPLICATE,	  /* inside the window, number already seen */
	CAUSE_REPLAY_LATE,	  /* below the window */
	CAUSE_REPLAY_UNSPECIFIED, /* the audit hook is missing: one of the two */
	/* refinements of XfrmInStateProtoError */
	CAUSE_ESN_MIS_EPOCH,	/* below the window under ESN, so checked with the wrong high half */
	CAUSE_INTEGRITY_FAILED, /* ICV does not match */
	CAUSE_PROTO_ERROR,	/* other error of type->input: padding, trailer, ... */
	/* inbound, as counted by the kernel */
	CAUSE_NO_STATE,		/* XfrmInNoStates: no SA with this SPI */
	CAUSE_STATE_INVALID,	/* XfrmInStateInvalid */
	CAUSE_STATE_EXPIRED,	/* XfrmInStateExpired */
	CAUSE_STATE_MISMATCH,	/* XfrmInStateMismatch: encapsulation or selector */
	CAUSE_STATE_MODE_ERROR, /* XfrmInStateModeError */
	CAUSE_STATE_DIR_ERROR,	/* XfrmInStateDirError */
	CAUSE_ACQUIRE_ERROR,	/* XfrmAcquireError */
	CAUSE_IN_ERROR,		/* XfrmInError: memory */
	CAUSE_IN_BUFFER_ERROR,	/* XfrmInBufferError */
	CAUSE_IN_HDR_ERROR,	/* XfrmInHdrError */
	CAUSE_IN_IPTFS_ERROR,	/* XfrmInIptfsError */
	/* inbound, after decryption */
	CAUSE_TMPL_MISMATCH, /* XfrmInTmplMismatch */
	CAUSE_NO_POLS,	     /* XfrmInNoPols */
	CAUSE_POL_BLOCK,     /* XfrmInPolBlock */
	CAUSE_POL_ERROR,     /* XfrmInPolError */
	CAUSE_FWD_HDR_ERROR, /* XfrmFwdHdrError */
	/* outbound */
	CAUSE_OUT_ERROR,	      /* XfrmOutError */
	CAUSE_OUT_BUNDLE_GEN_ERROR,   /* XfrmOutBundleGenError */
	CAUSE_OUT_BUNDLE_CHECK_ERROR, /* XfrmOutBundleCheckError */
	CAUSE_OUT_NO_STATES,	      /* XfrmOutNoStates */
	CAUSE_OUT_PROTO_ERROR,	      /* XfrmOutStateProtoError */
	CAUSE_OUT_MODE_ERROR,	      /* XfrmOutStateModeError */
	CAUSE_OUT_SEQ_ERROR,	      /* XfrmOutStateSeqError: sequence numbers exhausted */
	CAUSE_OUT_EXPIRED,	      /* XfrmOutStateExpired */
	CAUSE_OUT_INVALID,	      /* XfrmOutStateInvalid */
	CAUSE_OUT_DIR_ERROR,	      /* XfrmOutStateDirError */
	CAUSE_OUT_POL_BLOCK,	      /* XfrmOutPolBlock */
	CAUSE_OUT_POL_DEAD,	      /* XfrmOutPolDead */
	CAUSE_OUT_POL_ERROR,	      /* XfrmOutPolError */
	CAUSE_OUT_NO_QUEUE_SPACE,     /* XfrmOutNoQueueSpace */
	CAUSE_OTHER,		      /* a counter that this build has no name for */
	/* XfrmInStateMismatch in xfrm_input(): the encapsulation differs; elsewhere it is the selector */
	CAUSE_ENCAP_MISMATCH,
	/* refusals that move no counter: in the table of refusals, in no SA's causes */
	CAUSE_OUT_DEFAULT_BLOCK, /* no policy for a packet to be forwarded, and the default is to block */
	CAUSE_OUT_INTERFACE,	 /* an xfrm interface or VTI had no SA for it, or it was too large */
	/* inbound, after decryption, by counters that move before it as well */
	CAUSE_INNER_MODE_ERROR, /* XfrmInStateModeError: the packet inside is not what the mode says */
	CAUSE_POL_HDR_ERROR,	/* XfrmInHdrError of a policy check */
	CAUSE_POL_BUFFER_ERROR, /* XfrmInBufferError of a policy check */
	CAUSE_MAX,
};

enum event_kind {
	EVENT_SA_NEW,	 /* first packet of an SA on the wire */
	EVENT_GAP,	 /* numbers skipped; value = how many */
	EVENT_DUPLICATE, /* number seen before; value = distance below the highest */
	EVENT_LATE,	 /* value = distance below the highest, extent = RFC 4737 reorder extent */
	EVENT_STALE,	 /* outside the window on either side; value = distance, negative = below */
	EVENT_RESTART,	 /* the sequence began anew; seq = first of the new one */
	EVENT_JUMP,	 /* a leap beyond the window was confirmed; value = numbers skipped */
	EVENT_XFRM_DROP, /* xfrm dropped a packet: cause, and SA and seq where known */
	/*
	 * An IKE header (RFC 7296 section 3.1, RFC 2408 section 3.1): seq = initiator's SPI or cookie,
	 * top = responder's, value = message ID, extent = version << 24 | exchange type << 16 |
	 * flags << 8 | first payload, replay_window = the message's length by its own account.
	 */
	EVENT_IKE,
	/*
	 * An SA's packets come from another address, port or encapsulation than before; src, sport and
	 * dport are the new ones, value = the old ones: encap << 32 | dport << 16 | sport.
	 */
	EVENT_REBIND,
	/*
	 * When a packet was seen whose number both ends of the tunnel choose, for comparing their clocks:
	 * seq = the 32 bits as in the packet.
	 */
	EVENT_MARK,
	/*
	 * This host dropped a packet of IPsec outside xfrm: location, reason, stack; cause = enum drop_stage,
	 * extent = enum drop_hook, mib = DROP_FLAG_*, value = bytes. spi, reqid and dst are those of the SA
	 * where one is known.
	 */
	EVENT_HOST_DROP,
	/*
	 * A packet did not fit, or somebody was told: cause = enum pmtu_kind, value = the MTU that it has to
	 * fit (0 unknown), extent = bytes of the packet, spi = of the packet, or of the SA that it was to
	 * take. seq and top are the 16 bytes of the address that sent the ICMP message, where one came.
	 */
	EVENT_PMTU,
	EVENT_MAX,
};

/*
 * The wire program's own window. 8,192 numbers, twice the largest replay window that the kernel
 * accepts (XFRMA_REPLAY_ESN_MAX 4096), kept as 256 words of [block number : 32 | bits : 32], where
 * block = seq64 / 32. A word of an older block is empty by definition, so the window slides without
 * being cleared, and one atomic operation on one word settles each packet.
 */
#define SEQ_BLOCKS     256
#define SEQ_BLOCK_BITS 32
#define SEQ_WINDOW     (SEQ_BLOCKS * SEQ_BLOCK_BITS)
/* A number further away than this, ahead or behind, is outside: blocks must not alias. */
#define SEQ_HORIZON (SEQ_WINDOW - SEQ_BLOCK_BITS)
/* Added to every joined number, so that numbers before the first seen stay positive. */
#define SEQ_BIAS (1ULL << 32)
/* Consecutive numbers outside the window that prove a restart or a jump. */
#define SEQ_CONFIRM 8
/*
 * A leap of at least this many numbers that also passes the end of the 32 bits is a restart: a sender
 * that begins anew from a high number looks as if it had lost all numbers in between.
 */
#define SEQ_LEAP_MAX (1 << 24)
/* Consecutive numbers below the highest, starting at 1, that prove a restart inside the window. */
#define SEQ_CONFIRM_INSIDE 32
#define SEQ_GAPS	   64
/* Its square times the gaps of a long run still fits into 64 bits. */
#define SPACING_MAX  (1 << 20)
#define HIST_BUCKETS 16

/* Key of the SA table. dst is folded to 32 bits (IPv4: exactly), probe settles collisions. */
struct sa_key {
	__u32 spi;
	__u32 dst_fold;
	__u8 dir;
	__u8 family; /* 4 or 6 */
	__u16 probe;
};

/*
 * One SA in one direction, shared by all CPUs, in the array sa_states at the slot that sa_slots
 * holds for its key. Identity is written once, before the slot is published, but for where the
 * packets come from (src, sport, dport, encap), which follows the newest packet of the sequence.
 *
 * Identities, exact once no packet is in flight (per-CPU packets from sa_counts):
 *   span    = closed_span + (highest - first + 1)
 *   unique  = span - holes + early
 *   missing = holes
 *   packets = unique + duplicates + stale
 */
struct sa_state {
	__u8 dst[16];
	__u8 src[16];
	__u32 spi;
	__u32 ifindex; /* where it was first seen */
	__u16 sport;   /* UDP encapsulation, else 0 */
	__u16 dport;
	__u8 family; /* 4 or 6 */
	__u8 dir;    /* enum direction */
	__u8 encap;  /* 0 none, 1 UDP */
	__u8 used;   /* 1 once the identity is valid */
	__u64 first; /* joined and biased: see SEQ_BIAS */
	__u64 created_ns;
	/*
	 * Second cache line, so that the CPUs share the first one, which each packet reads. Each packet
	 * writes here; what follows, only when something is out of order.
	 */
	__u64 highest;
	__u64 original_first; /* first of the first sequence; `first` moves with restarts */
	__u64 closed_span;    /* numbers spanned by sequences before the last restart */
	__s64 holes;	      /* numbers inside the span never seen */
	__u64 early;	      /* unique numbers below the first one seen */
	__u64 duplicates;
	__u64 late;  /* unique, but after a higher number */
	__u64 stale; /* outside the window: new or repeated, unknowable */
	__u64 restarts;
	__u64 jumps;
	__u64 gap_events;
	__u64 extent_unknown;	/* late packets whose gap was no longer in `gaps`: extent is a lower bound */
	__u64 extent_max;	/* RFC 4737 reorder extent, packets */
	__u64 displacement_max; /* highest - seq of a late packet, numbers */
	__u64 outside_run;	/* [next expected seq : 32 | run length : 32] of packets outside the window */
	__u64 inside_run;	/* the same for duplicates inside it */
	__u64 gap_count;	/* gaps ever; the ring below holds the newest SEQ_GAPS */
	__u64 extent_hist[HIST_BUCKETS];       /* log2: bucket b counts 2^b <= extent < 2^(b+1), last open */
	__u64 displacement_hist[HIST_BUCKETS]; /* log2 of displacement, same buckets */
	/*
	 * [first missing number : 32 | arrival index of the packet that skipped it : 32]. The arrival
	 * index counts unique packets alone, as RFC 4737 section 3 wants of copies; 0 is an empty entry.
	 */
	__u64 gaps[SEQ_GAPS];
	__u64 window[SEQ_BLOCKS];
	/*
	 * A run proves something only while `highest` stands still: a sequence that goes on was neither
	 * restarted nor left behind. These are its values when the runs above began.
	 */
	__u64 outside_top;
	__u64 inside_top;
	__u64 first_index; /* arrival index of the first packet of the present sequence */
	__u64 last_ns;	   /* a capture's time of the newest packet; live, the reader samples it */
	__u64 ce;	   /* packets whose outer header says "congestion experienced" (RFC 6040) */
	__u64 restart_ns;  /* when the last restart was proven */
	__u64 late_spread; /* late packets that came in order on their own CPU: CPUs overtook each other */
	/* where packets came from before, and when that changed */
	__u64 rebinds;
	__u64 rebind_ns;
	__u8 old_src[16];
	__u64 old_ports; /* encap << 32 | dport << 16 | sport */
	/*
	 * How numbers are skipped: the lengths of gaps, and the distances from the beginning of one gap to
	 * that of the next, each at most SPACING_MAX, with their squares. A gap that late packets fill
	 * afterwards stays in these figures.
	 */
	__u64 gap_last;
	__u64 spacings;
	__u64 spacing_sum;
	__u64 spacing_squares;
	__u64 gap_hist[HIST_BUCKETS]; /* log2 of a gap's length, same buckets */
	__u64 inside_early;	      /* new numbers of inside_run: below the first one seen */
	__u64 inside_fills;	      /* the same: that filled holes */
	__u64 jumped;		      /* numbers that confirmed leaps passed over; they are holes, too */
	__u64 reserved[4];	      /* to a multiple of 64 bytes, so that the first cache line stays one */
};

/* Per CPU and slot: the straight path writes here and nowhere else but highest and window. */
struct sa_count {
	__u64 packets;
	__u64 bytes;   /* outer IP packet, header included */
	__u64 dscps;   /* set of the DSCPs seen (RFC 2474) */
	__u64 newest;  /* what this CPU last raised `highest` to; 0: it has not */
	__u32 largest; /* bytes of the largest packet */
	__u32 pad;
};

/* Key and value of the table of NAT keepalives (RFC 3948 section 4), one entry for each binding. */
struct keepalive_key {
	__u8 src[16];
	__u8 dst[16];
	__u16 sport;
	__u16 dport;
	__u8 dir;
	__u8 family;
	__u16 pad;
};

struct keepalive {
	__u64 packets;
	__u64 first_ns;
	__u64 last_ns;
	__u64 interval_min_ns; /* 0 until there were two */
	__u64 interval_max_ns;
};

/* What a capture's packet carries in front of it as XDP metadata. */
struct offline_meta {
	__u64 time_ns;	/* when it was captured, any epoch */
	__u32 wire_len; /* original frame length, which a snap length may have cut */
	__u32 ifindex;	/* interface of the capture file */
};

/* Key and value of the stack programs' per-SA table. */
struct stack_key {
	__u8 dst[16];
	__u32 spi;
	__u8 proto;  /* IPPROTO_ESP, IPPROTO_AH, IPPROTO_COMP */
	__u8 dir;    /* enum direction: DIR_IN or DIR_OUT */
	__u8 family; /* 4 or 6 */
	__u8 pad;
};

struct stack_count {
	__u64 causes[CAUSE_MAX];
	__u64 late_max; /* largest distance below the SA's highest number of a packet dropped as late or
			   mis-epoch */
	__u64 late_hist[HIST_BUCKETS]; /* log2 of that distance */
	__u32 reqid;
	__u32 if_id;
	__u32 replay_window;
	__u32 pad;
};

struct event {
	__u64 time_ns;	/* CLOCK_MONOTONIC, or the capture's own clock */
	__u64 seq;	/* joined, biased by SEQ_BIAS on the wire; plain in the stack */
	__u64 top;	/* highest number before this packet, same form */
	__s64 value;	/* by kind */
	__u64 location; /* EVENT_XFRM_DROP, EVENT_HOST_DROP: address that freed the packet */
	__u8 src[16];
	__u8 dst[16];
	__u32 spi;
	__u32 extent;
	__u32 ifindex;
	__u32 cpu;
	__u32 reqid;
	__u32 replay_window;
	__u32 mib;    /* EVENT_XFRM_DROP: index of the counter that moved, this kernel's numbering; 0 none */
	__u32 reason; /* EVENT_XFRM_DROP, EVENT_HOST_DROP: skb drop reason, this kernel's numbering */
	__u16 sport;
	__u16 dport;
	__u8 kind;   /* enum event_kind */
	__u8 cause;  /* enum cause */
	__u8 dir;    /* enum direction */
	__u8 family; /* 4 or 6 */
	__s32 stack; /* of a drop: 1 + its number in drop_stacks; 0: none */
	__u32 pad;
};

#endif
