/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What keeps the verifier's work small. It follows every way through a program and gives up after a
 * million instructions; loading must also stay quick on small machines.
 */
#ifndef XFRMSCOPE_VERIFIER_H
#define XFRMSCOPE_VERIFIER_H

/* Loops stay loops (bounded ones, kernel 5.3). */
#define NO_UNROLL _Pragma("clang loop unroll(disable)")

/*
 * Written out instead, where clang would let the body run on into the head of the loop: kernel 5.10
 * takes jumps back, but not this ("back-edge from insn", kernel check_cfg).
 */
#define UNROLL _Pragma("clang loop unroll(full)")

/*
 * Makes the verifier forget what it knows of a number, by mixing another one in and out again. Where
 * ways through the program meet, this makes them look alike, so that what comes after is followed
 * once and not once for each way (clang 19, kernel 6.18: over a million instructions without). `by`
 * must be unknown to the verifier, as any length taken from a packet is.
 */
#define FORGET(number, by)                                                               \
	do {                                                                             \
		__u64 number_ = (number);                                                \
		asm volatile("%0 ^= %1\n\t%0 ^= %1" : "+r"(number_) : "r"((__u64)(by))); \
		(number) = number_;                                                      \
	} while (0)

#endif
