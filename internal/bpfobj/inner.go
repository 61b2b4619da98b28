// SPDX-License-Identifier: Apache-2.0

package bpfobj

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type inner_seen -type inner_rtt -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Inner ../../bpf/inner.bpf.c

// The kernel's types of bpf/lib/inner_abi.h.
type (
	InnerFlow = InnerInnerFlow
	InnerKey  = InnerInnerKey
	InnerRTT  = InnerInnerRtt
)

// Bits of an end's Seen.
const (
	InnerSeenFIN    = InnerInnerSeenSEEN_FIN
	InnerSeenRST    = InnerInnerSeenSEEN_RST
	InnerSeenLocal  = InnerInnerSeenSEEN_LOCAL
	InnerSeenWindow = InnerInnerSeenSEEN_WINDOW
)

// InnerScaleKnown says whether an end's window scale is one, and not a mark for "unknown"
// (SCALE_UNKNOWN and SCALE_NOT_SENT of bpf/lib/inner_abi.h).
func InnerScaleKnown(scale uint8) bool { return scale <= 14 }
