// SPDX-License-Identifier: Apache-2.0

package ike

import (
	"net/netip"
	"sync"
	"time"

	"xfrmscope/internal/ledger"
)

// Limits of what a Tracker remembers. Anybody can send IKE_SA_INIT, so what has not been heard of for
// longest makes room.
const (
	maxPeers     = 4096
	maxSAs       = 8192
	maxExchanges = 16 // per IKE SA; both ends together rarely have two at a time
	maxNotable   = 512
	burstWindow  = 10 * time.Second
)

// Tracker follows IKE messages. It may be fed and asked from different goroutines.
type Tracker struct {
	mu       sync.Mutex
	peers    table[pair, *peer]
	sas      table[saKey, *ikeSA]
	notable  []*exchange
	messages int64
	counted  map[ledger.Direction]int64
	copies   int64
	forgot   int64
	gone     *peer // all that were given up, together; nil: none was
	unlisted int64
}

// pair is two addresses in order.
type pair struct{ a, b netip.Addr }

func pairOf(m *Message) pair {
	a, b := m.Src.Addr(), m.Dst.Addr()
	if b.Less(a) {
		a, b = b, a
	}
	return pair{a, b}
}

// saKey names an IKE SA from its first message on, when the responder has no SPI yet. The addresses are
// part of it, since nothing keeps strangers from using the same SPI.
type saKey struct {
	spi  uint64
	pair pair
}

// ikeSA is one IKE SA.
type ikeSA struct {
	initiatorSPI, responderSPI uint64
	major                      int
	peer                       *peer
	initiator                  ledger.End
	first, last                time.Time
	count, repeats             int64
	unanswered                 int64 // of exchanges no longer kept
	exchanges                  []*exchange
	replaces                   uint64
	monologue                  monologue
}

// monologue is a row of IKEv1 Informational messages that one end sent without a word from the other.
// Dead peer detection of IKEv1 (RFC 3706) has a message ID of its own in each direction, so that
// questions and answers cannot be paired.
type monologue struct {
	end         ledger.End
	n           int64 // messages
	exchanges   int64 // that began with one of them; the rest are repeats
	first, last time.Time
}

// NewTracker begins to follow.
func NewTracker() *Tracker {
	return &Tracker{
		peers: newTable[pair, *peer](maxPeers), sas: newTable[saKey, *ikeSA](maxSAs),
		counted: map[ledger.Direction]int64{},
	}
}

// Observe takes the next message. Messages come in the order in which they were seen.
func (t *Tracker) Observe(m Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.messages++
	t.counted[m.Direction]++
	if major := m.Major(); major != 1 && major != 2 {
		return
	}
	p := t.peer(&m)
	from := p.hear(&m)
	sa := t.sa(p, &m, from)
	sa.last = m.At
	if m.ResponderSPI != 0 {
		sa.responderSPI = m.ResponderSPI
	}
	if m.Major() == 1 {
		t.v1(sa, &m, from)
	} else {
		t.v2(sa, &m, from)
	}
}

func (t *Tracker) peer(m *Message) *peer {
	key := pairOf(m)
	if p, ok := t.peers.get(key); ok {
		return p
	}
	p := newPeer(m)
	if m.Direction == ledger.In {
		p.local, p.remote = m.Dst, m.Src
	}
	if old, full := t.peers.push(key, p); full {
		t.forgot++
		t.giveUp(old, m.At)
	}
	return p
}

// giveUp adds what a peer has counted to that of all those which there is no room for.
func (t *Tracker) giveUp(p *peer, now time.Time) {
	for sa, key := range p.kept {
		t.sas.remove(key)
		t.forgot++
		sa.retire(now)
	}
	if t.gone == nil {
		t.gone = &peer{stats: map[statsKey]*stats{}}
	}
	t.gone.sent += p.sent
	t.gone.received += p.received
	for key, st := range p.stats {
		t.gone.of(key).add(st)
	}
}

func (t *Tracker) sa(p *peer, m *Message, from ledger.End) *ikeSA {
	key := saKey{m.InitiatorSPI, pairOf(m)}
	if sa, ok := t.sas.get(key); ok {
		return sa
	}
	sa := &ikeSA{initiatorSPI: m.InitiatorSPI, major: m.Major(), peer: p, initiator: from, first: m.At}
	if m.Major() == 2 && m.Flags&flagInitiator == 0 {
		sa.initiator = other(from)
	}
	if m.Exchange.begins() {
		p.countBurst(m.At)
	} else if m.Major() == 2 && m.MessageID == 0 && p.rekeyed != 0 && p.rekeyed != m.InitiatorSPI {
		// Message IDs begin at 0 with IKE_SA_INIT, or else in an IKE SA that another one set up
		// (RFC 7296 section 2.18).
		sa.replaces = p.rekeyed
	}
	p.sas++
	if old, full := t.sas.push(key, sa); full {
		t.forgot++
		delete(old.peer.kept, old)
		old.retire(m.At)
	}
	p.kept[sa] = key
	return sa
}

// retire has all exchanges of an IKE SA end as they are now.
func (sa *ikeSA) retire(now time.Time) {
	for _, x := range sa.exchanges {
		sa.close(x, now)
	}
	if _, ok := sa.silence(now); ok {
		closed := sa.peer.of(statsKey{InfoV1, 1, sa.monologue.end}).closed
		closed[ledger.IKEUnanswered] += sa.monologue.exchanges
		closed[ledger.IKEAnswered] -= sa.monologue.exchanges
	}
}

func other(e ledger.End) ledger.End {
	if e == ledger.Local {
		return ledger.Remote
	}
	return ledger.Local
}

