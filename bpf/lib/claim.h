/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which packet the stack programs have just counted. They and the drop program sit on one tracepoint
 * and run one after the other on the same CPU, in the order in which they were attached; this mark,
 * in a map that both objects share, keeps a packet from being counted twice.
 */
#ifndef XFRMSCOPE_CLAIM_H
#define XFRMSCOPE_CLAIM_H

struct claim_mark {
	__u64 skb;	 /* packet that is in the stack programs' account, and in no other */
	__u64 explained; /* packet whose end `mib` and `cause` tell */
	__u32 mib;	 /* xfrm counter that moved, this kernel's numbering; 0: none */
	__u32 cause;	 /* enum cause */
	__u64 seq;	 /* of the explained packet, 0: not known */
	__u64 top;	 /* its SA's highest number */
	__u64 distance;	 /* below that, of a late packet */
	__u32 spi;
	__u32 dir; /* enum direction */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct claim_mark);
} claimed_skb SEC(".maps");

/* The stack programs explain this packet's end. */
static __always_inline void claim(__u64 skb)
{
	__u32 zero = 0;
	struct claim_mark *mark = bpf_map_lookup_elem(&claimed_skb, &zero);

	if (mark)
		mark->skb = skb;
}

/* Whether they did, and the end of the mark: an address is soon that of another packet. */
static __always_inline bool claimed(__u64 skb)
{
	__u32 zero = 0;
	struct claim_mark *mark = bpf_map_lookup_elem(&claimed_skb, &zero);

	if (!mark || mark->skb != skb)
		return false;
	mark->skb = 0;
	return true;
}

/* What the stack programs know of this packet's end, whoever counts it; and the end of the note. */
static __always_inline void explained(__u64 skb, __u32 *mib, __u32 *cause)
{
	__u32 zero = 0;
	struct claim_mark *mark = bpf_map_lookup_elem(&claimed_skb, &zero);

	if (!mark || mark->explained != skb)
		return;
	mark->explained = 0;
	*mib = mark->mib;
	*cause = mark->cause;
}

#endif
