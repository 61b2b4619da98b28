/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's structs, cut down to the fields that the stack programs read. Field offsets come
 * from the running kernel's BTF (preserve_access_index), so order and size here mean nothing. The
 * pointers to algorithms and keys (aalg, ealg, calg, aead) are absent on purpose: what is not
 * declared cannot be read.
 */
#ifndef XFRMSCOPE_XFRM_H
#define XFRMSCOPE_XFRM_H

#define XFRM_STATE_ESN 128 /* include/uapi/linux/xfrm.h */
#define AF_INET	       2
#define AF_INET6       10

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net;
struct xfrm_state;

typedef struct {
	struct net *net;
} possible_net_t;

struct linux_xfrm_mib {
	unsigned long mibs[1];
};

struct netns_mib {
	struct linux_xfrm_mib *xfrm_statistics; /* per CPU */
};

struct net {
	struct netns_mib mib;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct {
	struct nsproxy *nsproxy;
};

struct net_device {
	int ifindex;
	possible_net_t nd_net;
};

struct dst_entry {
	struct net_device *dev;
	struct xfrm_state *xfrm;
};

struct skb_ext {
	__u8 offset[1];
};

struct sk_buff {
	unsigned int len;
	__u32 mark;
	struct net_device *dev;
	char cb[48];
	unsigned long _skb_refdst;
	__u8 active_extensions;
	int skb_iif;
	__u16 transport_header;
	__u16 network_header;
	unsigned char *head;
	struct skb_ext *extensions;
};

enum skb_ext_id {
	SKB_EXT_SEC_PATH,
};

/* Of 7.3 `len` is a byte and no longer an int: see sa_received() for how it is read. */
struct sec_path {
	int len;
	struct xfrm_state *xvec[6];
};

/* include/net/xfrm.h: what xfrm keeps in skb->cb; input numbers are in network order. */
struct xfrm_skb_cb {
	union {
		struct {
			__u32 low;
			__u32 hi;
		} input;
	} seq;
};

typedef union {
	__u32 a6[4];
} xfrm_address_t;

struct xfrm_id {
	xfrm_address_t daddr;
	__u32 spi;
	__u8 proto;
};

struct xfrm_replay_state {
	__u32 oseq;
	__u32 seq;
};

struct xfrm_replay_state_esn {
	__u32 oseq;
	__u32 seq;
	__u32 oseq_hi;
	__u32 seq_hi;
	__u32 replay_window;
};

struct xfrm_encap_tmpl {
	__u16 encap_sport;
	__u16 encap_dport;
};

struct xfrm_state {
	possible_net_t xs_net;
	struct xfrm_id id;
	__u32 if_id;
	struct {
		__u32 reqid;
		__u8 replay_window;
		__u8 flags;
		__u16 family;
		xfrm_address_t saddr;
	} props;
	struct xfrm_encap_tmpl *encap;
	struct xfrm_replay_state replay;
	struct xfrm_replay_state_esn *replay_esn;
};

/* A per-CPU array map as the kernel holds it; pptrs[i] is the per-CPU address of element i. */
struct bpf_array {
	void *pptrs[1];
};

#pragma clang attribute pop

/* uapi/linux/bpf.h: context of a raw tracepoint. */
struct bpf_raw_tracepoint_args {
	__u64 args[3];
};

/* The register frame that a kprobe is given, which is part of each architecture's user interface. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8;
	unsigned long rax, rcx, rdx, rsi, rdi;
	unsigned long orig_rax, rip, cs, eflags, rsp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};
struct pt_regs;
#endif

#endif
