// SPDX-License-Identifier: Apache-2.0

// Package bpfobj holds the compiled kernel programs, the Go forms of their types, and the names of
// their enums. The compiled files are committed, so that building needs no clang.
package bpfobj

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem wire -type event -type offline_meta -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Lockfree ../../bpf/wire.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem wire_lock -no-global-types -cflags "-O2 -g -mcpu=v3 -DWINDOW_LOCK -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Locked ../../bpf/wire.bpf.c
