// SPDX-License-Identifier: Apache-2.0

package export

import "time"

// other is the label of what is beyond a bound.
const other = "other"

// kept is how long a series stays after what it is about has gone, and its place with it: longer than a
// rekey or a reconnection takes.
const kept = time.Hour

// overPerPlace bounds how many of those that share are remembered.
const overPerPlace = 16

// bound lets the first so many keys have series of their own. Who was first stays first, so that no counter
// moves from one series to another; a key that has not been asked for in a while gives its place back.
type bound[K comparable] struct {
	max   int
	known map[K]time.Time // when it was last asked for
	over  map[K]time.Time // keys that have to share
}

func newBound[K comparable](max int) *bound[K] {
	return &bound[K]{max: max, known: map[K]time.Time{}, over: map[K]time.Time{}}
}

// admit says whether a key has series of its own. One that shares goes on to do so, because what it counted
// is in the common series.
func (b *bound[K]) admit(key K, now time.Time) bool {
	_, known := b.known[key]
	_, shares := b.over[key]
	if known || !shares && len(b.known) < b.max {
		b.known[key] = now
		return true
	}
	b.over[key] = now
	return false
}

// forget gives back the places of keys that are gone.
func (b *bound[K]) forget(now time.Time) {
	for k, at := range b.known {
		if now.Sub(at) > kept {
			delete(b.known, k)
		}
	}
	for k, at := range b.over {
		if at.Before(now) {
			delete(b.over, k)
		}
	}
	// They must not fill memory either. What is not told apart any more may get series of its own later, which
	// then begin with what the common series has counted as well.
	if len(b.over) > overPerPlace*b.max {
		clear(b.over)
	}
}
