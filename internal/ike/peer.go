// SPDX-License-Identifier: Apache-2.0

package ike

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
)

// peer is what two addresses have exchanged.
type peer struct {
	local, remote  netip.AddrPort
	transit        bool
	sent, received int64
	first, last    time.Time
	sas            int64
	kept           map[*ikeSA]saKey // those that are in the table
	burstFrom      time.Time
	burst          int64
	burstMax       int64
	stats          map[statsKey]*stats
	rekeyed        uint64 // initiator's SPI of the IKE SA whose CREATE_CHILD_SA was answered last
}

type statsKey struct {
	typ       Exchange
	major     int
	requester ledger.End
}

func newPeer(m *Message) *peer {
	return &peer{local: m.Src, remote: m.Dst, first: m.At, stats: map[statsKey]*stats{}, kept: map[*ikeSA]saKey{}}
}

// hear notes a message and says who sent it.
func (p *peer) hear(m *Message) ledger.End {
	p.last = m.At
	if m.Src.Addr() == p.local.Addr() {
		p.local, p.remote = m.Src, m.Dst
		p.sent++
		// A message of ours does not arrive: both ends are elsewhere.
		p.transit = p.transit || m.Direction == ledger.In && m.Src.Addr() != m.Dst.Addr()
		return ledger.Local
	}
	p.local, p.remote = m.Dst, m.Src
	p.received++
	p.transit = p.transit || m.Direction == ledger.Out
	return ledger.Remote
}

// of gives the sums of one kind of exchanges.
func (p *peer) of(key statsKey) *stats {
	st := p.stats[key]
	if st == nil {
		st = &stats{closed: map[ledger.IKEOutcome]int64{}}
		p.stats[key] = st
	}
	return st
}

func (p *peer) countBurst(at time.Time) {
	if d := at.Sub(p.burstFrom); d >= burstWindow || d < 0 {
		p.burstFrom, p.burst = at, 0
	}
	p.burst++
	p.burstMax = max(p.burstMax, p.burst)
}
