// SPDX-License-Identifier: Apache-2.0

package tui

import "time"

// How many events are remembered. Totals never depend on them.
const (
	eventsPerSA = 64
	eventSAs    = 4096
)

// eventLog keeps the newest events of each SA.
type eventLog struct {
	by      map[EventKey]*eventRing
	skipped int
}

// eventRing holds the newest events of one SA.
type eventRing struct {
	events []Event // oldest first
	total  int
}

func (l *eventLog) add(f *Frame) {
	if l.by == nil {
		l.by = map[EventKey]*eventRing{}
	}
	l.skipped += f.Skipped
	for _, e := range f.Events {
		r := l.by[e.Key]
		if r == nil {
			if len(l.by) >= eventSAs {
				l.forget()
			}
			r = &eventRing{}
			l.by[e.Key] = r
		}
		r.total++
		if len(r.events) == eventsPerSA {
			copy(r.events, r.events[1:])
			r.events = r.events[:eventsPerSA-1]
		}
		r.events = append(r.events, e)
	}
}

// forget gives up the SA whose newest event is the oldest.
func (l *eventLog) forget() {
	var oldest EventKey
	first := true
	for k, r := range l.by {
		if first || r.newest().Before(l.by[oldest].newest()) {
			oldest, first = k, false
		}
	}
	delete(l.by, oldest)
}

func (r *eventRing) newest() time.Time { return r.events[len(r.events)-1].At }
