// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"math"
	"net/netip"
	"time"
)

// Limit is what keeps larger packets from passing.
type Limit string

// The limits.
const (
	LimitNone      Limit = "none"       // the largest packet that the device takes passes
	LimitAsked     Limit = "asked"      // the largest packet that was to be tried passes
	LimitHost      Limit = "host"       // this host refuses to send more
	LimitRouter    Limit = "router"     // a router refuses more and says so
	LimitBlackHole Limit = "black-hole" // larger packets disappear and nobody says so
	LimitUnknown   Limit = "unknown"    // nothing answers, or the packets did not suffice
)

// Told is what a router said.
type Told struct {
	From  netip.Addr `json:"from"`
	MTU   int        `json:"mtu"`  // 0: none, or one that cannot be
	Size  int        `json:"size"` // of the packet that it refused
	Right bool       `json:"right"`
}

// Result is what a search found.
type Result struct {
	MTU             int   // largest size that passed; 0: none did
	Above           int   // smallest size that did not; 0: none is known
	Limit           Limit // why not
	By              netip.Addr
	Target          netip.Addr // who answered
	Told            []Told
	Refused         int // what this host itself said would fit, the first time that it refused to send; 0: it did not
	Confidence      float64
	Sent            int // packets that left this host
	Unanswered      int // of them
	Lost            int // of them, packets that fit
	RTT             time.Duration
	Changed         bool   // sizes that had passed did not any more, or the other way round
	Restarts        int    // times that the search began anew for it
	Vanished        bool   // in the end nothing was answered
	Exhausted       bool   // the packets did not suffice
	OneWay          bool   // a size above MTU did arrive: its answer did not come back
	Unreachable     string // what somebody said about packets of any size
	UnreachableFrom netip.Addr
}

// Exact says whether MTU is the path's and not just a size that passes.
func (r *Result) Exact() bool {
	return r.MTU > 0 && !r.Vanished && (r.Limit == LimitNone || r.Above == r.MTU+1)
}

// conclude makes a result of what is known of the sizes.
func (s *search) conclude() {
	r := &s.out
	r.MTU, r.Above, r.Sent = s.good, s.above(), s.sent
	for size, a := range s.sizes {
		answers := a.passed + a.arrived
		if a.told != nil {
			answers++
		}
		r.Unanswered += max(0, a.sent-answers)
		r.OneWay = r.OneWay || size > s.good && a.arrived > 0
	}
	r.Lost = max(0, s.fit.sent-s.fit.passed)
	for i := range r.Told {
		t := &r.Told[i]
		t.Right = t.MTU > 0 && t.MTU == r.MTU && r.Above == r.MTU+1
	}
	r.Limit, r.Confidence = s.limit()
	r.Confidence = math.Floor(r.Confidence*1000) / 1000
}

func (s *search) limit() (Limit, float64) {
	r := &s.out
	switch {
	case r.MTU == 0 || r.Vanished:
		return LimitUnknown, 0
	case r.MTU >= s.o.Max:
		return LimitNone, 1
	case r.Above == 0:
		return LimitUnknown, 0
	}
	above := s.sizes[r.Above]
	if r.Above != r.MTU+1 {
		return LimitUnknown, 0
	}
	switch {
	case above.told == nil:
		return LimitBlackHole, s.certainty(r.Above)
	case above.told.Kind == Refused:
		return LimitHost, 1
	default:
		r.By = above.told.From
		return LimitRouter, 1
	}
}
