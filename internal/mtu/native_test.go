// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// sizes of paths, from the least of IPv6 to the links' own.
var sizes = []int{1280, 1400, 1499, 4471, 8999, device}

func eachFamily(t *testing.T, f func(t *testing.T, family int)) {
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("v%d", family), func(t *testing.T) {
			t.Parallel()
			f(t, family)
		})
	}
}

func TestRouterTells(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		l := raise(t, family, true, nil)
		for _, mtu := range sizes {
			l.narrow(mtu)
			side := l.measure(Settings{}, 0)
			if mtu == device {
				l.want(side, mtu, LimitNone)
				continue
			}
			l.want(side, mtu, LimitRouter)
			if told := side.Result.Told; len(told) != 1 || !told[0].Right || told[0].MTU != mtu {
				t.Errorf("told %+v, want %d, and right", told, mtu)
			}
			if side.Result.Sent > 6 {
				t.Errorf("%d packets for a router that tells", side.Result.Sent)
			}
		}
	})
}

func TestBlackHole(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		for _, limit := range sizes {
			t.Run(fmt.Sprint(limit), func(t *testing.T) {
				t.Parallel()
				l := raise(t, family, false, func(s seen) bool { return s.size > limit })
				side := l.measure(Settings{}, 0)
				if limit == device {
					l.want(side, limit, LimitNone)
					return
				}
				l.want(side, limit, LimitBlackHole)
				if side.Result.Confidence < 0.99 {
					t.Errorf("only %.3f sure without any loss", side.Result.Confidence)
				}
			})
		}
	})
}

// TestLossIsNoLimit: a fifth of the packets vanishes each way, whatever their size, and all above 1400.
func TestLossIsNoLimit(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		const limit, runs = 1400, 2
		dice := rand.New(rand.NewPCG(1, uint64(family)))
		l := raise(t, family, false, func(s seen) bool {
			icmp := s.proto == protoICMP || s.proto == protoICMPv6
			return s.size > limit || icmp && dice.Float64() < 0.2
		})
		exact := 0
		for range runs {
			side := l.measure(Settings{Max: 1500, Packets: 120}, 0)
			switch r := side.Result; {
			case r.Exact() && r.MTU != limit, r.MTU > limit, r.Above != 0 && r.Above <= limit:
				t.Errorf("MTU %d, %d does not pass, confidence %.3f: true is %d", r.MTU, r.Above, r.Confidence, limit)
			case r.Exact():
				exact++
				if r.Lost == 0 {
					t.Error("no loss is reported")
				}
			}
		}
		if exact < runs/2 {
			t.Errorf("only %d of %d are exact", exact, runs)
		}
	})
}

// TestWayBack: requests arrive, large replies do not come back. Over IPv6 the packets that scout show it.
func TestWayBack(t *testing.T) {
	t.Parallel()
	const limit = 1400
	l := raise(t, 6, false, func(s seen) bool { return s.back && s.size > limit })
	side := l.measure(Settings{Max: 1500}, 0)
	l.want(side, limit, LimitBlackHole)
	if !side.Result.OneWay {
		t.Error("that the packets arrive is not told")
	}
}

// TestUDP: echo is filtered, and replies are limited to little. UDP measures the way there all the same.
func TestUDP(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		filtered := func(s seen) bool {
			return !s.back && (s.proto == protoICMP || s.proto == protoICMPv6 && s.size > 100) || s.back && s.size > 1280
		}
		l := raise(t, family, false, filtered)
		l.want(l.measure(Settings{}, 0), 0, LimitUnknown)
		l.want(l.measure(Settings{}, 33434), device, LimitNone)
		r := raise(t, family, true, nil)
		r.narrow(1400)
		r.want(r.measure(Settings{}, 33434), 1400, LimitRouter)
	})
}

// TestLearned: what the kernel has learned of a path that has changed since is neither used nor touched.
func TestLearned(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		l := raise(t, family, true, nil)
		l.narrow(1400)
		l.check(l.tunnel.A.Do(func() error {
			// Its status says that nothing came back, which is what is wanted.
			_ = exec.Command("ping", "-n", "-c", "1", "-W", "1", "-M", "want", "-s", "3000", l.tunnel.B.Outer.String()).Run()
			return nil
		}))
		l.narrow(1500)
		side := l.measure(Settings{}, 0)
		l.want(side, 1500, LimitRouter)
		if b := side.Before; b.MTU != 1400 || !b.Learned || b.Locked || b.DeviceMTU != device {
			t.Errorf("the route before: %+v, want 1400, learned", b)
		}
		j := Judge(Plan{}, &side, nil)
		if j.Fits == nil || !*j.Fits || len(j.Notes) != 1 {
			t.Errorf("fits %v, notes %q: want that it fits, and a note", j.Fits, j.Notes)
		}
	})
}

// TestConfigured: an MTU that is set on the route is not learned, and more passes.
func TestConfigured(t *testing.T) {
	t.Parallel()
	l := raise(t, 4, true, nil)
	l.check(l.tunnel.A.IP(fmt.Sprintf("route replace default via 192.0.2.254 dev %s mtu lock 1300", tunnel.WAN)))
	side := l.measure(Settings{}, 0)
	l.want(side, device, LimitNone)
	if b := side.Before; b.MTU != 1300 || b.Learned || !b.Locked {
		t.Errorf("the route before: %+v, want 1300, locked", b)
	}
}

// TestTooFew stops where it may send no more, and says what is between.
func TestTooFew(t *testing.T) {
	t.Parallel()
	l := raise(t, 4, false, func(s seen) bool { return s.size > 4471 })
	side := l.measure(Settings{Packets: 12}, 0)
	l.want(side, side.Result.MTU, LimitUnknown)
	if r := side.Result; !r.Exhausted || r.MTU > 4471 || r.Above <= 4471 {
		t.Errorf("%+v", r)
	}
}
