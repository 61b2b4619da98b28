/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * More of the kernel's structs, for the path MTU programs. The suffix after ___ is dropped when the
 * loader looks for the kernel's own (libbpf's flavours), so xfrm.h may have other parts of the same.
 */
#ifndef XFRMSCOPE_PMTU_KERNEL_H
#define XFRMSCOPE_PMTU_KERNEL_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sk_buff___pmtu {
	unsigned int len;
	unsigned int tail; /* an offset from head on 64-bit kernels (sk_buff_data_t) */
	unsigned int end;  /* of the buffer; the shared information lies there */
	__u8 ignore_df : 1;
	unsigned char *data;
	unsigned char *head;
	__u16 transport_header;
	__u16 network_header;
};

struct skb_shared_info {
	unsigned short gso_size;
};

struct net_device___pmtu {
	unsigned int mtu;
};

struct dst_entry___pmtu {
	struct net_device___pmtu *dev;
	unsigned long _metrics;
};

struct rtable {
	struct dst_entry dst;
	__u32 rt_mtu_locked : 1;
	__u32 rt_pmtu : 31;
};

struct flowi4 {
	__be32 saddr;
	__be32 daddr;
};

struct in6_addr {
	__u8 bytes[16];
};

struct rt6key {
	struct in6_addr addr;
};

struct rt6_info {
	struct dst_entry dst;
	struct rt6key rt6i_dst;
};

struct sock;

#pragma clang attribute pop

/* uapi/linux/icmp.h and icmpv6.h */
#define ICMP_DEST_UNREACH   3
#define ICMP_FRAG_NEEDED    4
#define ICMP_TIME_EXCEEDED  11
#define ICMP_EXC_FRAGTIME   1
#define ICMPV6_PKT_TOOBIG   2
#define ICMPV6_TIME_EXCEED  3
#define ICMPV6_EXC_FRAGTIME 1

struct icmphdr {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 unused;
	__be16 mtu;
};

/* include/net/dst.h: the low bits of _metrics are flags; uapi/linux/rtnetlink.h: RTAX_MTU counts from 1. */
#define DST_METRICS_FLAGS 3UL
#define RTAX_MTU	  2

#endif
