// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"maps"
	"slices"
	"time"
)

// since leaves of an account of IKE what happened after an earlier one. Times to answer cannot be
// subtracted: they stay those of the whole account. A peer or an IKE SA that was given up for want of room
// and came back has begun anew since, which its first message tells.
func (k IKE) since(before *IKE, start time.Time) IKE {
	if before == nil {
		return k
	}
	k.Messages -= before.Messages
	k.Copies -= before.Copies
	k.Forgotten -= before.Forgotten
	k.Unlisted -= before.Unlisted
	counted := map[Direction]int64{}
	for dir, n := range k.Counted {
		counted[dir] = n - before.Counted[dir]
	}
	k.Counted = counted

	type ends struct{ local, remote string }
	of := func(p *IKEPeer) ends { return ends{p.Local.Addr().String(), p.Remote.Addr().String()} }
	peers := map[ends]*IKEPeer{}
	for i := range before.Peers {
		peers[of(&before.Peers[i])] = &before.Peers[i]
	}
	now := []IKEPeer{}
	for _, p := range k.Peers {
		if old := peers[of(&p)]; old != nil && old.First.Equal(p.First) {
			p = p.since(old)
			delete(peers, of(&p))
		}
		if p.Sent+p.Received > 0 || len(p.Exchanges) > 0 {
			now = append(now, p)
		}
	}
	k.Peers = now
	k.Gone = k.Gone.since(before.Gone, slices.Collect(maps.Values(peers)))

	type known struct {
		ends ends
		spi  IKESPI
	}
	sas := map[known]*IKESA{}
	one := func(sa *IKESA) known {
		return known{ends{sa.Local.Addr().String(), sa.Remote.Addr().String()}, sa.InitiatorSPI}
	}
	for i := range before.SAs {
		sas[one(&before.SAs[i])] = &before.SAs[i]
	}
	young := []IKESA{}
	for _, sa := range k.SAs {
		if old := sas[one(&sa)]; old != nil && old.First.Equal(sa.First) {
			sa.Exchanges -= old.Exchanges
			sa.Repeats -= old.Repeats
			sa.Unanswered -= old.Unanswered
		}
		if sa.Exchanges+sa.Repeats+sa.Unanswered > 0 || !sa.Last.Before(start) {
			young = append(young, sa)
		}
	}
	k.SAs = young

	notable := []IKEExchange{}
	for _, e := range k.Notable {
		if !e.LastRequest.Before(start) {
			notable = append(notable, e)
		}
	}
	k.Notable = notable
	return k
}

// since leaves of a peer what happened after an earlier account of it.
func (p IKEPeer) since(old *IKEPeer) IKEPeer {
	p.Sent -= old.Sent
	p.Received -= old.Received
	p.IKESAs -= old.IKESAs
	if p.InitBurst == old.InitBurst {
		p.InitBurst = 0
	}
	p.Exchanges = exchangesSince(p.Exchanges, old.Exchanges)
	return p
}

// since leaves of what is gone what was counted after an earlier account: that of what was gone by then, and of the
// peers that went meanwhile.
func (g *IKEGone) since(before *IKEGone, went []*IKEPeer) *IKEGone {
	if g == nil {
		return nil
	}
	now := *g
	if before != nil {
		now.Sent -= before.Sent
		now.Received -= before.Received
		now.Exchanges = exchangesSince(now.Exchanges, before.Exchanges)
	}
	for _, p := range went {
		now.Sent -= p.Sent
		now.Received -= p.Received
		now.Exchanges = exchangesSince(now.Exchanges, p.Exchanges)
	}
	return &now
}

// exchangesSince leaves of sums of exchanges what came after earlier ones.
func exchangesSince(all, old []IKEExchanges) []IKEExchanges {
	type kind struct {
		exchange  string
		version   int
		requester End
	}
	of := func(e *IKEExchanges) kind { return kind{e.Exchange, e.Version, e.Requester} }
	before := map[kind]*IKEExchanges{}
	for i := range old {
		before[of(&old[i])] = &old[i]
	}
	now := []IKEExchanges{}
	for _, e := range all {
		if b := before[of(&e)]; b != nil {
			e.Count -= b.Count
			e.Answered -= b.Answered
			e.AnsweredUnseen -= b.AnsweredUnseen
			e.Unanswered -= b.Unanswered
			e.Retransmitted -= b.Retransmitted
			e.Repeats -= b.Repeats
			e.Reanswers -= b.Reanswers
		}
		if e.Count+e.Answered+e.AnsweredUnseen+e.Unanswered+e.Retransmitted+e.Repeats+e.Reanswers+e.Open > 0 {
			now = append(now, e)
		}
	}
	return now
}
