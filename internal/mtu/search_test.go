// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var (
	router = netip.MustParseAddr("192.0.2.254")
	far    = netip.MustParseAddr("198.51.100.2")
)

// simulated is a path with a clock of its own.
type simulated struct {
	limit    int     // octets that pass
	back     int     // octets that pass on the way back; 0: as many
	honest   bool    // a router tells
	claims   int     // what it says instead of limit; -1: no number (before RFC 1191)
	host     int     // octets that this host sends; 0: any
	lossRate float64 // of packets and of answers, each
	rtt      time.Duration
	dead     bool
	scouts   int
	// change is called before each packet with how many have been sent.
	change func(s *simulated, sent int)

	now  time.Time
	sent int
	rand *rand.Rand
	way  []arriving
}

type arriving struct {
	at time.Time
	a  Answer
}

func (s *simulated) Now() time.Time { return s.now }

func (s *simulated) Send(size, try int) (*Answer, error) {
	if s.change != nil {
		s.change(s, s.sent)
	}
	if s.host != 0 && size > s.host {
		return &Answer{Kind: Refused, Size: size, MTU: s.host}, nil
	}
	s.sent++
	if s.dead || s.rand.Float64() < s.lossRate || s.rand.Float64() < s.lossRate {
		return nil, nil
	}
	a := Answer{Kind: Passed, Size: size, From: far, Took: s.rtt}
	switch {
	case size > s.limit && !s.honest:
		return nil, nil
	case size > s.limit:
		a = Answer{Kind: TooBig, Size: size, From: router, MTU: s.limit, Took: s.rtt}
		if s.claims != 0 {
			a.MTU = max(0, s.claims)
		}
	case try < s.scouts:
		a.Kind = Arrived
	case s.back != 0 && size > s.back:
		return nil, nil
	}
	s.way = append(s.way, arriving{s.now.Add(s.rtt), a})
	return nil, nil
}

func (s *simulated) Wait(_ context.Context, d time.Duration) (Answer, bool, error) {
	if len(s.way) > 0 && !s.way[0].at.After(s.now.Add(d)) {
		next := s.way[0]
		s.way = s.way[1:]
		if next.at.After(s.now) {
			s.now = next.at
		}
		return next.a, true, nil
	}
	s.now = s.now.Add(d)
	return Answer{}, false, nil
}

func options(most int) Options {
	return Options{Base: 84, Floor: 576, Max: most, Tries: 3, Budget: 60, Timeout: time.Second, Gap: 20 * time.Millisecond}
}

