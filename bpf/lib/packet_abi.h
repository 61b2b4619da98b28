/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the packet programs and the Go side share. The rules of abi.h hold here too. */
#ifndef XFRMSCOPE_PACKET_ABI_H
#define XFRMSCOPE_PACKET_ABI_H

#include "abi.h"

/* Where on its way a packet was copied. */
enum packet_point {
	PACKET_WIRE_IN,	 /* TC ingress: as it came in, encrypted; begins with the link header, if there is one
			  */
	PACKET_WIRE_OUT, /* TC egress, the same */
	PACKET_DECRYPTED, /* what was inside, about to be handed on; begins with the IP header like all below
			   */
	PACKET_PLAIN,	  /* about to be encrypted */
	PACKET_DROP,	  /* about to be freed as dropped, in whatever state it then was */
	PACKET_LINK,	  /* no packet: tells which number the packet of `cookie` was sent with */
	PACKET_POINTS,
};

/* What a packet's sequence number says on the wire, by the packet programs' own window. */
enum packet_order {
	ORDER_NONE,	 /* not judged: not ESP, not on the wire, or no room for another SA */
	ORDER_FIRST,	 /* the first of its SA that was seen */
	ORDER_NEXT,	 /* one above the highest */
	ORDER_AHEAD,	 /* above that: `distance` numbers were skipped */
	ORDER_LATE,	 /* not seen before, `distance` below the highest */
	ORDER_DUPLICATE, /* seen before, `distance` below the highest */
	ORDER_OUTSIDE,	 /* too far from the highest to tell, which is `distance` away */
	ORDER_RESTART,	 /* proves that the sequence began anew, or left the window for good */
	ORDER_MAX,
};

/* Which packets are wanted: cfg_only. */
#define PACKET_ONLY_ALL	      (1 << 0)
#define PACKET_ONLY_DROPS     (1 << 1)
#define PACKET_ONLY_LATE      (1 << 2)
#define PACKET_ONLY_DUPLICATE (1 << 3)

#define PACKET_FLAG_SEQ	      (1 << 0) /* `seq` is known */
#define PACKET_FLAG_DECRYPTED (1 << 1) /* PACKET_DROP: it had been decrypted */
#define PACKET_FLAG_PAGED     (1 << 2) /* wanted bytes lay in pages, out of reach */
#define PACKET_FLAG_CAUSE \
	(1 << 3) /* PACKET_DROP: the stack programs know why: `cause`, `seq`, `top`, `distance` */
#define PACKET_FLAG_UDP (1 << 4) /* on the wire: ESP in UDP */

/* Sizes of the records' data: a record takes the smallest that holds what is wanted. */
#define PACKET_SMALL  128
#define PACKET_MEDIUM 2048
#define PACKET_LARGE  16384

/* Comes before each packet's bytes in the ring. */
struct packet_head {
	__u64 time_ns;	/* CLOCK_MONOTONIC */
	__u64 cookie;	/* PACKET_PLAIN and its PACKET_LINKs; else 0 */
	__u64 location; /* PACKET_DROP: address that freed it */
	__u64 seq;
	__u64 top;	/* PACKET_DROP: the SA's highest number */
	__u64 distance; /* see enum packet_order; of a drop the same by the SA's own window */
	__u64 lost;	/* packets of this point and CPU that found the ring full since the record before */
	__u8 dst[16];	/* of the SA, or of the outer header; of PACKET_DROP without both, none */
	__u8 src[16];
	__u32 spi;
	__u32 reqid;
	__u32 if_id;
	__u32 ifindex;	/* on the wire; of a drop where it was */
	__u32 reason;	/* PACKET_DROP: skb drop reason, this kernel's numbering */
	__u32 wire_len; /* all of the packet */
	__u32 cap_len;	/* what follows here */
	__u32 cpu;
	__u16 segments; /* of a super-packet; 0 and 1: it is none */
	__u16 class;	/* enum why, on the wire */
	enum packet_point point;
	enum packet_order order;
	__u8 dir;    /* enum direction */
	__u8 family; /* of the addresses: 4 or 6 */
	__u8 proto;  /* of the SA */
	__u8 cause;  /* enum cause */
	__u8 flags;  /* PACKET_FLAG_* */
	__u8 inner;  /* transport mode, decrypted: protocol that the IP header does not say yet */
	__u16 pad;
	__u32 pad2;
};

/* Key and value, per CPU, of what was seen and lost. `ifindex` is 0 but for the points on the wire. */
struct packet_place {
	__u32 ifindex;
	enum packet_point point;
};

struct packet_count {
	__u64 seen;    /* packets of IPsec at this point */
	__u64 matched; /* of these, those that the filter wants */
	__u64 lost;    /* of these, those that found the ring full */
	__u64 told;    /* of these, those that a record has told of */
};

#endif
