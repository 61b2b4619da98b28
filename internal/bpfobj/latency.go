// SPDX-License-Identifier: Apache-2.0

package bpfobj

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type latency_miss -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Latency ../../bpf/latency.bpf.c

// LatencyCount is the kernel's type of bpf/lib/latency_abi.h.
type LatencyCount = LatencyLatencyCount
