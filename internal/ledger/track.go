// SPDX-License-Identifier: Apache-2.0

package ledger

// counts is a row of counters of one source, by a fixed index.
type counts []int64

// track follows absolute counters across snapshots. When the counters begin anew, what they had
// reached is kept and the next reading counts from zero.
type track struct {
	base, last, kept counts
}

// start begins the first stretch: from base, or from zero when base is nil.
func (t *track) start(now, base counts) {
	if base == nil {
		base = make(counts, len(now))
	}
	t.base, t.last, t.kept = base, now, make(counts, len(now))
}

// restart ends the current stretch and begins another at zero.
func (t *track) restart(now counts) {
	t.kept = t.total()
	t.base, t.last = make(counts, len(now)), now
}

// total is what the counters moved by over all stretches.
func (t *track) total() counts {
	sum := make(counts, len(t.last))
	for i := range sum {
		sum[i] = t.kept[i] + t.last[i] - t.base[i]
	}
	return sum
}

// wentBack says whether any of the given counters is lower than at the last reading.
func (t *track) wentBack(now counts, monotone ...int) bool {
	for _, i := range monotone {
		if now[i] < t.last[i] {
			return true
		}
	}
	return false
}

// tally follows counters that come by name. A name's first reading counts from zero, except in the
// snapshot that is the baseline.
type tally[K comparable] struct {
	base, last, kept, before map[K]int64
}

// observe takes one reading. A counter that went back began anew: the sources restart as a whole, so
// one that did restarts all.
func (t *tally[K]) observe(now map[K]uint64, baseline bool) {
	if t.last == nil {
		t.base, t.last, t.kept = map[K]int64{}, map[K]int64{}, map[K]int64{}
	}
	t.before = t.total()
	for k, v := range now {
		if int64(v) < t.last[k] {
			t.kept, t.base, t.last = t.total(), map[K]int64{}, map[K]int64{}
			break
		}
	}
	for k, v := range now {
		if baseline {
			t.base[k] = int64(v)
		}
		t.last[k] = int64(v)
	}
}

// observeEach is observe for a table that lets go of entries which have not moved for long: each of its counters
// ends by itself, and counts from zero when it comes back.
func (t *tally[K]) observeEach(now map[K]uint64, baseline bool) {
	for k, v := range t.last {
		if n, there := now[k]; there && int64(n) >= v {
			continue
		}
		if moved := v - t.base[k]; moved != 0 {
			t.kept[k] += moved
		}
		delete(t.base, k)
		delete(t.last, k)
	}
	t.observe(now, baseline)
}

// total is what each counter moved by; counters that did not move are left out.
func (t *tally[K]) total() map[K]int64 {
	sum := make(map[K]int64, len(t.last))
	for k, v := range t.kept {
		sum[k] += v
	}
	for k, v := range t.last {
		sum[k] += v - t.base[k]
	}
	for k, v := range sum {
		if v == 0 {
			delete(sum, k)
		}
	}
	return sum
}

// moving says whether a counter moved between the last two readings.
func (t *tally[K]) moving(k K) bool { return t.total()[k] != t.before[k] }
