/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the drop program and the Go side share. The rules of abi.h hold here too. */
#ifndef XFRMSCOPE_DROP_ABI_H
#define XFRMSCOPE_DROP_ABI_H

#include "abi.h"

/* Where on its way a packet was when it was dropped. */
enum drop_stage {
	DROP_BEFORE_XFRM, /* received, still encrypted; which way it went is a guess without its SA */
	DROP_AFTER_DECAP, /* decrypted: it has a sec_path */
	DROP_EGRESS,	  /* encapsulated, on its way out; the same guess */
	DROP_IKE,	  /* port 500, or 4500 behind the non-ESP marker */
	DROP_KEEPALIVE,	  /* one byte on a port of UDP encapsulation */
	DROP_MAX,
};

/* The netfilter hook that a packet in this state was at or had last passed. */
enum drop_hook {
	DROP_HOOK_NONE,
	DROP_HOOK_PREROUTING,
	DROP_HOOK_INPUT,
	DROP_HOOK_FORWARD,
	DROP_HOOK_OUTPUT,
	DROP_HOOK_POSTROUTING,
	DROP_HOOK_MAX,
};

/* The packet's device and route were gone: its network namespace is not known. */
#define DROP_FLAG_NO_NETNS (1 << 0)
/* The packet is at another device than the one it was received from: it has been routed. */
#define DROP_FLAG_MOVED (1 << 1)

/* Drops that are alike in all of this are counted together. */
struct drop_key {
	__u8 dst[16]; /* of the SA; of the outer header where no SA is at hand */
	__u8 src[16];
	__u64 location; /* address that freed the packet */
	__u32 spi;	/* 0: none, or not in the linear part */
	__u32 reqid;	/* of the SA in the sec_path */
	__u32 if_id;
	__u32 reason; /* skb drop reason, this kernel's numbering; 0 where it has none */
	__u32 ifindex;
	__u16 sport; /* of UDP on an IPsec port, else 0 */
	__u16 dport;
	enum drop_stage stage;
	enum drop_hook hook;
	__u8 proto;  /* IPPROTO_ESP, IPPROTO_AH; IPPROTO_UDP: IKE and keepalives */
	__u8 dir;    /* enum direction: the SA's, or a guess */
	__u8 family; /* 4 or 6 */
	__u8 flags;  /* DROP_FLAG_* */
	__u32 pad;
};

#endif
