//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Only for measuring: sends numbered packets out of a device, as fast as one CPU can, when it is run by
 * BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "number.h"

/* The device to send from. */
volatile const __u32 cfg_device = 0;

SEC("xdp")
int send(struct xdp_md *ctx)
{
	number((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return bpf_redirect(cfg_device, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
