/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fields of the kernel's structs, by the cheapest way that a program has to them. A call of
 * bpf_probe_read_kernel() reads any address but takes some 90 instructions; a load takes one, and a few
 * around it, but the verifier has to know the type of what the pointer points to. In a fentry program it
 * knows those of the function's arguments and of what their members point to (5.5), and anywhere that of
 * an address to which bpf_rdonly_cast() has given one (6.2), which is no call at run time. A load from where
 * there is no memory gives zero.
 */
#ifndef XFRMSCOPE_FIELD_H
#define XFRMSCOPE_FIELD_H

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "verifier.h"

/* How a program reads; always a constant. The code that programs share is given it as `how`. */
enum way {
	PROBED, /* by calls: kprobes */
	CAST,	/* by loads from what was cast, where that can be; else by calls */
	DIRECT, /* as CAST, and by loads from its arguments: fentry */
};

/*
 * Where the kernel has no such function the address is 0, and the verifier sees nothing of what depends on
 * it. Where it may not be used for another reason the loader makes it 0.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CASTS(how) ((how) != PROBED && bpf_rdonly_cast)

/* A field of an argument, or of what a field of one points to. */
#define FIELD(how, p, f) ((how) == DIRECT || CASTS(how) ? (p)->f : BPF_CORE_READ(p, f))

/* A struct at an address that was calculated, and a field of one, or of what a field of one points to. */
#define AT(how, type, address)                                                                        \
	(CASTS(how) ? (type *)bpf_rdonly_cast((const void *)(address), bpf_core_type_id_kernel(type)) \
		    : (type *)(address))
#define FIELD_AT(how, p, f) (CASTS(how) ? (p)->f : BPF_CORE_READ(p, f))

/* The same for a byte of such a struct. */
static __always_inline __u8 byte_probed(const void *at)
{
	__u8 byte = 0;

	bpf_probe_read_kernel(&byte, sizeof(byte), at);
	return byte;
}

#define BYTE(how, at)	 ((how) == DIRECT || CASTS(how) ? *(const __u8 *)(at) : byte_probed(at))
#define BYTE_AT(how, at) (CASTS(how) ? *(const __u8 *)(at) : byte_probed(at))

/*
 * Any 16 bytes, to the verifier: in an array of bytes loads of all sizes may lie. The suffix is no part of
 * the kernel's name.
 */
struct in6_addr___any {
	__u8 bytes[16];
};

/* Words that are written as one type and read as another. */
typedef __u64 __attribute__((may_alias)) any_u64;
typedef __u32 __attribute__((may_alias)) any_u32;

/*
 * Copies memory in words of `word` bytes, 8 or 4, which `to` is aligned to; of 8 the last one may be half.
 * `n` and `word` are constants.
 */
static __always_inline bool read_words(enum way how, void *to, const void *from, __u32 n, __u32 word)
{
	if (!CASTS(how))
		return !bpf_probe_read_kernel(to, n, from);
	UNROLL
	for (__u32 at = 0; at < n; at += 16) {
		const void *some = bpf_rdonly_cast(from + at, bpf_core_type_id_kernel(struct in6_addr___any));

		UNROLL
		for (__u32 i = 0; i < 16 && at + i < n; i += word)
			if (at + i + 8 <= n && word == 8)
				*(any_u64 *)(to + at + i) = *(const any_u64 *)(some + i);
			else
				*(any_u32 *)(to + at + i) = *(const any_u32 *)(some + i);
	}
	return true;
}

/* A byte of memory that is not known to be part of any struct. */
#define BYTE_OF(how, at) BYTE_AT(how, AT(how, struct in6_addr___any, at))

#endif
