// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

var binClass = map[string]string{
	binPath: "path", binHost: "host", binXfrm: "xfrm", binPolicy: "policy", binInner: "inner", binUnproven: "unproven",
}

// lossPlot draws an SA's traffic and, below it, what of it was lost, by bin.
func lossPlot(sa *ledger.SA, t *Track, c clock) plot {
	const rateTop, rateBottom, lossTop, lossBottom = 14.0, 64.0, 84.0, 174.0
	p := plot{Title: saName(sa), Height: lossBottom + 26}
	var rateMax, lossMax float64
	begin := c.from
	rates := make([]float64, len(t.Points))
	total := map[string]int64{}
	for i, pt := range t.Points {
		if s := pt.At.Sub(begin).Seconds(); s > 0 {
			rates[i] = max(0, float64(pt.Packets)/s)
		}
		begin = pt.At
		rateMax = max(rateMax, rates[i])
		sum := int64(0)
		for name, n := range pt.Lost {
			total[name] += n
			sum += max(0, n)
		}
		lossMax = max(lossMax, float64(sum))
	}
	rateMax, lossMax = ceiling(rateMax), ceiling(lossMax)
	c.axis(&p, rateTop, lossBottom)
	p.line(plotLeft, rateBottom, plotRight, rateBottom, "axis")
	p.text(plotLeft-8, rateTop+10, "end", "tick", "%s", amount(rateMax))
	p.text(plotLeft-8, rateBottom, "end", "tick", "packets/s")
	p.text(plotLeft-8, lossTop+10, "end", "tick", "%s", amount(lossMax))
	p.text(plotLeft-8, lossBottom, "end", "tick", "lost")
	p.line(plotLeft, lossTop, plotRight, lossTop, "grid")

	var path strings.Builder
	fmt.Fprintf(&path, "M%.1f %.1f", plotLeft, rateBottom)
	begin = c.from
	for i, pt := range t.Points {
		x1, x2 := c.x(begin), c.x(pt.At)
		y := rateBottom - (rateBottom-rateTop)*rates[i]/rateMax
		fmt.Fprintf(&path, "L%.1f %.1fL%.1f %.1f", x1, y, x2, y)
		bottom := lossBottom
		for _, name := range plotBins {
			n := pt.Lost[name]
			if n <= 0 {
				continue
			}
			h := (lossBottom - lossTop) * float64(n) / lossMax
			bottom -= h
			gap := min(1, (x2-x1)/5)
			p.rect(x1+gap/2, bottom, x2-x1-gap, h, binClass[name],
				fmt.Sprintf("%s: %s packets until %s", name, group(n), pt.At.UTC().Format("15:04:05.0")))
		}
		begin = pt.At
	}
	fmt.Fprintf(&path, "L%.1f %.1fZ", c.x(begin), rateBottom)
	p.Areas = append(p.Areas, shape{Path: path.String(), Class: "traffic"})
	for _, name := range plotBins {
		if n := total[name]; n != 0 {
			p.Legend = append(p.Legend, legend{binClass[name], name + " " + group(n)})
		}
	}
	if len(p.Legend) == 0 {
		p.Note = "nothing lost"
	}
	return p
}

// reorderPlot draws how far late packets were behind, in numbers, and where the replay window ends.
func reorderPlot(sa *ledger.SA) (plot, bool) {
	w := sa.Sequence()
	if w == nil || w.Late <= 0 || len(w.DisplacementHistogram) == 0 {
		return plot{}, false
	}
	const top, bottom = 24.0, 134.0
	p := plot{Title: saName(sa), Height: bottom + 40}
	all := len(w.DisplacementHistogram)
	used := 8 // the rest is shown where it holds something
	for b, n := range w.DisplacementHistogram {
		if n != 0 {
			used = max(used, min(b+2, all))
		}
	}
	buckets := w.DisplacementHistogram[:min(used, all)]
	most := ceiling(float64(slices.Max(buckets)))
	width := (plotRight - plotLeft) / float64(len(buckets))
	p.line(plotLeft, top, plotRight, top, "grid")
	p.line(plotLeft, bottom, plotRight, bottom, "axis")
	p.text(plotLeft-8, top+10, "end", "tick", "%s", amount(most))
	p.text(plotLeft-8, bottom, "end", "tick", "packets")
	for b, n := range buckets {
		x := plotLeft + float64(b)*width
		name := runLength(b, all)
		shown := name
		if b >= 10 {
			shown = amount(float64(int64(1)<<b)) + "…" // to the next bucket
		}
		p.text(x+width/2, bottom+16, "middle", "tick", "%s", shown)
		if n <= 0 {
			continue
		}
		class := "late"
		if sa.ReplayWindow != nil && *sa.ReplayWindow > 0 && int64(1)<<b >= int64(*sa.ReplayWindow) {
			class = "xfrm" // below the window
		}
		h := (bottom - top) * float64(n) / most
		p.rect(x+width*0.12, bottom-h, width*0.76, h, class, fmt.Sprintf("%s packets %s numbers behind the highest", group(n), name))
		p.text(x+width/2, bottom-h-4, "middle", "tick", "%s", group(n))
	}
	p.text((plotLeft+plotRight)/2, bottom+34, "middle", "tick", "numbers behind the highest one seen")
	p.Note = fmt.Sprintf("%s packets late, by up to %s numbers", group(w.Late), group(w.DisplacementMax))
	p.Legend = []legend{{"late", "late"}}
	if sa.ReplayWindow != nil && *sa.ReplayWindow > 0 {
		p.Legend = []legend{{"late", "late, inside the replay window"}, {"xfrm", fmt.Sprintf("late, beyond the replay window of %d", *sa.ReplayWindow)}}
	}
	return p, true
}

