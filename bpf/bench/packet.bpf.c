//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Only for measuring, see number.h: what a capture costs a packet at TC. packet_number writes the next
 * SPI and sequence number, and nothing else; packet_copy then does what packet_ingress does.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "packet_abi.h"
#include "xfrm.h"
#include "verifier.h"
#include "number.h"
#include "packet_wire.h"

SEC("tc")
int packet_empty(struct __sk_buff *skb)
{
	return TCX_NEXT;
}

SEC("tc")
int packet_number(struct __sk_buff *skb)
{
	number((void *)(long)skb->data, (void *)(long)skb->data_end);
	return TCX_NEXT;
}

SEC("tc")
int packet_copy(struct __sk_buff *skb)
{
	number((void *)(long)skb->data, (void *)(long)skb->data_end);
	return packet_at_tc(skb, PACKET_WIRE_IN, false);
}

char _license[] SEC("license") = "Dual BSD/GPL";
