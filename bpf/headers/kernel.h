/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that the programs use, laid out as in the kernel's user-space interface
 * (include/uapi/linux). They are written out here, so that objects do not depend on the headers of
 * the machine that compiles them. Contexts end with the last member that we read; the verifier
 * translates accesses by offset, not by the size of the structure.
 */
#ifndef XFRMSCOPE_KERNEL_H
#define XFRMSCOPE_KERNEL_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef __u16 __sum16;
typedef _Bool bool;

#define true  1
#define false 0
#ifndef NULL
#define NULL ((void *)0)
#endif

/* uapi/linux/bpf.h */
enum bpf_map_type {
	BPF_MAP_TYPE_UNSPEC = 0,
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

enum {
	BPF_F_NO_PREALLOC = 1U << 0,
	BPF_F_MMAPABLE = 1U << 10,
};

#define BPF_F_CURRENT_CPU 0xffffffffULL

struct bpf_spin_lock {
	__u32 val;
};

enum xdp_action {
	XDP_ABORTED = 0,
	XDP_DROP,
	XDP_PASS,
	XDP_TX,
	XDP_REDIRECT,
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

/* The same number is TC_ACT_UNSPEC, which clsact takes as "go on". */
#define TCX_NEXT (-1)

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
};

/* uapi/asm-generic/errno-base.h */
#define ENOENT 2
#define EEXIST 17

/* uapi/linux/if_ether.h */
#define ETH_P_IP     0x0800
#define ETH_P_IPV6   0x86DD
#define ETH_P_8021Q  0x8100
#define ETH_P_8021AD 0x88A8

struct ethhdr {
	__u8 h_dest[6];
	__u8 h_source[6];
	__be16 h_proto;
};

/* What follows an 802.1Q tag's EtherType (include/linux/if_vlan.h). */
struct vlan_hdr {
	__be16 h_vlan_TCI;
	__be16 h_vlan_encapsulated_proto;
};

/* uapi/linux/in.h and in6.h */
#define IPPROTO_HOPOPTS	 0
#define IPPROTO_TCP	 6
#define IPPROTO_UDP	 17
#define IPPROTO_ROUTING	 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_ESP	 50
#define IPPROTO_AH	 51
#define IPPROTO_DSTOPTS	 60
#define IPPROTO_COMP	 108
#define IPPROTO_MH	 135

/* uapi/linux/ip.h; the first byte is read whole, without bit fields. */
struct iphdr {
	__u8 version_ihl;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__sum16 check;
	__be32 saddr;
	__be32 daddr;
};

#define IP_MF	  0x2000
#define IP_OFFSET 0x1FFF

/* uapi/linux/ipv6.h; addresses as words, which is how they are folded and compared. */
struct ipv6hdr {
	__be32 version_class_flow;
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

/* Extension headers of RFC 8200 section 4 but the fragment header: length in 8 bytes, less one. */
struct ipv6_opt_hdr {
	__u8 nexthdr;
	__u8 hdrlen;
};

struct frag_hdr {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off;
	__be32 identification;
};

#define IP6_MF	   0x0001
#define IP6_OFFSET 0xFFF8

/* uapi/linux/ip.h: RFC 4302 section 2. hdrlen counts 4 bytes, less two. */
struct ip_auth_hdr {
	__u8 nexthdr;
	__u8 hdrlen;
	__be16 reserved;
	__be32 spi;
	__be32 seq_no;
};

/* RFC 4303 section 2. */
struct ip_esp_hdr {
	__be32 spi;
	__be32 seq_no;
};

/*
 * RFC 7296 section 3.1, and RFC 2408 section 3.1 with cookies for SPIs. The SPIs are by halves, because the
 * header may start at an odd multiple of four.
 */
struct ike_hdr {
	__be32 initiator[2];
	__be32 responder[2];
	__u8 next;
	__u8 version;
	__u8 exchange;
	__u8 flags;
	__be32 id;
	__be32 length;
};

/* uapi/linux/udp.h */
struct udphdr {
	__be16 source;
	__be16 dest;
	__be16 len;
	__sum16 check;
};

#endif
