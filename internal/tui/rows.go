// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"net/netip"
	"strconv"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
)

// num is a count that may be unknown, or mean nothing here.
type num struct {
	v  int64
	is presence
}

type presence uint8

const (
	known   presence = iota
	unknown          // nobody observes it
	without          // there is no such thing for this SA
)

func numOf(n *int64) num {
	if n == nil {
		return num{is: unknown}
	}
	return num{v: *n}
}

// plus adds what is known. A sum with an unknown part is what is known of it; one of unknowns is unknown.
func (n num) plus(m num) num {
	switch {
	case n.is != known && m.is != known:
		return num{is: min(n.is, m.is)}
	case n.is != known:
		return m
	case m.is != known:
		return n
	}
	return num{v: n.v + m.v}
}

func lostOut(b *ledger.Outbound) num {
	return numOf(b.XfrmOutDropped).plus(numOf(b.EncryptFailed)).plus(numOf(b.LostInHostEgress))
}

// tunnelKey is what the SAs of one tunnel have in common. The lower address comes first, so that both
// directions are one tunnel.
type tunnelKey struct {
	a, b  netip.Addr
	reqid uint32
	ifid  uint32
}

func tunnelOf(sa *ledger.SA) tunnelKey {
	a, b := sa.Src, sa.Dst
	if b.Less(a) {
		a, b = b, a
	}
	return tunnelKey{a, b, sa.ReqID, sa.IfID}
}

// rowKey names a row for as long as it is there; one of the two is set.
type rowKey struct {
	sa     ledger.SAKey
	tunnel tunnelKey
}

// row is one line of the table: an SA, or the sum of a tunnel's SAs.
type row struct {
	key   rowKey
	sa    *ledger.SA // nil: a tunnel
	sas   int
	place int // in the report: what equals are ordered by

	peer  netip.Addr
	reqid uint32
	ifid  uint32
	name  string
	state ledger.State

	packets, sent, lost, late, xfrm, host, inner, unattributed num

	pps, bps float64
	past     []*series
}

// lossPercent is the share of what was to cross the wire that did not; ok is false where nothing was.
func (r *row) lossPercent() (float64, bool) {
	if r.sent.is != known || r.lost.is != known || r.sent.v <= 0 {
		return 0, false
	}
	return 100 * float64(r.lost.v) / float64(r.sent.v), true
}

// at sums the row's SAs in one frame.
func (r *row) at(frame int) (c cell, ok bool) {
	for _, s := range r.past {
		if d, there := s.at(frame); there {
			c, ok = c.plus(d), true
		}
	}
	return c, ok
}

func saRow(sa *ledger.SA, place int, s *series) row {
	r := row{
		key: rowKey{sa: saKey(sa)}, sa: sa, sas: 1, place: place,
		peer: peerOf(sa), reqid: sa.ReqID, ifid: sa.IfID, name: nameOf(sa), state: sa.State,
		packets: num{v: amountsOf(sa).packets}, past: []*series{s},
	}
	if s != nil {
		r.pps, r.bps = s.pps, s.bps
	}
	if b := sa.Ledger.In; b != nil {
		r.sent, r.lost = numOf(b.Sent), numOf(b.LostOnPath)
		r.late = num{is: unknown}
		if w := sa.Sequence(); w != nil {
			r.late = num{v: w.Late}
		}
		r.xfrm, r.host = numOf(b.XfrmDropped), numOf(b.LostInHost)
		r.inner, r.unattributed = numOf(b.PolicyDropped).plus(numOf(b.InnerDropped)), numOf(b.Unattributed)
	}
	if b := sa.Ledger.Out; b != nil {
		r.sent, r.lost = numOf(b.Offered), lostOut(b)
		if r.sent.is == unknown {
			r.sent = numOf(b.Encapsulated)
		}
		r.late, r.inner = num{is: without}, num{is: without}
		r.xfrm, r.host = numOf(b.XfrmOutDropped).plus(numOf(b.EncryptFailed)), numOf(b.LostInHostEgress)
		r.unattributed = numOf(b.Unattributed)
	}
	return r
}

// peerOf is the address of the far end, as far as the direction tells.
func peerOf(sa *ledger.SA) netip.Addr {
	if sa.Direction == ledger.Out {
		return sa.Dst
	}
	return sa.Src
}

func nameOf(sa *ledger.SA) string {
	switch {
	case sa.Connection == "":
		return report.Clean(sa.Child)
	case sa.Child == "" || sa.Child == sa.Connection:
		return report.Clean(sa.Connection)
	}
	return report.Clean(sa.Connection + "/" + sa.Child)
}

// saRows makes a row of each SA.
func saRows(r *ledger.Report, h *history) []row {
	rows := make([]row, 0, len(r.SAs))
	for i := range r.SAs {
		rows = append(rows, saRow(&r.SAs[i], i, h.by[saKey(&r.SAs[i])]))
	}
	return rows
}

// tunnelRows sums the SAs of each tunnel, in the order of their first.
func tunnelRows(sas []row) []row {
	var rows []row
	at := map[tunnelKey]int{}
	for _, r := range sas {
		key := tunnelOf(r.sa)
		i, there := at[key]
		if !there {
			at[key] = len(rows)
			t := r
			t.key, t.sa, t.past = rowKey{tunnel: key}, nil, append([]*series(nil), r.past...)
			rows = append(rows, t)
			continue
		}
		t := &rows[i]
		t.sas++
		t.pps, t.bps = t.pps+r.pps, t.bps+r.bps
		t.past = append(t.past, r.past...)
		if t.name == "" {
			t.name = r.name
		}
		if r.state == ledger.Alive {
			t.state = ledger.Alive
		}
		for _, n := range []struct {
			sum *num
			add num
		}{
			{&t.packets, r.packets}, {&t.sent, r.sent}, {&t.lost, r.lost}, {&t.late, r.late}, {&t.xfrm, r.xfrm},
			{&t.host, r.host}, {&t.inner, r.inner}, {&t.unattributed, r.unattributed},
		} {
			*n.sum = n.sum.plus(n.add)
		}
	}
	return rows
}

// matches says whether every word of a filter is somewhere in what names the row.
func (r *row) matches(words []string) bool {
	if len(words) == 0 {
		return true
	}
	about := strings.ToLower(r.about())
	for _, w := range words {
		if !strings.Contains(about, w) {
			return false
		}
	}
	return true
}

// about is all that a filter searches: SPI, direction, addresses, reqid, if_id, name, state.
func (r *row) about() string {
	parts := []string{r.name, string(r.state), "reqid=" + strconv.FormatUint(uint64(r.reqid), 10), "if_id=" + strconv.FormatUint(uint64(r.ifid), 10)}
	if r.sa != nil {
		parts = append(parts, r.sa.SPI.String(), string(r.sa.Direction), r.sa.Src.String(), r.sa.Dst.String(), string(r.sa.Proto))
	} else {
		parts = append(parts, r.key.tunnel.a.String(), r.key.tunnel.b.String())
	}
	return strings.Join(parts, " ")
}
