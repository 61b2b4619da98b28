// SPDX-License-Identifier: Apache-2.0

package inject

// Fate is how a packet left the path.
type Fate int

// The fates.
const (
	Straight  Fate = iota // as it came
	Delayed               // later than it came
	Copied                // a further copy
	Corrupted             // with a bit flipped
	Made                  // made by Send, no gateway sent it
)

// Departure is one packet that left the path.
type Departure struct {
	Seq  uint64 // joined across the wrap of the 32 bits on the wire
	Fate Fate
	IP   int // length of the outer IP packet
}

// Truth is everything that happened to one SA on the path, in order. All other figures follow from
// these two lists, by the plainest code there is.
type Truth struct {
	SPI     uint32
	In      []uint64 // numbers that came from the sender
	Out     []Departure
	Dropped int // packets that a rule or a block dropped
	Marked  int // packets that went on marked
	Held    int // packets still held back
}

// Wire is what an observer at the receiving interface has to count.
type Wire struct {
	Packets      int
	Bytes        int // outer IP packets
	First        uint64
	Highest      uint64
	Unique       int
	Duplicates   int
	Late         int // unique, but after a higher number
	Missing      int // between first and highest, never seen
	Displacement int // largest distance of a late packet below the highest
	Extent       int // largest reorder extent (RFC 4737 section 4.2.2)
}

// Wire counts what left the path. First and Missing are those of an observer that was there from
// the first packet on: numbers below the first one seen do not widen the span.
func (t Truth) Wire() Wire {
	w := Wire{Packets: len(t.Out)}
	seen := map[uint64]bool{}
	var order []uint64 // the unique numbers in order of arrival
	for _, d := range t.Out {
		w.Bytes += d.IP
		if seen[d.Seq] {
			w.Duplicates++
			continue
		}
		seen[d.Seq] = true
		w.Unique++
		order = append(order, d.Seq)
		switch {
		case len(order) == 1:
			w.First, w.Highest = d.Seq, d.Seq
		case d.Seq > w.Highest:
			w.Highest = d.Seq
		default:
			w.Late++
			w.Displacement = max(w.Displacement, int(w.Highest-d.Seq))
			w.Extent = max(w.Extent, extent(order))
		}
	}
	for seq := w.First; w.Unique > 0 && seq <= w.Highest; seq++ {
		if !seen[seq] {
			w.Missing++
		}
	}
	return w
}

// extent is the distance, in arrivals, from the last one back to the earliest that has a higher
// number.
func extent(order []uint64) int {
	last := len(order) - 1
	for i, seq := range order {
		if seq > order[last] {
			return last - i
		}
	}
	return 0
}

// Lost is how many distinct numbers came in and never went out.
func (t Truth) Lost() int {
	out := map[uint64]bool{}
	for _, d := range t.Out {
		out[d.Seq] = true
	}
	lost := map[uint64]bool{}
	for _, seq := range t.In {
		if !out[seq] {
			lost[seq] = true
		}
	}
	return len(lost)
}

// Count is how many packets left with the fate.
func (t Truth) Count(f Fate) (n int) {
	for _, d := range t.Out {
		if d.Fate == f {
			n++
		}
	}
	return n
}

// join puts the 32 bits of the wire above the epoch that is nearest to the last number (the same
// reading as RFC 4303 appendix A, without its window).
func join(last uint64, seq uint32) uint64 {
	const half = 1 << 31
	epoch := last &^ 0xffffffff
	n := epoch | uint64(seq)
	switch {
	case n+half < last:
		return n + 1<<32
	case n > last+half && epoch > 0:
		return n - 1<<32
	default:
		return n
	}
}
