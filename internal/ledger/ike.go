// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"
	"time"
)

// observeIKE keeps the newest account of IKE, which counts by itself, and gathers names: an SA that is
// gone by the next look keeps the one it had.
func (l *Ledger) observeIKE(s Snapshot, baseline bool) {
	if s.IKE != nil {
		l.ike = s.IKE
		if baseline {
			l.ikeBefore = s.IKE
		}
	}
	for _, n := range s.Names {
		if n.IKE != 0 {
			l.ikeNames[n.IKE] = n.Connection
		}
		if n.Key.SPI != 0 {
			l.names[n.Key] = n
		}
	}
}

// nameOf gives the IKE daemon's names of an SA. One that nobody was asked about in time has the names of
// another of its reqid and ends: rekeying keeps them.
func (l *Ledger) nameOf(sa *SA) (connection, child string) {
	key := SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}
	if n, ok := l.names[key]; ok {
		return n.Connection, n.Child
	}
	if sa.ReqID == 0 {
		return "", ""
	}
	var found *SAName
	for _, n := range l.names {
		if n.ReqID != sa.ReqID || n.Key.Proto != sa.Proto || n.Key.Dst != sa.Dst && n.Key.Dst != sa.Src {
			continue
		}
		if found != nil && (found.Connection != n.Connection || found.Child != n.Child) {
			return "", "" // two that cannot be told apart
		}
		found = &n
	}
	if found == nil {
		return "", ""
	}
	return found.Connection, found.Child
}

// ikeReport is the account of IKE with what other sources add to it.
func (l *Ledger) ikeReport() *IKE {
	if l.ike == nil {
		return nil
	}
	r := l.ike.since(l.ikeBefore, l.first)
	lost := l.lost.total()
	r.Lost = lost["ike_suppressed"] + lost["ring_full"]
	r.SAs = slices.Clone(r.SAs)
	for i := range r.SAs {
		r.SAs[i].Connection = l.ikeNames[r.SAs[i].InitiatorSPI]
	}
	return &r
}

// wall turns a time of the wire programs into one of the wall clock, with the milliseconds that the
// kernel's announcements are compared by.
func (l *Ledger) wall(d time.Duration) *time.Time {
	if d == 0 || l.mono == 0 {
		return nil
	}
	return moment(l.last.Add(d - l.mono))
}

// moment is a time for the report, to the millisecond; nil when there is none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.Round(0).UTC().Truncate(time.Millisecond))
}

func limits(l Lifetimes) *Limits {
	if l == (Lifetimes{}) {
		return nil
	}
	return &Limits{
		SoftAddS: int64(l.SoftAdd / time.Second), HardAddS: int64(l.HardAdd / time.Second),
		SoftPackets: l.SoftPackets, HardPackets: l.HardPackets, SoftBytes: l.SoftBytes, HardBytes: l.HardBytes,
	}
}
