// SPDX-License-Identifier: Apache-2.0

package main

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem send -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../../bpf/headers -I../../../bpf/lib -nostdinc" sender ../../../bpf/bench/send.bpf.c
