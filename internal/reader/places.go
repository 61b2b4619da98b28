// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"cmp"
	"slices"

	"xfrmscope/internal/ledger"
)

// place is where a snapshot finds what it says of an SA, or a part of it: in a slot, or among what was folded.
type place struct {
	key    ledger.SAKey
	slot   uint32
	folded bool
	again  bool // the place before it is of the same SA
}

// places are in the order of a snapshot, which is kept from one to the next: few SAs come and go meanwhile.
type places struct {
	all  []place
	came []place // not among them yet
	gone bool    // some are no longer
}

// arrive adds a place. Where nobody looks while SAs come and go, those that came may have gone again.
func (r *Reader) arrive(p place) {
	r.places.came = append(r.places.came, p)
	if len(r.places.came) > r.table.Cap()/4+1024 {
		r.arrange()
	}
}

func comparePlaces(a, b place) int {
	if c := compareKeys(a.key, b.key); c != 0 {
		return c
	}
	// What was folded came before what is in a slot now.
	if a.folded != b.folded {
		if a.folded {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.slot, b.slot)
}

// arrange brings the places up to date.
func (r *Reader) arrange() []place {
	p := &r.places
	if !p.gone && len(p.came) == 0 {
		return p.all
	}
	if p.gone {
		p.all, p.came = slices.DeleteFunc(p.all, r.isGone), slices.DeleteFunc(p.came, r.isGone)
	}
	slices.SortFunc(p.came, comparePlaces)
	p.came = slices.CompactFunc(p.came, func(a, b place) bool { return comparePlaces(a, b) == 0 })
	old := p.all
	if len(p.came) > 0 {
		p.all = make([]place, 0, len(old)+len(p.came))
	}
	for _, n := range p.came {
		i, _ := slices.BinarySearchFunc(old, n, comparePlaces)
		p.all, old = append(p.all, old[:i]...), old[i:]
		// One that went and came back to the same place may be among the old ones.
		if len(old) == 0 || comparePlaces(old[0], n) != 0 {
			p.all = append(p.all, n)
		}
	}
	if len(p.came) > 0 {
		p.all = append(p.all, old...)
	}
	for i := range p.all {
		p.all[i].again = i > 0 && p.all[i].key == p.all[i-1].key
	}
	p.came, p.gone = p.came[:0], false
	return p.all
}

func (r *Reader) isGone(p place) bool {
	if p.folded {
		return r.reap.folded[p.key] == nil
	}
	return r.live[p.slot] == nil || r.live[p.slot].key != p.key
}

// wire puts the wire's side of a snapshot together, ordered by SA.
func (r *Reader) wire() []ledger.WireSA {
	all := r.arrange()
	out := make([]ledger.WireSA, 0, len(all))
	for i := range all {
		p := &all[i]
		w := r.parts[p.slot]
		if p.folded {
			w = r.reap.folded[p.key]
		}
		switch n := len(out) - 1; {
		case w == nil: // it could not be read
		case p.again && n >= 0 && out[n].Key == p.key:
			out[n] = merge(out[n], *w)
		default:
			out = append(out, *w)
		}
	}
	return out
}