func run(t *testing.T, s *simulated, o Options) Result {
	t.Helper()
	s.now, s.rand = time.Unix(1, 0), rand.New(rand.NewPCG(1, uint64(s.limit)))
	if s.rtt == 0 {
		s.rtt = 5 * time.Millisecond
	}
	o.Scouts = s.scouts
	r, err := Search(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent != s.sent || s.sent > o.Budget {
		t.Errorf("says %d packets, sent %d of at most %d", r.Sent, s.sent, o.Budget)
	}
	return r
}

// want is what a search has to find.
func want(t *testing.T, r Result, mtu int, limit Limit) {
	t.Helper()
	if r.MTU != mtu || r.Limit != limit {
		t.Errorf("MTU %d by %s, want %d by %s; %+v", r.MTU, r.Limit, mtu, limit, r)
	}
	if exact := limit != LimitUnknown; r.Exact() != exact {
		t.Errorf("exact: %v, want %v; %+v", r.Exact(), exact, r)
	}
}

// TestEverySize looks for each MTU between the least of IPv6 and jumbo frames, on paths that tell and on
// such that do not.
func TestEverySize(t *testing.T) {
	most := map[string]int{}
	for mtu := 1280; mtu <= 9000; mtu++ {
		for name, s := range map[string]*simulated{
			"honest": {limit: mtu, honest: true}, "honest v6": {limit: mtu, honest: true, scouts: 1},
			"silent": {limit: mtu}, "host": {limit: 9000, host: mtu}, "no number": {limit: mtu, honest: true, claims: -1},
		} {
			limit := map[string]Limit{"honest": LimitRouter, "honest v6": LimitRouter, "silent": LimitBlackHole, "host": LimitHost, "no number": LimitRouter}[name]
			if mtu == 9000 {
				limit = LimitNone
			}
			r := run(t, s, options(9000))
			want(t, r, mtu, limit)
			most[name] = max(most[name], r.Sent)
		}
	}
	t.Logf("packets at most: %v", most)
	for name, bound := range map[string]int{"honest": 8, "honest v6": 10, "host": 8, "no number": 24, "silent": 54} {
		if most[name] > bound {
			t.Errorf("%s: up to %d packets, want at most %d", name, most[name], bound)
		}
	}
}

func TestHonestRouterIsVerified(t *testing.T) {
	r := run(t, &simulated{limit: 1400, honest: true}, options(1500))
	want(t, r, 1400, LimitRouter)
	if len(r.Told) != 1 || !r.Told[0].Right || r.Told[0].MTU != 1400 || r.By != router {
		t.Errorf("told: %+v by %s, want 1400 by %s, and right", r.Told, r.By, router)
	}
	// Base, the largest, what the router says, an octet more.
	if r.Sent != 4 {
		t.Errorf("%d packets, want 4", r.Sent)
	}
}

func TestLyingRouter(t *testing.T) {
	t.Run("too low", func(t *testing.T) {
		r := run(t, &simulated{limit: 1400, honest: true, claims: 1300}, options(1500))
		want(t, r, 1400, LimitRouter)
		if len(r.Told) != 1 || r.Told[0].Right {
			t.Errorf("told: %+v, want one, and wrong", r.Told)
		}
	})
	t.Run("too high", func(t *testing.T) {
		want(t, run(t, &simulated{limit: 1400, honest: true, claims: 1450}, options(1500)), 1400, LimitRouter)
	})
	t.Run("more than was sent", func(t *testing.T) {
		want(t, run(t, &simulated{limit: 1400, honest: true, claims: 9000}, options(1500)), 1400, LimitRouter)
	})
	t.Run("absurd", func(t *testing.T) {
		want(t, run(t, &simulated{limit: 1400, honest: true, claims: 1}, options(1500)), 1400, LimitRouter)
	})
}

// TestHonestAboveBlackHole: one router tells what it takes, and behind it is a smaller limit that nobody
// tells of.
func TestHonestAboveBlackHole(t *testing.T) {
	s := &simulated{limit: 1400}
	s.change = func(s *simulated, _ int) {}
	p := &twoHops{simulated: s, first: 1450}
	s.now, s.rand, s.rtt = time.Unix(1, 0), rand.New(rand.NewPCG(1, 1)), time.Millisecond
	r, err := Search(t.Context(), p, options(1500))
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, 1400, LimitBlackHole)
	if len(r.Told) != 1 || r.Told[0].Right {
		t.Errorf("told: %+v, want one, and wrong", r.Told)
	}
}

type twoHops struct {
	*simulated
	first int
}

func (p *twoHops) Send(size, try int) (*Answer, error) {
	if size > p.first {
		p.sent++
		p.way = append(p.way, arriving{p.now.Add(p.rtt), Answer{Kind: TooBig, Size: size, From: router, MTU: p.first}})
		return nil, nil
	}
	return p.simulated.Send(size, try)
}

// TestLoss: a fifth of all packets and a fifth of all answers vanish, whatever their size.
func TestLoss(t *testing.T) {
	const runs = 2000
	for name, s := range map[string]simulated{
		"silent": {limit: 1400}, "silent jumbo": {limit: 4321}, "honest": {limit: 1400, honest: true}, "clear": {limit: 9000},
	} {
		for _, rate := range []float64{0.02, 0.2} {
			wrong, open, sent := 0, 0, 0
			for i := range runs {
				s := s
				s.lossRate, s.rtt, s.now, s.rand = rate, 5*time.Millisecond, time.Unix(1, 0), rand.New(rand.NewPCG(uint64(i), 7))
				most := 1500
				if s.limit > most {
					most = 9000
				}
				r, err := Search(t.Context(), &s, options(most))
				if err != nil {
					t.Fatal(err)
				}
				if s.sent > 60 {
					t.Fatalf("%d packets", s.sent)
				}
				sent += s.sent
				switch {
				case !r.Exact():
					open++
					if r.MTU > s.limit || r.Above != 0 && r.Above <= r.MTU {
						t.Errorf("%s: MTU %d, %d does not pass: true is %d", name, r.MTU, r.Above, s.limit)
					}
				case r.MTU != s.limit:
					wrong++
				}
			}
			t.Logf("%-12s %2.0f %% loss: %d wrong, %d without an exact answer, of %d; %.1f packets", name, 100*rate, wrong, open, runs, float64(sent)/runs)
			if wrong > runs/100 {
				t.Errorf("%s, %v: %d of %d are wrong", name, rate, wrong, runs)
			}
		}
	}
}

