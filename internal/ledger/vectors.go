// SPDX-License-Identifier: Apache-2.0

package ledger

// Indices of a WireSA's counters. The histograms follow: extents, displacements, lengths of gaps.
const (
	wirePackets = iota
	wireBytes
	wireSpan
	wireUnique
	wireDuplicates
	wireLate
	wireStale
	wireMissing
	wirePending
	wireRestarts
	wireJumps
	wireJumped
	wireGapEvents
	wireExtentFloor
	wireLateSpread
	wireCE
	wireRebinds
	wireSpacings
	wireSpacingSum
	wireSpacingSquares
	wireLossyIntervals
	wireLossyRate
	wireLossyRateSquares
	wireOfferedRate
	wireOfferedRateSquares
	wireFixed
)

// histBuckets is HIST_BUCKETS of bpf/lib/abi.h; a source with more or fewer is cut or filled.
const histBuckets = 16

func wireCounts(w WireSA) counts {
	c := make(counts, wireFixed+3*histBuckets)
	for i, v := range [wireFixed]uint64{
		wirePackets:     w.Packets,
		wireBytes:       w.Bytes,
		wireSpan:        w.Span,
		wireUnique:      w.Unique,
		wireDuplicates:  w.Duplicates,
		wireLate:        w.Late,
		wireStale:       w.Stale,
		wireMissing:     w.Missing,
		wirePending:     w.Pending,
		wireRestarts:    w.Restarts,
		wireJumps:       w.Jumps,
		wireJumped:      w.Jumped,
		wireGapEvents:   w.GapEvents,
		wireExtentFloor: w.ExtentFloor,
		wireLateSpread:  w.LateSpread,
		wireCE:          w.CE,
		wireRebinds:     w.Rebinds,

		wireSpacings:       w.Spacings,
		wireSpacingSum:     w.SpacingSum,
		wireSpacingSquares: w.SpacingSquares,

		wireLossyIntervals:     w.LossyIntervals,
		wireLossyRate:          w.LossyRate,
		wireLossyRateSquares:   w.LossyRateSquares,
		wireOfferedRate:        w.OfferedRate,
		wireOfferedRateSquares: w.OfferedRateSquares,
	} {
		c[i] = int64(v)
	}
	fold(c[wireFixed:wireFixed+histBuckets], w.ExtentHist)
	fold(c[wireFixed+histBuckets:wireFixed+2*histBuckets], w.DisplacementHist)
	fold(c[wireFixed+2*histBuckets:], w.GapHist)
	return c
}

// fold copies a histogram into one of histBuckets buckets, the last of which is open.
func fold(into counts, hist []uint64) {
	for b, n := range hist {
		into[min(b, histBuckets-1)] += int64(n)
	}
}

func (c counts) extents() counts       { return c[wireFixed : wireFixed+histBuckets] }
func (c counts) displacements() counts { return c[wireFixed+histBuckets : wireFixed+2*histBuckets] }
func (c counts) gaps() counts          { return c[wireFixed+2*histBuckets:] }

// Indices of a SADEntry's counters.
const (
	sadPackets = iota
	sadBytes
	sadOSeq
	sadReplayLate
	sadReplayDuplicate
	sadIntegrityFailed
)

func sadCounts(e SADEntry) counts {
	return counts{
		sadPackets:         int64(e.Packets),
		sadBytes:           int64(e.Bytes),
		sadOSeq:            int64(e.OSeq),
		sadReplayLate:      int64(e.ReplayLate),
		sadReplayDuplicate: int64(e.ReplayDuplicate),
		sadIntegrityFailed: int64(e.IntegrityFailed),
	}
}

// maxDuring bounds a maximum to the run. A source's maximum is over its whole life; the highest bucket
// of the histogram that moved bounds what the run can have seen.
func maxDuring(life uint64, hist counts) int64 {
	top := -1
	for b, n := range hist {
		if n > 0 {
			top = b
		}
	}
	switch top {
	case -1:
		return 0
	case len(hist) - 1: // open
		return int64(life)
	}
	return min(int64(life), int64(1)<<(top+1)-1)
}
