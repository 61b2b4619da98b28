// SPDX-License-Identifier: Apache-2.0

package ike

import (
	"time"

	"xfrmscope/internal/ledger"
)

// Times that tell one sending from another, and slow from silent.
const (
	// copyWithin is how soon a message with the same header is the same sending, seen at a second
	// interface or doubled by the network. Daemons wait much longer before they repeat.
	copyWithin = 20 * time.Millisecond
	// burstWithin is the same for fragments of one message, which share its header.
	burstWithin = 250 * time.Millisecond
	// quietAfter is how long after a repeated request a response may still be on its way, and after
	// one that was repeated twice. With more repeats it is no longer waited for.
	quietAfter  = 2 * time.Second
	quietAgain  = 500 * time.Millisecond
	repeatsMany = 3
	// patience is how long after a request that was not repeated.
	patience = 10 * time.Second
)

// exchangeID tells the exchanges of an IKE SA apart. In IKEv2 both ends count their own requests; the
// initiator flag says whose number it is.
type exchangeID struct {
	message     uint32
	byInitiator bool
	typ         Exchange // IKEv1 only: a message ID of 0 is not one exchange's alone
}

// exchange is one request and what came of it.
type exchange struct {
	id        exchangeID
	typ       Exchange
	major     int
	sa        *ikeSA
	stats     *stats
	requester ledger.End

	first       time.Time // first request seen; first response if there was none
	lastRequest time.Time
	requests    int64
	requestLen  uint32
	answered    time.Time
	responses   int64
	lastAnswer  time.Time
	burst       [2]time.Time // last message of either end, copies included, by side()
	lastFrom    ledger.End   // whose message came last
	passed      bool         // the requester went on without our having seen an answer

	// IKEv1: messages alternate between the ends.
	turns     int
	waiting   ledger.End // who sent the last turn
	turnSince time.Time
	repeated  int64 // sendings of that turn again
	lens      [2]uint32

	listed bool
}

func side(e ledger.End) int {
	if e == ledger.Local {
		return 0
	}
	return 1
}

// again says whether a message of one end is a new sending, and remembers it. What comes after a word
// of the other end is one, however fast; some captures have no times at all.
func (x *exchange) again(m *Message, from ledger.End) bool {
	last, turned := x.burst[side(from)], x.lastFrom != from
	x.burst[side(from)], x.lastFrom = m.At, from
	if turned {
		return true
	}
	within := copyWithin
	if m.fragment() {
		within = burstWithin
	}
	gap := m.At.Sub(last)
	return gap >= within || gap <= -within
}

// outcome judges the exchange as of now, and says which end waits for the other.
func (x *exchange) outcome(now time.Time) (ledger.IKEOutcome, ledger.End) {
	since, repeats := x.lastRequest, x.requests-1
	waiting := x.requester
	if x.major == 1 {
		if x.turns >= x.typ.turns() {
			return ledger.IKEAnswered, ""
		}
		since, repeats, waiting = x.turnSince, x.repeated, x.waiting
	} else if x.responses > 0 {
		return ledger.IKEAnswered, ""
	}
	switch {
	case x.passed:
		return ledger.IKEAnsweredUnseen, ""
	case now.Sub(since) >= patience, repeats >= repeatsMany,
		repeats > 1 && now.Sub(x.newest()) >= quietAgain, repeats > 0 && now.Sub(x.newest()) >= quietAfter:
		return ledger.IKEUnanswered, waiting
	}
	return ledger.IKEOpen, waiting
}

// newest is when the end that waits last sent something.
func (x *exchange) newest() time.Time {
	if x.major == 1 {
		return x.burst[side(x.waiting)]
	}
	return x.lastRequest
}

// request notes a request of IKEv2, or a turn of the end that asked in IKEv1.
func (x *exchange) request(m *Message) {
	x.requests++
	x.lastRequest = m.At
	x.passed = false
	if x.requests == 1 {
		x.first, x.requestLen = m.At, m.Length
		return
	}
	x.stats.repeats++
	x.sa.repeats++
	if x.requests == 2 {
		x.stats.retransmitted++
	}
}

// respond notes a response.
func (x *exchange) respond(m *Message) {
	x.responses++
	x.lastAnswer = m.At
	x.passed = false
	if x.responses > 1 {
		x.stats.reanswers++
		return
	}
	x.answered = m.At
	if x.requests == 1 {
		x.stats.rtt.add(m.At.Sub(x.first))
	}
}

// duration is from the first request to the first response, or to now.
func (x *exchange) duration(now time.Time) time.Duration {
	if !x.answered.IsZero() {
		return x.answered.Sub(x.first)
	}
	return now.Sub(x.first)
}

// report draws up the exchange.
func (x *exchange) report(now time.Time) ledger.IKEExchange {
	outcome, waiting := x.outcome(now)
	p := x.sa.peer
	return ledger.IKEExchange{
		At: x.first.UTC(), Exchange: x.typ.String(), Version: x.major, MessageID: x.id.message,
		InitiatorSPI: ledger.IKESPI(x.sa.initiatorSPI), Requester: x.requester, Waiting: waiting,
		Local: p.local, Remote: p.remote, Transit: p.transit,
		Requests: x.requests, Responses: x.responses, LastRequest: x.lastRequest.UTC(),
		DurationMS: milliseconds(x.duration(now)), Outcome: outcome,
	}
}

// stats sums up the exchanges of one type that one end asked for.
type stats struct {
	count, retransmitted, repeats, reanswers int64
	closed                                   map[ledger.IKEOutcome]int64 // of exchanges no longer kept
	rtt                                      rtt
}

func (s *stats) add(o *stats) {
	s.count += o.count
	s.retransmitted += o.retransmitted
	s.repeats += o.repeats
	s.reanswers += o.reanswers
	for outcome, n := range o.closed {
		s.closed[outcome] += n
	}
	s.rtt.merge(o.rtt)
}

type rtt struct {
	n             int64
	min, sum, max time.Duration
}

func (r *rtt) add(d time.Duration) {
	if d < 0 {
		return // a capture whose clock went back
	}
	if r.n == 0 || d < r.min {
		r.min = d
	}
	r.n++
	r.sum += d
	r.max = max(r.max, d)
}

func (r *rtt) merge(o rtt) {
	if o.n == 0 {
		return
	}
	if r.n == 0 || o.min < r.min {
		r.min = o.min
	}
	r.n += o.n
	r.sum += o.sum
	r.max = max(r.max, o.max)
}

func (r *rtt) report() ledger.IKERTT {
	if r.n == 0 {
		return ledger.IKERTT{}
	}
	return ledger.IKERTT{
		Samples: r.n, MinMS: milliseconds(r.min), AvgMS: milliseconds(r.sum / time.Duration(r.n)), MaxMS: milliseconds(r.max),
	}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond).Microseconds()) / 1000
}
