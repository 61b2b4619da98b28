// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Kind is what became of a packet.
type Kind int

// The kinds of answers. Silence is none.
const (
	Passed      Kind = iota // it arrived, and its answer came back
	Arrived                 // it arrived: its target refuses it with an ICMP message of its own
	TooBig                  // a router says so
	Refused                 // this host itself says so and sends nothing
	Unreachable             // somebody says that it cannot be delivered, whatever its size
)

// Answer is what came back for a packet.
type Answer struct {
	Kind Kind
	Size int        // octets of the packet that it is about
	From netip.Addr // who answers
	MTU  int        // TooBig, Refused: what would fit; 0: not told
	Why  string     // Unreachable: in words
	Took time.Duration
}

// Path is what packets are sent into.
type Path interface {
	// Send sends a packet of so many octets, IP header included, that no router may cut. try counts
	// the packets of this size, from 0. A packet that does not even leave the host is answered at once.
	Send(size, try int) (*Answer, error)
	// Wait gives the next answer; false: none came in time.
	Wait(ctx context.Context, d time.Duration) (Answer, bool, error)
	Now() time.Time
}

// Options bound a search.
type Options struct {
	Base    int           // octets of the packet that shows whether anybody answers
	Floor   int           // octets that every path of this family carries
	Max     int           // octets of the largest packet to try
	Tries   int           // packets of a size that stay without an answer before it counts as too big
	Scouts  int           // so many packets of each size, the first ones, have no answer but an ICMP error
	Budget  int           // packets in all
	Timeout time.Duration // for an answer
	Gap     time.Duration // between two packets, at least
}

// The search goes by these.
const (
	baseTries = 5 // packets that ask whether anybody is there
	moreTries = 8 // further packets of the size that decides
	doubt     = 0.0005
	likelier  = 0.02 // chance of bad luck that calls for more packets of a size
	restarts  = 2
)

// likely are the sizes to try first where a path is silent: most paths take Ethernet's, and what is less
// is seldom below the least of IPv6 (RFC 8200 section 5) or what every IPv4 host takes (RFC 791).
var likely = []int{1500, 1280, 576}

// errBudget ends a search that has sent all that it may.
var errBudget = errors.New("all packets are sent")

// asked is what is known of a size.
type asked struct {
	sent, arrived int
	passed        int
	since         int     // packets that could have been answered, since the last one that was
	told          *Answer // TooBig or Refused, the first
	silent        bool    // judged so
}

func (a *asked) bad() bool { return a.told != nil || a.silent }

type search struct {
	path  Path
	o     Options
	sizes map[int]*asked
	out   Result
	good  int
	sent  int
	last  time.Time // of the last packet
	slow  time.Duration
	fit   struct{ sent, passed int } // packets of sizes that fit, and those of them that were answered
}

// Search finds the largest packet that passes. Its result is of use even where it fails, as it does when
// the context ends.
func Search(ctx context.Context, path Path, o Options) (Result, error) {
	s := &search{path: path, o: o, sizes: map[int]*asked{}}
	err := s.run(ctx)
	if errors.Is(err, errBudget) {
		s.out.Exhausted, err = true, nil
	}
	s.conclude()
	return s.out, err
}

func (s *search) run(ctx context.Context) error {
	if err := s.ask(ctx, min(s.o.Base, s.o.Max), baseTries+s.o.Scouts); err != nil || s.good == 0 {
		return err
	}
	if s.good >= s.o.Max {
		return nil
	}
	if err := s.ask(ctx, s.o.Max, s.tries()); err != nil {
		return err
	}
	for {
		for next := s.next(); next != 0; next = s.next() {
			if err := s.ask(ctx, next, s.tries()); err != nil {
				return err
			}
		}
		if done, err := s.confirm(ctx); done || err != nil {
			return err
		}
	}
}

// tries is how many packets of a size have to stay unanswered before it counts as too big: the more get
// lost anyhow, the more.
func (s *search) tries() int {
	n := s.o.Tries
	if s.fit.sent > s.fit.passed {
		for ; n < moreTries && s.unlucky(n) > likelier; n++ {
		}
	}
	return n + s.o.Scouts
}

// at is what is known of a size.
func (s *search) at(size int) *asked {
	a := s.sizes[size]
	if a == nil {
		a = &asked{}
		s.sizes[size] = a
	}
	return a
}

// above is the smallest size that does not pass, 0 where none is known.
func (s *search) above() int {
	least := 0
	for size, a := range s.sizes {
		if a.bad() && size > s.good && (least == 0 || size < least) {
			least = size
		}
	}
	return least
}

// next is the size to ask for next, 0 where only one number is left.
func (s *search) next() int {
	bad := s.above()
	if bad == 0 {
		if s.good < s.o.Max {
			return s.o.Max
		}
		return 0
	}
	if bad-s.good <= 1 {
		return 0
	}
	within := func(size int) bool { return size > s.good && size < bad }
	// What a router names comes first. If that passes, the octet above it shows whether the router is right.
	hint := s.sizes[bad].told
	if hint != nil && within(hint.MTU) {
		return hint.MTU
	}
	if hint != nil && s.good == hint.MTU {
		return s.good + 1
	}
	if s.good <= s.o.Base {
		for _, size := range likely {
			if within(size) && size >= s.o.Floor {
				return size
			}
		}
	}
	return s.good + (bad-s.good)/2
}

