// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"net/netip"
	"slices"
)

// causeIndex finds what may explain a finding without looking at all the others: when an uplink fails, each
// of thousands of peers has its own.
type causeIndex struct {
	all    []Finding
	into   map[ID][]folding // by effect
	byKind map[ID][]int
	bySPI  map[spiOf][]int
	byPair map[pairOf][]int // the two addresses that a subject names, or the one twice
	byAddr map[pairOf][]int // each address that it names, twice
}

type spiOf struct {
	id  ID
	spi uint32
}

type pairOf struct {
	id   ID
	a, b netip.Addr
}

func pair(id ID, a, b netip.Addr) pairOf {
	if b.Less(a) {
		a, b = b, a
	}
	return pairOf{id, a, b}
}

func indexCauses(all []Finding) *causeIndex {
	x := &causeIndex{all: all, into: map[ID][]folding{}, byKind: map[ID][]int{}, bySPI: map[spiOf][]int{}, byPair: map[pairOf][]int{}, byAddr: map[pairOf][]int{}}
	for _, f := range foldings {
		for _, effect := range f.effects {
			x.into[effect] = append(x.into[effect], f)
		}
	}
	for j := range all {
		id, s := all[j].ID, all[j].Subject
		if all[j].Confidence < minFoldConfidence {
			continue
		}
		x.byKind[id] = append(x.byKind[id], j)
		if s.SPI != nil {
			k := spiOf{id, uint32(*s.SPI)}
			x.bySPI[k] = append(x.bySPI[k], j)
		}
		named := addresses(s)
		if len(named) > 0 {
			k := pair(id, named[0], named[len(named)-1])
			x.byPair[k] = append(x.byPair[k], j)
		}
		for _, a := range named {
			k := pair(id, a, a)
			x.byAddr[k] = append(x.byAddr[k], j)
		}
	}
	return x
}

// of finds the surest finding that explains finding i, the first of equals, or -1.
func (x *causeIndex) of(i int) int {
	best := -1
	effect := &x.all[i]
	for _, f := range x.into[effect.ID] {
		for _, some := range x.candidates(f, effect) {
			for _, j := range some {
				c := &x.all[j]
				if j == i || slices.Contains(c.spares, effect.ID) || !related(f.within, c.Subject, effect.Subject) {
					continue
				}
				if best < 0 || c.Confidence > x.all[best].Confidence || c.Confidence == x.all[best].Confidence && j < best {
					best = j
				}
			}
		}
	}
	return best
}

// candidates lists the findings of a kind that may be related to an effect: all that are, and few that are
// not.
func (x *causeIndex) candidates(f folding, effect *Finding) [][]int {
	switch f.within {
	case sameSA:
		if effect.Subject.SPI == nil {
			return nil
		}
		return [][]int{x.bySPI[spiOf{f.cause, uint32(*effect.Subject.SPI)}]}
	case samePeer, samePeerOrNobody, sameTalk:
		named := addresses(effect.Subject)
		switch len(named) {
		case 0:
			if f.within == samePeerOrNobody {
				return [][]int{x.byKind[f.cause]}
			}
			return nil
		case 1:
			return [][]int{x.byAddr[pair(f.cause, named[0], named[0])]}
		}
		a, b := named[0], named[1]
		return [][]int{x.byPair[pair(f.cause, a, b)], x.byPair[pair(f.cause, a, a)], x.byPair[pair(f.cause, b, b)]}
	case sameHost:
		return [][]int{x.byKind[f.cause]}
	}
	return nil
}
