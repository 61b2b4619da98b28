// SPDX-License-Identifier: Apache-2.0

package main

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem bench -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../../bpf/headers -I../../../bpf/lib -nostdinc" lockfree ../../../bpf/bench/bench.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem bench_lock -no-global-types -cflags "-O2 -g -mcpu=v3 -DWINDOW_LOCK -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../../bpf/headers -I../../../bpf/lib -nostdinc" locked ../../../bpf/bench/bench.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem bench_packet -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../../bpf/headers -I../../../bpf/lib -nostdinc" packets ../../../bpf/bench/packet.bpf.c
