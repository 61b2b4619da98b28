//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Only for measuring, see number.h: xdp_number and tc_number write the next SPI and sequence number, and
 * nothing else; xdp_wire then does what xdp_ingress does, tc_wire what tc_ingress does.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "number.h"
#include "tc.h"
#include "xdp.h"

SEC("xdp")
int xdp_empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int xdp_number(struct xdp_md *ctx)
{
	number((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return XDP_PASS;
}

SEC("xdp")
int xdp_wire(struct xdp_md *ctx)
{
	number((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return xdp_observe(ctx);
}

SEC("tc")
int tc_empty(struct __sk_buff *skb)
{
	return TCX_NEXT;
}

SEC("tc")
int tc_number(struct __sk_buff *skb)
{
	number((void *)(long)skb->data, (void *)(long)skb->data_end);
	return TCX_NEXT;
}

SEC("tc")
int tc_wire(struct __sk_buff *skb)
{
	number((void *)(long)skb->data, (void *)(long)skb->data_end);
	return tc_observe(skb, DIR_IN, false);
}

char _license[] SEC("license") = "Dual BSD/GPL";
