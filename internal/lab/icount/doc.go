// SPDX-License-Identifier: Apache-2.0

// Package icount counts the instructions that each program of xfrmscope takes for a packet, in a virtual
// machine whose clock is its instructions (QEMU's -icount): what the kernel takes for nanoseconds of run
// time there is how many instructions ran. They repeat to a few of them whatever else the machine does, so
// that a change which costs is told from chance. They are no time: a cache miss counts nothing, and an
// instruction that the emulator does in a helper counts as one.
//
// The whole machine's instructions for a packet through a tunnel tell what an observer costs with all that belongs to
// it; tcpdump and bpftrace are measured beside xfrmscope. testdata has the scripts of bpftrace.
//
// `make bench-vm` runs it and holds the counts against testdata; `make bench-vm UPDATE=yes` writes them anew.
package icount
