/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which network namespace to observe. Programs in the stack run for all of them. The loader runs
 * pick_netns once after loading, from a thread inside the namespace, through BPF_PROG_TEST_RUN with no
 * flags and no CPU given (it reads its own task's namespace), and keeps the namespace open as long as
 * programs are attached. It returns 1 when it has found one.
 */
#ifndef XFRMSCOPE_NETNS_H
#define XFRMSCOPE_NETNS_H

#include "xfrm.h"

struct net *target_net;

/* Only the running task's own namespace is read: the program must run in the loader's thread. */
SEC("raw_tp")
int pick_netns(void *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	target_net = BPF_CORE_READ(task, nsproxy, net_ns);
	return target_net != NULL;
}

#endif
