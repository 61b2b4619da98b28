// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"math"
	"strings"
	"testing"
	"time"
)

func always(f fate) func(int) fate { return func(int) fate { return f } }

// talk is traffic both ways for most of a run.
func talk(s *sim, run time.Duration) {
	r := seeded()
	s.span = map[Label][2]time.Duration{A: {0, run}, B: {0, run}}
	n := int((run - 6*time.Second) / (10 * time.Millisecond))
	s.traffic(A, 3*time.Second, 10*time.Millisecond, n, r, mixed(r))
	s.traffic(B, 3*time.Second, 10*time.Millisecond, n, r, always(delivered))
}

// trueOffset is what B's clock shows more than A's at a moment of A's clock.
func (s *sim) trueOffset(at time.Time) float64 {
	since := at.Sub(s.clock(A, 0))
	return s.clock(B, since).Sub(at).Seconds()
}

// TestClock shifts B's clock by a known offset and drift, and demands both back within what is stated.
func TestClock(t *testing.T) {
	for _, tt := range []struct {
		name   string
		offset time.Duration
		drift  float64 // ppm
		run    time.Duration
		from   ClockSource
		within float64 // the most that the uncertainty may be
		ppm    float64 // the same of the drift; 0: not asked for
	}{
		{"none", 0, 0, 30 * time.Second, ClockMarks, 0.004, 300},
		{"ahead", 1234 * time.Millisecond, 0, 60 * time.Second, ClockMarks, 0.004, 150},
		{"far behind and slow", -26 * time.Hour, -80, 5 * time.Minute, ClockMarks, 0.004, 25},
		{"fast", 15 * time.Millisecond, 120, 5 * time.Minute, ClockMarks, 0.004, 25},
		{"by snapshots", 2500 * time.Millisecond, 30, 60 * time.Second, ClockSnapshots, 1.6, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim()
			s.offset, s.drift, s.unmarked = tt.offset, tt.drift*1e-6, tt.from == ClockSnapshots
			talk(s, tt.run)
			c := s.compared(t).Clock
			if c.From != tt.from || c.OffsetS == nil || c.Stepped {
				t.Fatalf("clock %+v", c)
			}
			if got, want := *c.OffsetS, s.trueOffset(c.At); math.Abs(got-want) > *c.UncertaintyS || *c.UncertaintyS > tt.within {
				t.Errorf("offset %v ± %v, true %v", got, *c.UncertaintyS, want)
			}
			if tt.ppm == 0 {
				return
			}
			if c.DriftPPM == nil || math.Abs(*c.DriftPPM-tt.drift) > *c.DriftWithin || *c.DriftWithin > tt.ppm {
				t.Fatalf("drift %v ± %v, true %v", *c.DriftPPM, *c.DriftWithin, tt.drift)
			}
			// Nothing is faster than the 2 ms that the simulated path takes at least.
			if c.RoundTripS == nil || *c.RoundTripS < 0.0039 || *c.RoundTripS > 0.006 {
				t.Errorf("round trip %v", *c.RoundTripS)
			}
		})
	}
}

// TestDelay holds delays and their variation against those that the simulated path had.
func TestDelay(t *testing.T) {
	s := newSim()
	s.offset, s.drift = -400*time.Millisecond, 50e-6
	talk(s, 2*time.Minute)
	d := s.compared(t)
	for _, from := range []Label{A, B} {
		low, high, n := math.Inf(1), 0.0, 0
		for _, f := range s.flights {
			if f.from == from && f.seq%s.every == 0 && f.fate != refused && f.fate != withheld && f.fate != lost {
				low, high, n = min(low, f.delay.Seconds()), max(high, f.delay.Seconds()), n+1
			}
		}
		got := d.only(t, from).Delay
		// What the drift may be wrong by over half the run blurs the two ends of the distribution.
		blur := *d.Clock.DriftWithin * 1e-6 * 60
		if got == nil || got.Packets != n || math.Abs(*got.MinS-low) > *got.UncertaintyS+blur || math.Abs(*got.MaxS-high) > *got.UncertaintyS+blur {
			t.Errorf("from %s: %+v, true %v to %v of %d packets", from, got, low, high, n)
		}
		if math.Abs(got.VariationMaxS-(high-low)) > 2*blur {
			t.Errorf("from %s: varies by %v, true %v", from, got.VariationMaxS, high-low)
		}
	}
}

// TestOneDirection knows a bound only, and says so.
func TestOneDirection(t *testing.T) {
	for _, from := range []Label{A, B} {
		s := newSim()
		s.offset = 70 * time.Millisecond
		s.traffic(from, 3*time.Second, 10*time.Millisecond, 1000, seeded(), always(delivered))
		d := s.compared(t)
		c := d.Clock
		if c.OffsetS != nil || c.UncertaintyS != nil || (c.AtMostS != nil) != (from == A) || (c.AtLeastS != nil) != (from == B) {
			t.Fatalf("from %s: clock %+v", from, c)
		}
		// True is 70 ms, and the packet that was fastest took 2 ms.
		if from == A && (*c.AtMostS < 0.070 || *c.AtMostS > 0.074) || from == B && (*c.AtLeastS > 0.070 || *c.AtLeastS < 0.066) {
			t.Errorf("from %s: clock %+v", from, c)
		}
		if delay := d.only(t, from).Delay; delay == nil || delay.MinS != nil || delay.VariationMaxS <= 0 {
			t.Errorf("from %s: delay %+v", from, delay)
		}
		if !strings.Contains(strings.Join(d.Notes, "\n"), "only a bound is known") {
			t.Errorf("notes %q", d.Notes)
		}
		if sa := d.only(t, from); !sa.Joined || sa.Range.Numbers != 1000 {
			t.Errorf("from %s: joined %v %s, range %+v", from, sa.Joined, sa.Why, sa.Range)
		}
	}
}

// TestStep sees that a clock was set in the midst of the run.
func TestStep(t *testing.T) {
	there, back := []sight{}, []sight{}
	for i := range 100 {
		off := 0.0
		if i > 50 {
			off = 1
		}
		there = append(there, sight{float64(i), off + 0.002})
		back = append(back, sight{float64(i), -off + 0.002})
	}
	var c Clock
	c.fit(there, back)
	if !c.Stepped || c.OffsetS == nil || *c.UncertaintyS < 0.49 {
		t.Errorf("clock %+v", c)
	}
}

// TestSameMachine tells that the truth is known where both recordings are of one machine.
func TestSameMachine(t *testing.T) {
	s := newSim()
	s.boot = "8b1d"
	talk(s, 30*time.Second)
	d := s.compared(t)
	if !d.Clock.SameMachine || math.Abs(*d.Clock.OffsetS) > *d.Clock.UncertaintyS {
		t.Errorf("clock %+v", d.Clock)
	}
}
