//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Every packet on the wire, in one class each; every ESP packet accounted to its SA. The same
 * functions serve XDP, TC and capture files. They only look: every path lets the packet go on.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "account.h"
#include "xdp.h"

/*
 * What TC is asked to make readable: Ethernet, two tags, IPv6, and extension headers for most that
 * is met. Packets with more than that stay as they are and count as truncated.
 */
#define PULL_BYTES 256

SEC("xdp")
int xdp_ingress(struct xdp_md *ctx)
{
	return xdp_observe(ctx);
}

/*
 * TC may hold a packet's headers in pages, out of reach. Then, and only then, they are pulled into
 * the linear part, which moves bytes but changes none, and the packet is parsed again.
 */
static __always_inline int tc_observe(struct __sk_buff *skb, enum direction dir, bool l3)
{
	struct scene at = { .dir = dir, .from = FROM_TC, .ctx = skb };
	__u64 pulled = 0;

	for (int i = 0; i < 2; i++) {
		struct cursor c = {
			.data = (void *)(long)skb->data,
			.end = (void *)(long)skb->data_end,
			.limit = skb->len,
		};
		/* Zeroed, because in a loop clang carries even what nobody reads, and the verifier minds. */
		struct view v = { .asides = pulled };
		enum why why;

		why = l3 ? parse_l3(&c, &v) : parse_eth(&c, &v, skb->vlan_present ? 1 : 0);
		if (unlikely(c.cut) && !i) {
			pulled = ASIDE_BIT(ASIDE_PULLED);
			if (!bpf_skb_pull_data(skb, skb->len < PULL_BYTES ? skb->len : PULL_BYTES))
				continue;
			/* The packet has its class already, and the helper may have moved it away from v. */
			lose(LOST_PULL);
			count_class(why, dir);
			break;
		}
		observe(why, &v, &c, &at);
		break;
	}
	return TCX_NEXT;
}

SEC("tcx/ingress")
int tc_ingress(struct __sk_buff *skb)
{
	return tc_observe(skb, DIR_IN, false);
}

SEC("tcx/egress")
int tc_egress(struct __sk_buff *skb)
{
	return tc_observe(skb, DIR_OUT, false);
}

/* For devices without an Ethernet header: tunnels, PPP, WWAN. */
SEC("tcx/ingress")
int tc_ingress_l3(struct __sk_buff *skb)
{
	return tc_observe(skb, DIR_IN, true);
}

SEC("tcx/egress")
int tc_egress_l3(struct __sk_buff *skb)
{
	return tc_observe(skb, DIR_OUT, true);
}

char _license[] SEC("license") = "Dual BSD/GPL";
