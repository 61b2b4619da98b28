// SPDX-License-Identifier: Apache-2.0

package ike

import (
	"cmp"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// monologueMin is how many Informational messages without an answer speak of a silent peer: an end may
// have reason to send two in a row.
const monologueMin = 3

// Report draws up what has been seen, judging what is open as of now.
func (t *Tracker) Report(now time.Time) *ledger.IKE {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &ledger.IKE{
		Messages: t.messages, Counted: map[ledger.Direction]int64{}, Copies: t.copies, Forgotten: t.forgot,
		Peers: []ledger.IKEPeer{}, SAs: []ledger.IKESA{}, Notable: []ledger.IKEExchange{}, Unlisted: t.unlisted,
	}
	for d, n := range t.counted {
		r.Counted[d] = n
	}
	live := map[*stats]map[ledger.IKEOutcome]int64{}
	for _, sa := range t.sas.all() {
		unanswered := sa.unanswered
		for _, x := range sa.exchanges {
			outcome, _ := x.outcome(now)
			if live[x.stats] == nil {
				live[x.stats] = map[ledger.IKEOutcome]int64{}
			}
			live[x.stats][outcome]++
			if outcome == ledger.IKEUnanswered {
				unanswered++
				t.list(x)
			}
		}
		if x, ok := sa.silence(now); ok {
			r.Notable = append(r.Notable, x)
			unanswered += sa.monologue.exchanges
			st := sa.peer.stats[statsKey{InfoV1, 1, sa.monologue.end}]
			if live[st] == nil {
				live[st] = map[ledger.IKEOutcome]int64{}
			}
			live[st][ledger.IKEUnanswered] += sa.monologue.exchanges
			live[st][ledger.IKEAnswered] -= sa.monologue.exchanges
		}
		r.SAs = append(r.SAs, sa.report(unanswered))
	}
	for _, p := range t.peers.all() {
		r.Peers = append(r.Peers, p.report(live))
	}
	if t.gone != nil {
		all := t.gone.report(nil)
		r.Gone = &ledger.IKEGone{Sent: all.Sent, Received: all.Received, Exchanges: all.Exchanges}
	}
	for _, x := range t.notable {
		r.Notable = append(r.Notable, x.report(now))
	}
	sortReport(r)
	return r
}

func sortReport(r *ledger.IKE) {
	slices.SortFunc(r.Peers, func(a, b ledger.IKEPeer) int {
		return cmp.Or(a.Remote.Compare(b.Remote), a.Local.Compare(b.Local))
	})
	slices.SortFunc(r.SAs, func(a, b ledger.IKESA) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.InitiatorSPI, b.InitiatorSPI), a.Remote.Compare(b.Remote))
	})
	slices.SortStableFunc(r.Notable, func(a, b ledger.IKEExchange) int { return a.At.Compare(b.At) })
}

// silence reports Informational messages of IKEv1 that nothing answered, as one exchange.
func (sa *ikeSA) silence(now time.Time) (ledger.IKEExchange, bool) {
	c := &sa.monologue
	if c.n < monologueMin || now.Sub(c.last) < quietAfter || now.Sub(c.first) < patience {
		return ledger.IKEExchange{}, false
	}
	return ledger.IKEExchange{
		At: c.first.UTC(), Exchange: InfoV1.String(), Version: 1, InitiatorSPI: ledger.IKESPI(sa.initiatorSPI),
		Requester: c.end, Waiting: c.end, Local: sa.peer.local, Remote: sa.peer.remote, Transit: sa.peer.transit,
		Requests: c.n, LastRequest: c.last.UTC(), DurationMS: milliseconds(now.Sub(c.first)), Outcome: ledger.IKEUnanswered,
	}, true
}

func (sa *ikeSA) report(unanswered int64) ledger.IKESA {
	r := ledger.IKESA{
		InitiatorSPI: ledger.IKESPI(sa.initiatorSPI), ResponderSPI: ledger.IKESPI(sa.responderSPI), Version: sa.major,
		Initiator: sa.initiator, Local: sa.peer.local, Remote: sa.peer.remote, Transit: sa.peer.transit,
		First: sa.first.UTC(), Last: sa.last.UTC(), Exchanges: sa.count, Repeats: sa.repeats, Unanswered: unanswered,
	}
	if sa.replaces != 0 {
		spi := ledger.IKESPI(sa.replaces)
		r.Replaces = &spi
	}
	return r
}

func (p *peer) report(live map[*stats]map[ledger.IKEOutcome]int64) ledger.IKEPeer {
	r := ledger.IKEPeer{
		Local: p.local, Remote: p.remote, Transit: p.transit, Sent: p.sent, Received: p.received,
		First: p.first.UTC(), Last: p.last.UTC(), IKESAs: p.sas, InitBurst: p.burstMax, Exchanges: []ledger.IKEExchanges{},
	}
	for key, st := range p.stats {
		outcome := func(o ledger.IKEOutcome) int64 { return st.closed[o] + live[st][o] }
		r.Exchanges = append(r.Exchanges, ledger.IKEExchanges{
			Exchange: key.typ.String(), Version: key.major, Requester: key.requester, Count: st.count,
			Answered: outcome(ledger.IKEAnswered), AnsweredUnseen: outcome(ledger.IKEAnsweredUnseen),
			Unanswered: outcome(ledger.IKEUnanswered), Open: outcome(ledger.IKEOpen),
			Retransmitted: st.retransmitted, Repeats: st.repeats, Reanswers: st.reanswers, RTT: st.rtt.report(),
		})
	}
	slices.SortFunc(r.Exchanges, func(a, b ledger.IKEExchanges) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Exchange, b.Exchange), cmp.Compare(a.Requester, b.Requester))
	})
	return r
}