// ask sends packets of a size until one is answered or all have been waited for.
func (s *search) ask(ctx context.Context, size, tries int) error {
	a := s.at(size)
	passed := a.passed
	settled := func() bool { return a.passed > passed || a.told != nil }
	for i := range tries {
		if settled() {
			break
		}
		if err := s.send(ctx, size); err != nil {
			return err
		}
		patience := s.interval()
		if i == tries-1 {
			patience = s.patience()
		}
		if err := s.wait(ctx, patience, settled); err != nil {
			return err
		}
	}
	if !settled() {
		a.silent = a.passed == 0
	}
	return nil
}

// patience is how long the last packet of a size is waited for: for a path that has answered quickly so
// far, not as long as for one that is not known. What comes later still counts.
func (s *search) patience() time.Duration {
	if s.slow == 0 {
		return s.o.Timeout
	}
	return min(s.o.Timeout, max(s.o.Timeout/4, s.interval(), 8*s.slow))
}

// interval is how long an answer may take before the packet is sent again; it is still welcome later.
func (s *search) interval() time.Duration {
	return min(s.o.Timeout, max(s.o.Gap, 3*s.slow, 100*time.Millisecond))
}

func (s *search) send(ctx context.Context, size int) error {
	if wait := s.o.Gap - s.path.Now().Sub(s.last); !s.last.IsZero() && wait > 0 {
		if err := s.wait(ctx, wait, func() bool { return false }); err != nil {
			return err
		}
	}
	if s.sent >= s.o.Budget {
		return errBudget
	}
	a := s.at(size)
	answer, err := s.path.Send(size, a.sent)
	if err != nil {
		return err
	}
	if answer != nil {
		s.take(*answer)
		return nil
	}
	s.sent++
	a.sent++
	if a.sent > s.o.Scouts {
		a.since++
		if size <= s.good {
			s.fit.sent++
		}
	}
	s.last = s.path.Now()
	return nil
}

// wait takes answers until enough says so or the time is over.
func (s *search) wait(ctx context.Context, d time.Duration, enough func() bool) error {
	end := s.path.Now().Add(d)
	for !enough() {
		left := end.Sub(s.path.Now())
		if left <= 0 {
			return nil
		}
		answer, ok, err := s.path.Wait(ctx, left)
		if err != nil {
			return err
		}
		if ok {
			s.take(answer)
		}
	}
	return nil
}

// take books an answer, to whichever packet it is.
func (s *search) take(answer Answer) {
	a := s.at(answer.Size)
	switch answer.Kind {
	case Passed:
		s.passes(answer.Size)
		s.slow = max(s.slow, answer.Took)
		if s.out.RTT == 0 || answer.Took < s.out.RTT {
			s.out.RTT = answer.Took
		}
		s.out.Target = answer.From
	case Arrived:
		a.arrived++
	case TooBig, Refused:
		if answer.MTU >= answer.Size || answer.MTU < s.o.Base {
			answer.MTU = 0 // nonsense: a packet of that size would not have been refused, or nothing passes
		}
		if a.told == nil {
			a.told = &answer
		}
		if answer.Size <= s.good {
			s.fallen(answer.Size)
		}
		if answer.Kind == Refused && s.out.Refused == 0 {
			s.out.Refused = answer.MTU
		}
		if answer.Kind == TooBig && !slices.ContainsFunc(s.out.Told, func(t Told) bool { return t.From == answer.From && t.MTU == answer.MTU }) {
			s.out.Told = append(s.out.Told, Told{From: answer.From, MTU: answer.MTU, Size: answer.Size})
		}
	case Unreachable:
		s.out.Unreachable = answer.Why
		s.out.UnreachableFrom = answer.From
	}
}

// passes books a packet that was answered. One that was silent before has either been unlucky or the path
// has changed, which it is where nothing else gets lost.
func (s *search) passes(size int) {
	a := s.at(size)
	lossless := s.fit.sent == s.fit.passed && s.fit.passed > 1
	switch {
	case size <= s.good:
		s.fit.passed++
	case a.silent && lossless:
		s.grown(size)
	default:
		s.fit.sent += max(1, a.since)
		s.fit.passed++
	}
	a.passed++
	a.since, a.silent = 0, false
	s.good = max(s.good, size)
}

// fallen takes back what passed: the path has changed. What is known to be too big stays so.
func (s *search) fallen(size int) {
	s.out.Changed = true
	s.good = 0
	for at, a := range s.sizes {
		if at > s.o.Base && (a.passed > 0 || at == size) {
			*a = asked{sent: a.sent, told: a.told, silent: at == size && a.told == nil}
		} else if a.passed > 0 {
			s.good = max(s.good, at)
		}
	}
}
