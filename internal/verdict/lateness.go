// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math/bits"

	"xfrmscope/internal/ledger"
)

// maxWindow is XFRMA_REPLAY_ESN_MAX (include/uapi/linux/xfrm.h): no Linux SA has a larger window.
const maxWindow = 4096

// lateness sorts the packets that xfrm refused because they came below its replay window.
type lateness struct {
	dropped  int64 // refused as late: without ESN counted so, under ESN as integrity failure
	repeated int64 // of them repetitions of packets that had already come
	genuine  int64 // of them reordered packets: a larger window would have let them in
	distance int64 // how far below the top the latest of the reordered ones came
	byWire   int64 // the same as the wire alone saw it
	byStack  int64 // the same as the hooks saw it, repetitions included
	within   bool  // the wire saw no packet that late: the order was lost inside this host
}

// windowNeeded is the smallest window that would have lost nothing: xfrm_replay_check() refuses a
// packet whose distance below the highest number is equal to the window or more.
func (l lateness) windowNeeded() int64 { return l.distance + 1 }

// windowAdvised is the next power of two, or 0 where Linux has none that large.
func (l lateness) windowAdvised() int64 {
	need := max(l.windowNeeded(), 32)
	if need > maxWindow {
		return 0
	}
	return int64(1) << bits.Len64(uint64(need-1))
}

// lateDrops sorts the late drops that were counted under one cause. A repetition that arrives below
// the window is refused as late, not as a duplicate. The wire knows repetitions over a far wider
// window, so what it counts beyond the kernel's duplicates explains that many late drops.
func lateDrops(sa *ledger.SA, dropped int64) lateness {
	l := lateness{dropped: dropped, genuine: dropped, byStack: sa.XfrmLateMax}
	if dropped <= 0 {
		return l
	}
	w := sa.Sequence()
	if w == nil {
		l.distance = l.byStack
		return l
	}
	l.byWire = w.DisplacementMax
	if extra := w.Duplicates - sa.Xfrm[ledger.ReplayDuplicate]; extra > 0 {
		l.repeated = min(extra, dropped)
	}
	window := windowOf(sa)
	if l.repeated > 0 && w.DisplacementMax < window && w.Stale == 0 {
		l.repeated = dropped
	}
	l.genuine = dropped - l.repeated
	l.distance = max(l.byWire, l.byStack)
	if l.repeated > 0 && w.Stale == 0 {
		// The hooks' maximum may be that of a repetition, so only the wire's counts.
		l.distance = l.byWire
	}
	l.within = l.genuine > 0 && w.DisplacementMax < window && w.Stale == 0
	return l
}

// windowOf is the SA's replay window, 0 where it has none or it is not known.
func windowOf(sa *ledger.SA) int64 {
	if sa.ReplayWindow == nil {
		return 0
	}
	return int64(*sa.ReplayWindow)
}

func esn(sa *ledger.SA) bool { return sa.ESN != nil && *sa.ESN }

// misEpoch is how many packets failed their integrity check only because they were late, and whether
// that was seen or is inferred. Without hooks the SA counts all failures as one; under ESN those that
// the wire saw arrive below the window account for as many of them.
func misEpoch(sa *ledger.SA) (n int64, seen bool) {
	if sa.XfrmFrom != ledger.FromSAD {
		return sa.Xfrm[ledger.ESNMisEpoch], true
	}
	failed := sa.Xfrm[ledger.IntegrityFailed]
	if failed == 0 || !esn(sa) || sa.Sequence() == nil || windowOf(sa) == 0 || sa.Wire.DisplacementMax < windowOf(sa) {
		return 0, false
	}
	// Buckets that lie below the window as a whole cannot hold any of them.
	below := int64(0)
	for b, n := range sa.Wire.DisplacementHistogram {
		if int64(1)<<(b+1) > windowOf(sa) || b == len(sa.Wire.DisplacementHistogram)-1 {
			below += n
		}
	}
	return min(failed, below), false
}
