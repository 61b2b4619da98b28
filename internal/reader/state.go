// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"math/bits"
	"unsafe"

	"xfrmscope/internal/bpfobj"
)

// Constants of bpf/lib/abi.h that its BTF does not carry, because they are macros. A test holds them
// against the types that the object was compiled with.
const (
	seqBlocks    = 256
	seqBlockBits = 32
	seqWindow    = seqBlocks * seqBlockBits
	seqBias      = uint64(bpfobj.SeqBias)
)

// State is struct sa_state: what all CPUs know together about one SA on the wire.
type State bpfobj.SAState

// Count is struct sa_count: what one CPU counted for one SA.
type Count = bpfobj.SACount

// StateSize is how many bytes of the sa_states array one slot takes.
const StateSize = int(unsafe.Sizeof(State{}))

// headSize is how many bytes of it hold the identity and the counters that tell how far an SA has come.
const headSize = int(unsafe.Offsetof(State{}.GapEvents))

// Where in it the gaps and the window lie, which are three quarters of it.
const (
	gapsAt    = int(unsafe.Offsetof(State{}.Gaps))
	windowAt  = int(unsafe.Offsetof(State{}.Window))
	windowEnd = windowAt + int(unsafe.Sizeof(State{}.Window))
)

// progress is the cache line of the counters that tell how far an SA has come. No packet leaves it as it was: each
// raises `highest`, which never falls, or one of `duplicates`, `late` and `stale`, and of these only what ends in a
// restart or a jump is taken back, which raises `highest` (bpf/lib/disorder.h, leap.h). A packet does so after it
// was counted in sa_counts. So between two reads that are the same, no packet came that is not still under way.
type progress [8]uint64

const progressAt = int(unsafe.Offsetof(State{}.Highest))

func (s *State) progress() progress { return *(*progress)(unsafe.Pointer(&s.Highest)) }

// bytes is the state as the kernel lays it out, in the machine's byte order: State has the kernel's layout,
// so reading one is a copy, not a parse.
func (s *State) bytes() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(s)), StateSize) }

// span is how many numbers lie between the first and the highest, over all restarts.
func (s *State) span() uint64 {
	if s.First == 0 || s.Highest < s.First {
		return s.ClosedSpan
	}
	return s.ClosedSpan + s.Highest - s.First + 1
}

// holes is the number of missing numbers. The kernel's counter is signed, because a late packet on
// one CPU may fill a hole before another CPU has counted it; between the two it reads as zero.
func (s *State) holes() uint64 { return uint64(max(s.Holes, 0)) }

// unique is the number of distinct numbers seen: span - holes + early (bpf/lib/abi.h).
func (s *State) unique() uint64 { return s.span() - min(s.holes(), s.span()) + s.Early }

// packets is how many packets the sequence state accounts for.
func (s *State) packets() uint64 { return s.unique() + s.Duplicates + s.Stale }

// missingAbove counts the numbers above `from`, up to the highest, that were never seen and can
// still arrive. What slid out of the window cannot: a packet with such a number would be stale.
func (s *State) missingAbove(from uint64) uint64 {
	low, some := s.lowest(from)
	if !some {
		return 0
	}
	var missing uint64
	for low <= s.Highest {
		block := low / seqBlockBits
		last := min(block*seqBlockBits+seqBlockBits-1, s.Highest)
		n := last - low + 1
		word := s.Window[block%seqBlocks]
		seen := uint64(0)
		if uint32(word>>32) == uint32(block) {
			row := uint32(word) >> (low % seqBlockBits)
			if n < seqBlockBits {
				row &= 1<<n - 1
			}
			seen = uint64(bits.OnesCount32(row))
		}
		missing += n - seen
		low = last + 1
	}
	return missing
}

// lowest is the first number above `from` that missingAbove looks for; false: it looks for none.
func (s *State) lowest(from uint64) (uint64, bool) {
	if s.First == 0 || s.Highest <= from {
		return 0, false
	}
	// The first number is always seen and everything below it is outside the span.
	low := max(from+1, s.First)
	if s.Highest >= seqWindow {
		// The lowest block that its word can still belong to, whole.
		oldest := (s.Highest/seqBlockBits - (seqBlocks - 1)) * seqBlockBits
		low = max(low, oldest)
	}
	return low, low <= s.Highest
}

// wordsAbove lists the words of the window that missingAbove looks at: from the one to before the other, in a row that
// may go on at its beginning.
func (s *State) wordsAbove(from uint64) [2][2]int {
	low, some := s.lowest(from)
	if !some {
		return [2][2]int{}
	}
	first, last := int(low/seqBlockBits%seqBlocks), int(s.Highest/seqBlockBits%seqBlocks)
	if first <= last {
		return [2][2]int{{first, last + 1}}
	}
	return [2][2]int{{first, seqBlocks}, {0, last + 1}}
}
