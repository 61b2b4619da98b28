// SPDX-License-Identifier: Apache-2.0

package reader

import "time"

// history remembers how far an SA's numbers had come at past moments. A number that is missing and
// was already passed a horizon ago is lost; one that was passed since may only be late.
type history struct {
	marks []mark
}

type mark struct {
	at      time.Time
	highest uint64
}

// add notes the highest number now and forgets what is older than needed: of the marks that are at
// least a horizon old, the newest says all.
func (h *history) add(now time.Time, highest uint64, horizon time.Duration) {
	old := -1
	for i, m := range h.marks {
		if now.Sub(m.at) >= horizon {
			old = i
		}
	}
	if old > 0 {
		h.marks = append(h.marks[:0], h.marks[old:]...)
	}
	// Between samples that come faster than needed, the earlier one is kept: it is the stricter.
	if n := len(h.marks); n > 1 && now.Sub(h.marks[n-2].at) < horizon/16 {
		h.marks[n-1] = mark{now, highest}
		return
	}
	h.marks = append(h.marks, mark{now, highest})
}

// settled is the number up to which what is missing is lost; 0 when nothing is that old.
func (h *history) settled(now time.Time, horizon time.Duration) uint64 {
	var highest uint64
	for _, m := range h.marks {
		if now.Sub(m.at) >= horizon {
			highest = m.highest
		}
	}
	return highest
}
