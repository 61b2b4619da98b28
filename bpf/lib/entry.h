/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs on the entry of a kernel function, each in two forms: `name`, a fentry program, and
 * `name_kprobe`, its twin for kernels on which that does not load. The loader keeps one of the two.
 * `how` tells the code that they share how to read (lib/field.h).
 */
#ifndef XFRMSCOPE_ENTRY_H
#define XFRMSCOPE_ENTRY_H

#include <bpf/bpf_tracing.h>

#include "field.h"

/*
 * `call` says what is to be done with the function's arguments, which follow as far as they are wanted, and
 * with `how`.
 */
#define ON_ENTRY(function, name, call, ...)        \
	SEC("fentry/" #function)                   \
	int BPF_PROG(name, __VA_ARGS__)            \
	{                                          \
		const enum way how = DIRECT;       \
		(void)how;                         \
		return call;                       \
	}                                          \
	SEC("kprobe/" #function)                   \
	int BPF_KPROBE(name##_kprobe, __VA_ARGS__) \
	{                                          \
		const enum way how = PROBED;       \
		(void)how;                         \
		return call;                       \
	}

#endif
