// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"cmp"
	"slices"
	"strconv"

	"charm.land/lipgloss/v2"

	"xfrmscope/internal/ledger"
)

// columnID names a column of the table.
type columnID int

const (
	colSPI columnID = iota
	colDirection
	colPeer
	colReqID
	colSAs
	colName
	colPackets
	colBits
	colLoss
	colLost
	colLate
	colXfrm
	colHost
	colInner
	colUnattributed
	colTrend
	colRate
)

// column is one column of the table. Of two columns that do not both fit, the one that matters more
// is shown; what is left of the width makes the others wider.
type column struct {
	id       columnID
	title    string
	min, max int
	matters  int // the greater the sooner it is shown
	right    bool
	sas      bool // shown for SAs
	tunnels  bool // shown for tunnels
	text     func(*drawing, *row, int) string
	style    func(*row) lipgloss.Style // nil: plain
	order    func(a, b *row) int       // ascending
	falling  bool                      // sorted by it, the greatest comes first
}

// drawing is what columns need to know beside the row.
type drawing struct {
	g *glyphs
	n int // frames of the history
}

var allColumns = []column{
	{id: colSPI, title: "SPI", min: 11, max: 11, matters: 100, sas: true,
		text:  func(_ *drawing, r *row, _ int) string { return mark(r) + r.sa.SPI.String() },
		order: func(a, b *row) int { return cmp.Compare(a.sa.SPI, b.sa.SPI) }},
	{id: colDirection, title: "DIR", min: 3, max: 3, matters: 99, sas: true,
		text:  func(_ *drawing, r *row, w int) string { return fit(string(r.sa.Direction), w) },
		order: func(a, b *row) int { return cmp.Compare(a.sa.Direction, b.sa.Direction) }},
	{id: colPeer, title: "PEER", min: 12, max: 39, matters: 98, sas: true, tunnels: true,
		text: func(_ *drawing, r *row, w int) string {
			if r.sa == nil {
				return tunnelText(r, w)
			}
			return addrText(r.peer, w)
		},
		order: func(a, b *row) int { return a.peer.Compare(b.peer) }},
	{id: colReqID, title: "REQID", min: 5, max: 5, matters: 55, right: true, sas: true, tunnels: true,
		text: func(_ *drawing, r *row, w int) string {
			if r.reqid == 0 {
				return "-"
			}
			if s := strconv.FormatUint(uint64(r.reqid), 10); len(s) <= w {
				return s
			}
			return short(float64(r.reqid), w)
		},
		order: func(a, b *row) int { return cmp.Compare(a.reqid, b.reqid) }},
	{id: colSAs, title: "SAS", min: 4, max: 4, matters: 97, right: true, tunnels: true, falling: true,
		text:  func(_ *drawing, r *row, w int) string { return short(float64(r.sas), w) },
		order: func(a, b *row) int { return cmp.Compare(a.sas, b.sas) }},
	{id: colName, title: "NAME", min: 10, max: 32, matters: 40, sas: true, tunnels: true,
		text: func(_ *drawing, r *row, _ int) string {
			if r.name == "" {
				return "-"
			}
			return r.name
		},
		order: func(a, b *row) int { return cmp.Compare(a.name, b.name) }},
	{id: colPackets, title: "PKT/S", min: 5, max: 6, matters: 90, right: true, sas: true, tunnels: true, falling: true,
		text:  func(_ *drawing, r *row, w int) string { return short(r.pps, w) },
		order: func(a, b *row) int { return cmp.Compare(a.pps, b.pps) }},
	{id: colBits, title: "BIT/S", min: 5, max: 6, matters: 60, right: true, sas: true, tunnels: true, falling: true,
		text:  func(_ *drawing, r *row, w int) string { return short(r.bps, w) },
		order: func(a, b *row) int { return cmp.Compare(a.bps, b.bps) }},
	{id: colLoss, title: "LOSS", min: 4, max: 5, matters: 89, right: true, sas: true, tunnels: true, falling: true,
		text:  func(_ *drawing, r *row, _ int) string { return percent(r.lossPercent()) },
		style: func(r *row) lipgloss.Style { return lossStyle(r.lossPercent()) },
		order: func(a, b *row) int { return compareLoss(a, b) }},
	counter(colLost, "LOST", 4, 88, func(r *row) num { return r.lost }),
	counter(colLate, "LATE", 4, 85, func(r *row) num { return r.late }),
	counter(colXfrm, "XFRM", 4, 87, func(r *row) num { return r.xfrm }),
	counter(colHost, "HOST", 4, 86, func(r *row) num { return r.host }),
	counter(colInner, "INNER", 5, 84, func(r *row) num { return r.inner }),
	counter(colUnattributed, "UNATT", 5, 83, func(r *row) num { return r.unattributed }),
	{id: colTrend, title: "LOSS", min: 7, max: 30, matters: 80, sas: true, tunnels: true, falling: true,
		text:  func(d *drawing, r *row, w int) string { return d.g.lossLine(r, d.n, w) },
		style: func(r *row) lipgloss.Style { return lossStyle(r.lossPercent()) },
		order: func(a, b *row) int { return compareLoss(a, b) }},
	{id: colRate, title: "RATE", min: 7, max: 30, matters: 50, sas: true, tunnels: true, falling: true,
		text:  func(d *drawing, r *row, w int) string { return d.g.rateLine(r, d.n, w) },
		style: func(*row) lipgloss.Style { return styleNote },
		order: func(a, b *row) int { return cmp.Compare(a.pps, b.pps) }},
}