// lanesMax bounds the rekey time line.
const lanesMax = 40

// rekeyPlot draws when SAs lived, one below the other, with what renewed what.
func rekeyPlot(d *Document, c clock) (plot, bool) {
	const top, lane = 10.0, 22.0
	p := plot{}
	var sas []*ledger.SA
	renewed := map[ledger.SPI]bool{}
	for i := range d.Rekeys {
		renewed[d.Rekeys[i].Old], renewed[d.Rekeys[i].New] = true, true
	}
	for i := range d.SAs {
		if sa := &d.SAs[i]; renewed[sa.SPI] || sa.AddedDuring || len(sa.Endings) > 0 || sa.SoftExpired != nil {
			sas = append(sas, sa)
		}
	}
	if len(sas) == 0 {
		return p, false
	}
	// SAs that serve the same tunnel one after the other stand together.
	slices.SortStableFunc(sas, func(a, b *ledger.SA) int {
		if n := strings.Compare(tunnelOf(a), tunnelOf(b)); n != 0 {
			return n
		}
		return lifeOf(a, c).from.Compare(lifeOf(b, c).from)
	})
	if len(sas) > lanesMax {
		p.Note = fmt.Sprintf("and %d more SAs; the JSON report has them all", len(sas)-lanesMax)
		sas = sas[:lanesMax]
	}
	bottom := top + lane*float64(len(sas))
	c.axis(&p, top, bottom)
	p.Height = bottom + 26
	for i, sa := range sas {
		y := top + lane*float64(i)
		life := lifeOf(sa, c)
		x1, x2 := c.x(life.from), c.x(life.to)
		class := "alive"
		if len(sa.Endings) > 0 {
			class = "gone"
		}
		p.rect(x1, y+4, x2-x1, lane-8, class, saName(sa)+": "+life.text)
		p.text(max(plotLeft+4, x1+4), y+lane/2+4, "start", "lane", "%s %s %s", sa.SPI, sa.Direction, sa.Child)
		if sa.SoftExpired != nil {
			x := c.x(*sa.SoftExpired)
			p.line(x, y+2, x, y+lane-2, "soft")
		}
		for k := range d.Rekeys {
			from, to, ok := refusedAt(&d.Rekeys[k], sa)
			if ok {
				p.rect(c.x(from), y+1, max(3, c.x(to)-c.x(from)), lane-2, "gap",
					fmt.Sprintf("packets were refused for up to %.3f s", d.Rekeys[k].GapS))
			}
		}
	}
	p.Legend = []legend{{"alive", "there at the end"}, {"gone", "ended"}, {"soft", "soft limit reached: the kernel asked for a successor"}, {"gap", "packets refused in between"}}
	return p, true
}

// refusedAt is when packets for an SA came that it was not there for: after its end, or before it was added.
func refusedAt(r *ledger.Rekey, sa *ledger.SA) (from, to time.Time, ok bool) {
	if r.Dst != sa.Dst || r.Direction != sa.Direction {
		return from, to, false
	}
	switch {
	case r.Old == sa.SPI && r.OldRefused > 0 && r.Ended != nil:
		from, to = *r.Ended, *r.Ended
		if r.OldLast != nil && r.OldLast.After(from) {
			to = *r.OldLast
		}
	case r.New == sa.SPI && r.NewRefused > 0:
		from, to = r.Added, r.Added
		if r.NewFirst != nil && r.NewFirst.Before(to) {
			from = *r.NewFirst
		}
	default:
		return from, to, false
	}
	return from, to, true
}

// tunnelOf names what an SA is one of.
func tunnelOf(sa *ledger.SA) string {
	return fmt.Sprintf("%s %s %s %d %d", sa.Src, sa.Dst, sa.Direction, sa.ReqID, sa.IfID)
}

// life is from when to when an SA is known to have been there.
type life struct {
	from, to time.Time
	text     string
}

func lifeOf(sa *ledger.SA, c clock) life {
	l := life{from: c.from, to: c.to, text: "was there before the run"}
	if sa.AddedDuring {
		switch {
		case sa.Announced != nil:
			l.from = *sa.Announced
		case sa.Added != nil:
			l.from = *sa.Added
		}
		l.text = "added at " + l.from.UTC().Format("15:04:05.000")
	}
	if n := len(sa.Endings); n > 0 {
		l.to = sa.Endings[n-1].At
		l.text += fmt.Sprintf(", %s at %s", sa.Endings[n-1].Why, l.to.UTC().Format("15:04:05.000"))
	}
	if l.from.After(l.to) {
		l.from = l.to
	}
	return l
}