// find looks an exchange up.
func (sa *ikeSA) find(id exchangeID) *exchange {
	for _, x := range sa.exchanges {
		if x.id == id {
			return x
		}
	}
	return nil
}

// begin opens an exchange.
func (t *Tracker) begin(sa *ikeSA, m *Message, id exchangeID, requester ledger.End) *exchange {
	key := statsKey{m.Exchange, sa.major, requester}
	if _, known := exchangeNames[m.Exchange]; !known {
		key.typ = unassigned // together: anybody may send all 256
	}
	st := sa.peer.of(key)
	st.count++
	sa.count++
	x := &exchange{id: id, typ: m.Exchange, major: sa.major, sa: sa, stats: st, requester: requester, first: m.At, lastRequest: m.At}
	if len(sa.exchanges) == maxExchanges {
		sa.close(sa.exchanges[0], m.At)
		sa.exchanges = append(sa.exchanges[:0], sa.exchanges[1:]...)
	}
	sa.exchanges = append(sa.exchanges, x)
	if m.Exchange.builds() {
		t.list(x)
	}
	return x
}

// close takes an exchange out of sight; its outcome stays as it is now.
func (sa *ikeSA) close(x *exchange, now time.Time) {
	outcome, _ := x.outcome(now)
	x.stats.closed[outcome]++
	if outcome == ledger.IKEUnanswered {
		sa.unanswered++
	}
}

// list keeps an exchange for the report. Where there are too many, what went well goes first.
func (t *Tracker) list(x *exchange) {
	if x.listed {
		return
	}
	x.listed = true
	if len(t.notable) == maxNotable {
		drop := 0
		for i, old := range t.notable {
			if old.requests <= 1 && old.responses > 0 {
				drop = i
				break
			}
		}
		t.notable = append(t.notable[:drop], t.notable[drop+1:]...)
		t.unlisted++
	}
	t.notable = append(t.notable, x)
}

// v2 follows a message of IKEv2: requests carry a number, responses repeat it.
func (t *Tracker) v2(sa *ikeSA, m *Message, from ledger.End) {
	response := m.Flags&flagResponse != 0
	id := exchangeID{message: m.MessageID, byInitiator: (m.Flags&flagInitiator != 0) != response}
	x := sa.find(id)
	if response {
		t.response(sa, x, m, id, from)
		return
	}
	// A responder may want IKE_SA_INIT repeated with a cookie or for another group (RFC 7296 sections
	// 2.6 and 1.2): the number is the same, the message is not.
	if x != nil && x.typ == SAInit && x.responses > 0 && m.Length != x.requestLen {
		sa.close(x, m.At)
		sa.remove(x)
		x = nil
	}
	if x == nil {
		x = t.begin(sa, m, id, from)
		sa.pass(x)
	}
	if !x.again(m, from) {
		t.copies++
		return
	}
	if x.request(m); x.requests > 1 {
		t.list(x)
	}
}

func (t *Tracker) response(sa *ikeSA, x *exchange, m *Message, id exchangeID, from ledger.End) {
	if x == nil {
		// Its request came before we began to look, or took another way.
		x = t.begin(sa, m, id, other(from))
	}
	if !x.again(m, from) {
		t.copies++
		return
	}
	if x.respond(m); x.typ == CreateChild {
		sa.peer.rekeyed = sa.initiatorSPI
	}
}

// pass marks the requests that an end must have had an answer to, since it went on to a higher number:
// its window is one request, unless the other end announced more (RFC 7296 section 2.3).
func (sa *ikeSA) pass(next *exchange) {
	for _, x := range sa.exchanges {
		if x.id.byInitiator == next.id.byInitiator && x.id.message < next.id.message && x.responses == 0 {
			x.passed = true
		}
	}
}

func (sa *ikeSA) remove(x *exchange) {
	for i := range sa.exchanges {
		if sa.exchanges[i] == x {
			sa.exchanges = append(sa.exchanges[:i], sa.exchanges[i+1:]...)
			return
		}
	}
}

// v1 follows a message of IKEv1: within one message ID the ends take turns, and whoever sends the same
// length again repeats.
func (t *Tracker) v1(sa *ikeSA, m *Message, from ledger.End) {
	id := exchangeID{message: m.MessageID, typ: m.Exchange}
	x := sa.find(id)
	if m.Exchange == InfoV1 {
		sa.monologue.hear(m, from, x == nil)
	} else {
		sa.monologue = monologue{}
	}
	if x == nil {
		x = t.begin(sa, m, id, from)
		x.again(m, from)
		x.request(m)
		x.turn(m, from)
		return
	}
	if !x.again(m, from) {
		t.copies++
		return
	}
	if from != x.waiting && m.Length != x.lens[side(from)] {
		if x.turn(m, from); x.turns == 2 {
			x.respond(m)
		}
		return
	}
	// Repeated: its own last turn, or the one before, whose answer did not arrive.
	x.repeated++
	if from == x.requester {
		x.request(m)
	} else {
		x.responses++
		x.stats.reanswers++
	}
	t.list(x)
}

// turn passes the word to the other end.
func (x *exchange) turn(m *Message, from ledger.End) {
	x.turns++
	x.waiting, x.turnSince, x.repeated = from, m.At, 0
	x.lens[side(from)] = m.Length
}

func (c *monologue) hear(m *Message, from ledger.End, begins bool) {
	if c.n == 0 || c.end != from {
		*c = monologue{end: from, first: m.At}
	}
	c.n++
	if begins {
		c.exchanges++
	}
	c.last = m.At
}
