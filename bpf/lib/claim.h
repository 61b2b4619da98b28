/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which packet the stack programs have just counted. They and the drop program sit on one tracepoint
 * and run one after the other on the same CPU, in the order in which they were attached; this mark,
 * in a map that both objects share, keeps a packet from being counted twice.
 */
#ifndef XFRMSCOPE_CLAIM_H
#define XFRMSCOPE_CLAIM_H

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} claimed_skb SEC(".maps");

/* The stack programs explain this packet's end. */
static __always_inline void claim(__u64 skb)
{
	__u32 zero = 0;
	__u64 *mark = bpf_map_lookup_elem(&claimed_skb, &zero);

	if (mark)
		*mark = skb;
}

/* Whether they did, and the end of the mark: an address is soon that of another packet. */
static __always_inline bool claimed(__u64 skb)
{
	__u32 zero = 0;
	__u64 *mark = bpf_map_lookup_elem(&claimed_skb, &zero);

	if (!mark || *mark != skb)
		return false;
	*mark = 0;
	return true;
}

#endif
