//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Every packet on the wire, in one class each; every ESP packet accounted to its SA. The same
 * functions serve XDP, TC and capture files. They only look: every path lets the packet go on.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "tc.h"
#include "xdp.h"

SEC("xdp")
int xdp_ingress(struct xdp_md *ctx)
{
	return xdp_observe(ctx);
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