// TestReplyLimit: requests pass, larger replies do not come back.
func TestReplyLimit(t *testing.T) {
	r := run(t, &simulated{limit: 1500, back: 1400, scouts: 1}, options(1500))
	want(t, r, 1400, LimitBlackHole)
	if !r.OneWay {
		t.Error("it is not told that the packets arrived")
	}
	if r := run(t, &simulated{limit: 1400, scouts: 1}, options(1500)); r.OneWay {
		t.Error("packets are said to have arrived that did not")
	}
}

// TestChange: the path changes while it is measured.
func TestChange(t *testing.T) {
	// That it has grown cannot always be told from packets that got lost; what it takes now has to be right.
	for name, s := range map[string]*simulated{
		"smaller": {limit: 1400, change: func(s *simulated, sent int) {
			if sent == 18 {
				s.limit = 1300
			}
		}},
		"smaller, told": {limit: 1400, change: func(s *simulated, sent int) {
			if sent == 18 {
				s.limit, s.honest = 1300, true
			}
		}},
		"larger": {limit: 1300, change: func(s *simulated, sent int) {
			if sent == 20 {
				s.limit = 1450
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(1500)
			o.Budget = 80
			r := run(t, s, o)
			if r.MTU != s.limit || !r.Exact() || !r.Changed && name != "larger" {
				t.Errorf("MTU %d, exact %v, changed %v: the path takes %d now; %+v", r.MTU, r.Exact(), r.Changed, s.limit, r)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		s := &simulated{limit: 1400, change: func(s *simulated, sent int) { s.dead = sent >= 15 }}
		if r := run(t, s, options(1500)); r.Exact() {
			t.Errorf("an exact result of a path that is gone: %+v", r)
		}
	})
}

func TestNobodyAnswers(t *testing.T) {
	r := run(t, &simulated{dead: true, limit: 1500}, options(1500))
	want(t, r, 0, LimitUnknown)
	if r.Sent != baseTries {
		t.Errorf("%d packets, want %d", r.Sent, baseTries)
	}
}

// TestBudget: too few packets give a range and not a guess.
func TestBudget(t *testing.T) {
	for budget := 1; budget < 40; budget++ {
		t.Run(fmt.Sprint(budget), func(t *testing.T) {
			o := options(9000)
			o.Budget = budget
			r := run(t, &simulated{limit: 4321}, o)
			if r.Exact() && r.MTU != 4321 || r.MTU > 4321 || r.Above != 0 && r.Above <= 4321 {
				t.Errorf("%+v", r)
			}
			if !r.Exact() && !r.Exhausted {
				t.Errorf("not exact, and nothing says that the packets did not suffice: %+v", r)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &stopping{simulated: &simulated{limit: 1400, rtt: time.Millisecond, now: time.Unix(1, 0), rand: rand.New(rand.NewPCG(1, 1))}, after: 12, cancel: cancel}
	r, err := Search(ctx, s, options(1500))
	if err == nil || r.MTU < 84 || r.MTU > 1400 || r.Exact() {
		t.Errorf("error %v, result %+v", err, r)
	}
}

type stopping struct {
	*simulated
	after  int
	cancel func()
}

func (s *stopping) Wait(ctx context.Context, d time.Duration) (Answer, bool, error) {
	if s.sent >= s.after {
		s.cancel()
		return Answer{}, false, ctx.Err()
	}
	return s.simulated.Wait(ctx, d)
}
