// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// How the two ends' SAs were found to be one.
const (
	byKey = "key" // destination, SPI and protocol
	bySPI = "spi" // SPI and protocol; an address is translated on the way
)

// pair is one SA at both ends.
type pair struct {
	from, to *end // sender and receiver
	by       string
	both     []sight // packets that both stamped
}

// end is one SA at one end.
type end struct {
	label Label
	side  *Side
	*track
}

// match finds what is one SA at both ends, and which end sent it.
func match(a, b *Side) (pairs []pair, rest []*end, err error) {
	ends := func(l Label, s *Side) []*end {
		var out []*end
		for _, k := range slices.SortedFunc(mapsKeys(s.tracks), compareKeys) {
			if t := s.tracks[k]; k.Proto == ledger.ESP {
				out = append(out, &end{l, s, t})
			}
		}
		return out
	}
	as, bs := ends(A, a), ends(B, b)
	var sameWay int
	used := map[*end]bool{}
	take := func(x, y *end, by string) {
		used[x], used[y] = true, true
		pairs = append(pairs, orient(x, y, by))
	}
	same := map[ledger.SAKey][]*end{}
	for _, y := range bs {
		same[identity(y.key)] = append(same[identity(y.key)], y)
	}
	for _, x := range as {
		for _, y := range same[identity(x.key)] {
			switch {
			case used[x] || used[y]:
			case !opposite(x.key.Direction, y.key.Direction):
				sameWay++
			default:
				take(x, y, byKey)
			}
		}
	}
	// Behind a translator the destination differs. An SPI alone is no identity, so it has to be the only one.
	type spi struct {
		spi   ledger.SPI
		proto ledger.Proto
	}
	byNumber := map[spi][2][]*end{}
	for i, list := range [][]*end{as, bs} {
		for _, x := range list {
			if k := (spi{x.key.SPI, x.key.Proto}); !used[x] {
				both := byNumber[k]
				both[i] = append(both[i], x)
				byNumber[k] = both
			}
		}
	}
	for _, x := range as {
		both := byNumber[spi{x.key.SPI, x.key.Proto}]
		if used[x] || len(both[0]) != 1 || len(both[1]) != 1 || identity(x.key) == identity(both[1][0].key) ||
			!opposite(x.key.Direction, both[1][0].key.Direction) {
			continue
		}
		take(x, both[1][0], bySPI)
	}
	for _, x := range slices.Concat(as, bs) {
		if !used[x] {
			rest = append(rest, x)
		}
	}
	if len(pairs) == 0 {
		return nil, nil, unrelated(as, bs, sameWay)
	}
	return pairs, rest, nil
}

func mapsKeys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func compareKeys(a, b ledger.SAKey) int {
	return cmp.Or(cmp.Compare(a.Direction, b.Direction), a.Dst.Compare(b.Dst), cmp.Compare(a.SPI, b.SPI), cmp.Compare(a.Proto, b.Proto))
}

// identity is an SA's key without the direction, in which the ends differ.
func identity(k ledger.SAKey) ledger.SAKey {
	k.Direction = ""
	return k
}

// opposite says whether two ends can be the two of one SA. A capture does not know its direction.
func opposite(a, b ledger.Direction) bool {
	return a != b || a == ledger.Unknown
}

// orient puts the sender first, where the directions tell who that is. Two captures keep their order until
// their times have been looked at.
func orient(x, y *end, by string) pair {
	if x.key.Direction == ledger.In || y.key.Direction == ledger.Out {
		x, y = y, x
	}
	return pair{from: x, to: y, by: by}
}

// unrelated says why nothing could be joined.
func unrelated(as, bs []*end, sameWay int) error {
	switch {
	case sameWay > 0:
		return fmt.Errorf("both files are of the same end of the tunnel: their %d common SAs have the same direction in both; compare needs a recording or capture from each end", sameWay)
	case len(as) == 0 && len(bs) == 0:
		return errors.New("neither file holds an ESP SA")
	case len(as) == 0 || len(bs) == 0:
		which := A
		if len(bs) == 0 {
			which = B
		}
		return fmt.Errorf("file %s holds no ESP SA", which)
	}
	return fmt.Errorf("the files have no SA in common: A holds %s, B holds %s; are they of the two ends of one tunnel, and do they overlap in time?",
		listed(as), listed(bs))
}

// listed names some SPIs.
func listed(ends []*end) string {
	var spis []string
	for _, x := range ends {
		if s := x.key.SPI.String(); !slices.Contains(spis, s) {
			spis = append(spis, s)
		}
	}
	slices.Sort(spis)
	const enough = 4
	if len(spis) > enough {
		return fmt.Sprintf("%d SPIs (%s, …)", len(spis), strings.Join(spis[:enough], ", "))
	}
	return strings.Join(spis, ", ")
}
