/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the program of `xfrmscope drops` and the Go side share. The rules of abi.h hold here too. */
#ifndef XFRMSCOPE_DROPS_ABI_H
#define XFRMSCOPE_DROPS_ABI_H

#define DROPS_IFNAME 16 /* IFNAMSIZ */

/* What the program could not do. */
enum drops_lost {
	DROPS_LOST_TABLE_FULL, /* packets that are in no row at all: both tables were full */
	DROPS_LOST_FOLDED,     /* packets counted without SA and stack: the first table was full */
	DROPS_LOST_RING_FULL,  /* live records not delivered: the ring buffer was full */
	DROPS_LOST_WITHHELD,   /* live records withheld by the rate limit */
	DROPS_LOST_STACK,      /* packets whose kernel stack found no place in the table of stacks */
	DROPS_LOST_MAX,
};

/* How the SA of a packet is known. */
enum drops_sa_from {
	DROPS_SA_NONE,
	DROPS_SA_DECRYPTED, /* this SA decrypted the packet: it is in the sec_path */
	DROPS_SA_HEADER,    /* the packet has an ESP or AH header with this SPI */
	DROPS_SA_ROUTE,	    /* not encrypted yet: its route says that this SA will do it */
	DROPS_SA_MAX,
};

/* Neither device, route nor socket told the network namespace. */
#define DROPS_FLAG_NO_NETNS (1 << 0)
/* The first table was full: SA and stack are left out. */
#define DROPS_FLAG_FOLDED (1 << 1)

/* Drops that are alike in all of this are counted together. */
struct drops_key {
	__u64 location; /* address that freed the packet */
	__u8 sa_dst[16];
	char ifname[DROPS_IFNAME];
	__u32 reason;  /* skb drop reason, this kernel's numbering; 0 where it has none */
	__u32 ifindex; /* 0: the packet was at no device */
	__s32 stack;   /* in drops_stacks; negative: none */
	__u32 spi;
	__u32 netns; /* inode of the network namespace; 0: not known */
	__u32 mib;   /* xfrm counter that moved, this kernel's numbering; 0: none */
	__u16 ether; /* EtherType as the kernel has it, host byte order; 0: none yet */
	__u8 proto;  /* IP protocol; meaningful with EtherType of IP */
	__u8 sa_proto;
	__u8 sa_from; /* enum drops_sa_from */
	__u8 dir;     /* enum direction: of the SA */
	__u8 cause;   /* enum cause: as the stack programs explain the drop */
	__u8 flags;   /* DROPS_FLAG_* */
};

/* One packet. */
struct drops_packet {
	__u8 src[16];
	__u8 dst[16];
	__u64 time_ns;
	__u32 length; /* of the IP packet by its own account; else what the kernel has of the frame */
	__u16 sport;  /* ICMP: type */
	__u16 dport;  /* ICMP: code */
	__u8 family;  /* 4 or 6; 0: not IP, or not readable */
	__u8 pad[7];
};

struct drops_count {
	__u64 packets;
	__u64 bytes;
	struct drops_packet example; /* the first one on this CPU */
};

struct drops_record {
	struct drops_key key;
	struct drops_packet packet;
	__u32 packets; /* that the kernel had merged into this one */
	__u32 cpu;
};

/* What the loader asks for. Empty lists let everything pass. */
#define DROPS_FILTERS 8

struct drops_interface {
	char name[DROPS_IFNAME];
	__u32 index; /* 0: there is no such device now */
	__u32 pad;
};

struct drops_prefix {
	__u64 addr[2]; /* as the 16 bytes of an address lie in memory */
	__u64 mask[2];
};

#endif
