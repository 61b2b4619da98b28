/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Kernel stacks of dropped packets, for the programs that are asked for them. The table holds addresses;
 * user space knows the functions. It is of size 1 until the loader makes it larger.
 */
#ifndef XFRMSCOPE_STACKS_H
#define XFRMSCOPE_STACKS_H

#define STACK_DEPTH		 48
#define BPF_MAP_TYPE_STACK_TRACE 7 /* uapi/linux/bpf.h */

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} drop_stacks SEC(".maps");

/* 1: stacks are wanted. */
const volatile __u32 cfg_stacks = 0;

/* 1 + the number of the stack that the program interrupts; 0: none was asked for, or the table is full. */
static __always_inline __s32 kernel_stack(void *ctx)
{
	long id;

	if (!cfg_stacks)
		return 0;
	id = bpf_get_stackid(ctx, &drop_stacks, 0);
	return id < 0 ? 0 : id + 1;
}

#endif
