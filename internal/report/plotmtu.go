// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// sizes is what is known of the sizes of an SA's packets, in octets; 0 is not known.
type sizes struct {
	name                    string
	link, path, told, inner int
	largest                 int // outer packet seen on the wire
	bigSize, bigLimit       int // of the largest packet that did not fit
	big                     int64
}

// mtuLanes bounds the MTU picture.
const mtuLanes = 20

// mtuPlot draws, for each SA, what fits and what was sent.
func mtuPlot(d *Document) (plot, bool) {
	const top, lane = 8.0, 30.0
	p := plot{}
	all := allSizes(d)
	if len(all) == 0 {
		return p, false
	}
	if len(all) > mtuLanes {
		p.Note = fmt.Sprintf("and %d more SAs; the JSON report has them all", len(all)-mtuLanes)
		all = all[:mtuLanes]
	}
	const left = 300.0
	most := 0
	for _, s := range all {
		most = max(most, s.link, s.largest, s.bigSize)
	}
	end := ceiling(float64(most) * 1.02)
	if end > float64(most)*1.2 {
		end = float64((most/100 + 1) * 100)
	}
	begin := scaleBegin(all)
	place := func(n float64) float64 { return left + (plotRight-left)*(max(n, begin)-begin)/(end-begin) }
	x := func(n int) float64 { return place(float64(n)) }
	bottom := top + lane*float64(len(all))
	step := ceiling((end - begin) / 6)
	for n := begin; n <= end; n += step {
		p.line(place(n), top, place(n), bottom, "grid")
		p.text(place(n), bottom+16, "middle", "tick", "%s", group(int64(n)))
	}
	p.text(plotRight, bottom+32, "end", "tick", "octets")
	p.line(left, bottom, plotRight, bottom, "axis")
	used := map[string]bool{}
	for i, s := range all {
		y := top + lane*float64(i)
		p.text(left-10, y+lane/2+4, "end", "lane", "%s", s.name)
		known := s.path
		if s.told > 0 && (known == 0 || s.told < known) {
			known = s.told
		}
		if known > 0 {
			p.rect(left, y+9, x(known)-left, 12, "overhead", fmt.Sprintf("outer packets of up to %d octets fit", known))
			used["overhead"] = true
		}
		if s.inner > 0 {
			p.rect(left, y+9, x(s.inner)-left, 12, "innermtu", fmt.Sprintf("inner packets of up to %d octets fit", s.inner))
			used["innermtu"] = true
		}
		mark := func(n int, class string, top, bottom float64) {
			if n > 0 {
				p.line(x(n), y+top, x(n), y+bottom, class)
				used[class] = true
			}
		}
		mark(s.link, "link", 3, lane-3)
		if s.path != s.link {
			mark(s.path, "route", lane/2, lane-3)
		}
		mark(s.told, "told", 3, lane/2)
		mark(s.largest, "largest", 6, lane-6)
		if s.big > 0 && s.bigSize > 0 {
			p.rect(x(s.bigLimit), y+13, x(s.bigSize)-x(s.bigLimit), 4, "toobig",
				fmt.Sprintf("%s packets too big for %d, of up to %d octets", group(s.big), s.bigLimit, s.bigSize))
			used["toobig"] = true
		}
	}
	p.Height = bottom + 40
	if begin > 0 {
		p.Note = strings.TrimSpace(fmt.Sprintf("The scale begins at %.0f. %s", begin, p.Note))
	}
	for _, l := range []legend{
		{"innermtu", "inner packets that fit"}, {"overhead", "what the SA adds"}, {"link", "MTU of the link"},
		{"route", "MTU that the route has learned or was given"}, {"told", "MTU that a router asked for"},
		{"largest", "largest packet seen on the wire"}, {"toobig", "did not fit"},
	} {
		if used[l.Class] {
			p.Legend = append(p.Legend, l)
		}
	}
	return p, true
}

// scaleBegin is a size below all that matter: what is common to all SAs would only take the room.
func scaleBegin(all []sizes) float64 {
	least := 0
	for _, s := range all {
		for _, n := range []int{s.link, s.path, s.told, s.inner, s.largest, s.bigSize, s.bigLimit} {
			if n > 0 && (least == 0 || n < least) {
				least = n
			}
		}
	}
	return float64(max(0, least/100-2) * 100)
}

// allSizes lists the SAs of which any size is known, those with trouble first.
func allSizes(d *Document) []sizes {
	type key struct {
		spi ledger.SPI
		dst netip.Addr
	}
	at := map[key]*sizes{}
	var order []key
	of := func(k key, name string) *sizes {
		if at[k] == nil {
			at[k] = &sizes{name: name}
			order = append(order, k)
		}
		return at[k]
	}
	for i := range d.SAs {
		sa := &d.SAs[i]
		if sa.Wire != nil && sa.Wire.LargestBytes > 0 && sa.Wire.Packets > 0 {
			of(key{sa.SPI, sa.Dst}, fmt.Sprintf("%s %s %s", sa.SPI, sa.Direction, other(sa))).largest = int(sa.Wire.LargestBytes)
		}
	}
	if d.PMTU != nil {
		for i := range d.PMTU.Paths {
			path := &d.PMTU.Paths[i]
			s := of(key{path.SPI, path.Dst}, fmt.Sprintf("%s out %s", path.SPI, path.Dst))
			s.link, s.path, s.told = path.LinkMTU, path.PathMTU, path.ToldMTU
			if o := path.Overhead; o != nil && path.Known() > 0 {
				s.inner = o.Inner(path.Known())
			}
		}
		for i := range d.PMTU.Events {
			e := &d.PMTU.Events[i]
			if e.SA == nil || e.SizeMax == 0 || e.MTU == 0 {
				continue
			}
			s := of(key{e.SA.SPI, e.SA.Dst}, fmt.Sprintf("%s out %s", e.SA.SPI, e.SA.Dst))
			s.big += e.Packets
			if e.SizeMax > s.bigSize {
				s.bigSize, s.bigLimit = e.SizeMax, e.MTU
			}
		}
	}
	out := make([]sizes, 0, len(order))
	for _, k := range order {
		out = append(out, *at[k])
	}
	slices.SortStableFunc(out, func(a, b sizes) int { return cmp.Compare(b.trouble(), a.trouble()) })
	return out
}

// trouble ranks SAs: those with packets that did not fit before those whose path is narrow.
func (s *sizes) trouble() int {
	switch {
	case s.big > 0:
		return 2
	case s.told > 0 || s.path > 0 && s.path < s.link:
		return 1
	}
	return 0
}

// other is the address of an SA's other end.
func other(sa *ledger.SA) string {
	if sa.Direction == ledger.Out {
		return sa.Dst.String()
	}
	return sa.Src.String()
}