func counter(id columnID, title string, least, matters int, of func(*row) num) column {
	return column{id: id, title: title, min: least, max: 7, matters: matters, right: true, sas: true, tunnels: true, falling: true,
		text:  func(_ *drawing, r *row, w int) string { return of(r).text(w) },
		style: func(r *row) lipgloss.Style { return countStyle(id, of(r)) },
		order: func(a, b *row) int { return compareNums(of(a), of(b)) }}
}

func compareNums(a, b num) int {
	if c := cmp.Compare(b.is, a.is); c != 0 {
		return c
	}
	return cmp.Compare(a.v, b.v)
}

func compareLoss(a, b *row) int {
	p, pok := a.lossPercent()
	q, qok := b.lossPercent()
	switch {
	case pok && !qok:
		return 1
	case qok && !pok:
		return -1
	}
	return cmp.Compare(p, q)
}

func countStyle(id columnID, n num) lipgloss.Style {
	switch {
	case n.is != known || n.v == 0:
		return styleDim
	case id == colLate:
		return styleNote
	case id == colUnattributed:
		return styleBad
	}
	return styleWarn
}

func lossStyle(p float64, ok bool) lipgloss.Style {
	switch {
	case !ok:
		return styleDim
	case p <= 0:
		return styleGood
	case p < 1:
		return styleWarn
	}
	return styleBad
}

// mark tells at the left edge what the SA database says of the SA.
func mark(r *row) string {
	switch r.state {
	case ledger.Gone:
		return "x"
	case ledger.Absent:
		return "?"
	case ledger.Alive, ledger.NotCovered:
	}
	return " "
}

// tunnelText names a tunnel by its ends; where they do not both fit, by the peer.
func tunnelText(r *row, width int) string {
	k := r.key.tunnel
	here := k.a
	if here == r.peer {
		here = k.b
	}
	if s := here.String() + " - " + r.peer.String(); len(s) <= width {
		return s
	}
	return addrText(r.peer, width)
}

// placed is a column with the width it was given.
type placed struct {
	*column
	width int
}

// layout chooses the columns that fit, the one sorted by among them, and shares out the width.
func layout(rows []*row, sortBy columnID, tunnels bool, width int) []placed {
	var out []placed
	used := -1
	peer, name := longest(rows, tunnels)
	for i := range allColumns {
		c := &allColumns[i]
		if shownFor(c, tunnels) {
			least := c.min
			if c.id == colPeer {
				least = min(least, max(peer, 5))
			}
			out = append(out, placed{c, least})
			used += least + 1
		}
	}
	for used > width && len(out) > 1 {
		least := -1
		for i, p := range out {
			if p.id != sortBy && (least < 0 || p.matters < out[least].matters) {
				least = i
			}
		}
		used -= out[least].width + 1
		out = slices.Delete(out, least, least+1)
	}
	grow := func(id columnID, to int) {
		for i := range out {
			if p := &out[i]; p.id == id {
				if more := min(width-used, min(to, p.max)-p.width); more > 0 {
					p.width, used = p.width+more, used+more
				}
			}
		}
	}
	grow(colPeer, min(peer, 15))
	for _, id := range []columnID{colPackets, colBits, colLost, colLate, colXfrm, colHost, colInner, colUnattributed, colLoss} {
		grow(id, 6)
	}
	grow(colTrend, 12)
	grow(colName, min(name, 20))
	grow(colPeer, peer)
	grow(colRate, 12)
	for _, id := range []columnID{colLost, colLate, colXfrm, colHost, colInner, colUnattributed} {
		grow(id, 7)
	}
	grow(colName, name)
	grow(colTrend, 30)
	grow(colRate, 30)
	return out
}

// longest says how wide the columns of peers and names would like to be. Of very many rows the first
// ones speak for all.
func longest(rows []*row, tunnels bool) (peer, name int) {
	for _, r := range rows[:min(len(rows), 1000)] {
		if tunnels {
			peer = max(peer, len(r.key.tunnel.a.String())+len(r.key.tunnel.b.String())+3)
		} else {
			peer = max(peer, len(r.peer.String()))
		}
		name = max(name, lipgloss.Width(r.name))
	}
	return peer, name
}
