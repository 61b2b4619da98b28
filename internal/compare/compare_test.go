// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(7, 11)) }

// mixed gives packets all fates, at odds in a hundred.
func mixed(r *rand.Rand) func(int) fate {
	return func(int) fate {
		switch n := r.IntN(100); {
		case n < 3:
			return withheld
		case n < 8:
			return lost
		case n < 10:
			return stopped
		case n < 12:
			return corrupted
		case n < 14:
			return swallowed
		case n < 16:
			return twice
		case n < 18:
			return refused
		}
		return delivered
	}
}

// checkSums demands that the bins of an SA add up from the one host to the other.
func checkSums(t *testing.T, sa *SA) {
	t.Helper()
	s, p, r := sa.Sender, sa.Path, sa.Receiver
	sums := map[string][2]int64{
		"numbers":      {value(s.Numbered), sa.Range.Numbers},
		"offered":      {value(s.Offered), value(s.Numbered) + value(s.XfrmDropped)},
		"numbered":     {value(s.Numbered), value(s.EncryptFailed) + value(s.LostInHost) + value(s.InFlight) + value(s.Unattributed) + value(s.OnWire)},
		"on wire":      {value(s.OnWire), value(p.Lost) + value(p.Pending) + value(p.Unattributed) + value(r.Unique)},
		"unique":       {value(r.Arrivals), value(r.Unique) + value(r.Duplicates) + value(r.Stale) + value(r.Unsorted)},
		"arrivals":     {value(r.Arrivals), value(r.LostInHost) + value(r.XfrmDropped) + value(r.InFlight) + value(r.Unattributed) + value(r.Decapsulated)},
		"decapsulated": {value(r.Decapsulated), value(r.Delivered) + value(r.PolicyDropped) + value(r.InnerDropped)},
	}
	for name, sum := range sums {
		if sum[0] != sum[1] {
			t.Errorf("%s from %s: %s: %d is not %d", sa.SPI, sa.From, name, sum[0], sum[1])
		}
	}
}

// figures are an SA's bins in the words of the simulation.
func figures(sa *SA) map[fate]int64 {
	r := sa.Receiver
	out := map[fate]int64{
		withheld: value(sa.Sender.LostInHost), lost: value(sa.Path.Lost) + value(sa.Path.Pending), stopped: value(r.LostInHost),
		corrupted: r.Causes[ledger.IntegrityFailed], swallowed: value(r.InnerDropped), twice: value(r.Duplicates),
	}
	out[delivered] = value(r.Delivered) - out[twice]
	for f, n := range out {
		if n == 0 {
			delete(out, f)
		}
	}
	return out
}

// TestPlaces has every kind of loss in both directions, and quiet ends: everything is found to the packet,
// whatever the clocks say, and in whichever order the ends are given.
func TestPlaces(t *testing.T) {
	for _, offset := range []time.Duration{0, 3 * time.Hour, -90 * time.Millisecond} {
		r := seeded()
		s := newSim()
		s.offset, s.drift = offset, 40e-6
		// The end that records first ends first.
		s.span = map[Label][2]time.Duration{A: {0, 33300 * time.Millisecond}, B: {700 * time.Millisecond, 36900 * time.Millisecond}}
		s.traffic(A, 3*time.Second, 9*time.Millisecond, 3000, r, mixed(r))
		s.traffic(B, 3*time.Second, 13*time.Millisecond, 2000, r, mixed(r))
		// The first and the last packets are lost as well, which no end can know by itself.
		for _, from := range []Label{A, B} {
			s.flights[firstOf(s, from)].fate = lost
			s.flights[lastOf(s, from)].fate = lost
		}
		d := s.compared(t)
		hosts := s.run()
		swapped, err := New(relabel(t, hosts[B]), relabel(t, hosts[A]))
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []Label{A, B} {
			sa := d.only(t, from)
			if !sa.Joined {
				t.Fatalf("not joined: %s", sa.Why)
			}
			checkSums(t, sa)
			last := s.flights[lastOf(s, from)].seq
			if sa.Range.First != 1 || sa.Range.Last != last || sa.Range.Uncertainty != 0 {
				t.Errorf("offset %s: range %+v, want 1 to %d without uncertainty", offset, *sa.Range, last)
			}
			if diff := cmp.Diff(s.truth(from, 1, last), figures(sa)); diff != "" {
				t.Errorf("offset %s, from %s (-truth +found):\n%s", offset, from, diff)
			}
			if got := value(sa.Lost.Unattributed); got != 0 {
				t.Errorf("offset %s: %d unattributed", offset, got)
			}
			truth := s.truth(from, 1, last)
			refusals := int64(0)
			for _, f := range s.flights {
				if f.from == from && f.fate == refused {
					refusals++
				}
			}
			want := [3]int64{refusals + truth[withheld], truth[lost], truth[stopped] + truth[corrupted] + truth[swallowed]}
			got := [3]int64{value(sa.Lost.SenderHost), value(sa.Lost.Path), value(sa.Lost.ReceiverHost)}
			if want != got || sa.Receiver.Causes[ledger.ReplayDuplicate] != truth[twice] || sa.Sender.Causes[ledger.OutPolBlock] != refusals {
				t.Errorf("offset %s, from %s: lost %v, want %v; causes %v %v", offset, from, got, want, sa.Sender.Causes, sa.Receiver.Causes)
			}
			mirrored := *swapped.only(t, from.other())
			mirrored.From, mirrored.To = from, from.other()
			if diff := cmp.Diff(sa.Lost, mirrored.Lost); diff != "" || *mirrored.Range != *sa.Range {
				t.Errorf("swapped arguments give something else (-A B, +B A):\n%s%+v %+v", diff, *sa.Range, *mirrored.Range)
			}
		}
		if d.ExitCode() != 1 || len(d.Directions) != 2 {
			t.Errorf("exit code %d, %d directions", d.ExitCode(), len(d.Directions))
		}
	}
}

func firstOf(s *sim, from Label) int {
	return pick(s, from, func(f, best flight) bool { return f.seq < best.seq })
}
func lastOf(s *sim, from Label) int {
	return pick(s, from, func(f, best flight) bool { return f.seq > best.seq })
}

func pick(s *sim, from Label, better func(f, best flight) bool) int {
	best := -1
	for i, f := range s.flights {
		if f.from == from && f.fate != refused && (best < 0 || better(f, s.flights[best])) {
			best = i
		}
	}
	return best
}

// relabel reads a host's recording as it is: the host keeps its own name, whichever argument it is.
func relabel(t *testing.T, h *host) *Side { t.Helper(); return h.side(t, "") }

// TestClean finds nothing where nothing is lost.
func TestClean(t *testing.T) {
	r := seeded()
	s := newSim()
	s.traffic(A, 3*time.Second, 10*time.Millisecond, 1000, r, func(int) fate { return delivered })
	d := s.compared(t)
	sa := d.only(t, A)
	checkSums(t, sa)
	if diff := cmp.Diff(map[fate]int64{delivered: 1000}, figures(sa)); diff != "" {
		t.Error(diff)
	}
	if d.ExitCode() != 0 || len(d.Findings) != 0 {
		t.Errorf("exit code %d, findings %+v", d.ExitCode(), d.Findings)
	}
	// The other direction is silent, and that is no fault.
	if idle := d.only(t, B); !idle.Joined || idle.Range.Numbers != 0 {
		t.Errorf("the idle SA: %+v", idle)
	}
}

// TestOverlap has recordings that begin and end at other times, in the midst of traffic: only numbers that
// both account for are compared, and the truth about them is within the stated uncertainty.
func TestOverlap(t *testing.T) {
	sec := time.Second
	for name, span := range map[string]map[Label][2]time.Duration{
		"A first":         {A: {0, 20 * sec}, B: {10300 * time.Millisecond, 40 * sec}},
		"B first":         {A: {10300 * time.Millisecond, 40 * sec}, B: {0, 20 * sec}},
		"A within B":      {A: {12 * sec, 22 * sec}, B: {0, 40 * sec}},
		"B within A":      {A: {0, 40 * sec}, B: {12400 * time.Millisecond, 22 * sec}},
		"other intervals": {A: {100 * time.Millisecond, 30 * sec}, B: {5550 * time.Millisecond, 30500 * time.Millisecond}},
		"half a second":   {A: {10 * sec, 30 * sec}, B: {29500 * time.Millisecond, 40 * sec}},
	} {
		t.Run(name, func(t *testing.T) {
			r := seeded()
			s := newSim()
			s.span, s.offset = span, -7*time.Second
			s.traffic(A, sec/2, 4*time.Millisecond, 9900, r, mixed(r))
			s.traffic(B, sec/2, 5*time.Millisecond, 7900, r, mixed(r))
			d := s.compared(t)
			for _, from := range []Label{A, B} {
				sa := d.only(t, from)
				if name == "half a second" && !sa.Joined {
					continue // less than two snapshots of both
				}
				if !sa.Joined {
					t.Fatalf("from %s: not joined: %s", from, sa.Why)
				}
				checkSums(t, sa)
				overlap := min(span[A][1], span[B][1]) - max(span[A][0], span[B][0])
				whole := int64(overlap / (map[Label]time.Duration{A: 4, B: 5}[from] * time.Millisecond))
				if sa.Range.Numbers > whole || name != "half a second" && sa.Range.Numbers < whole*3/4 {
					t.Errorf("from %s: %d numbers of about %d: %+v", from, sa.Range.Numbers, whole, *sa.Range)
				}
				if sa.Range.Uncertainty > 60 {
					t.Errorf("from %s: uncertain by %d", from, sa.Range.Uncertainty)
				}
				truth, got := s.truth(from, sa.Range.First, sa.Range.Last), figures(sa)
				for _, f := range []fate{withheld, lost, stopped, corrupted, swallowed, delivered} {
					// What is late at an edge of the receiver's counts, too.
					if d := truth[f] - got[f]; d > sa.Range.Uncertainty || -d > sa.Range.Uncertainty {
						t.Errorf("from %s: fate %d: %d, truth %d, uncertain by %d", from, f, got[f], truth[f], sa.Range.Uncertainty)
					}
				}
			}
		})
	}
}

// TestApart says why nothing can be said.
func TestApart(t *testing.T) {
	r := seeded()
	s := newSim()
	s.span = map[Label][2]time.Duration{A: {0, 10 * time.Second}, B: {20 * time.Second, 40 * time.Second}}
	s.traffic(A, time.Second/2, 4*time.Millisecond, 9900, r, mixed(r))
	sa := s.compared(t).only(t, A)
	if sa.Joined || sa.Why == "" || sa.Range != nil || sa.Lost.Path != nil {
		t.Errorf("joined without a number in common: %+v", sa)
	}
}

// TestFindingIsRelocated wants a loss that the receiver calls the path's where the sender's host had it.
func TestFindingIsRelocated(t *testing.T) {
	r := seeded()
	s := newSim()
	s.traffic(A, 3*time.Second, 10*time.Millisecond, 2000, r, func(i int) fate {
		if i%20 == 10 {
			return withheld
		}
		return delivered
	})
	s.traffic(B, 3*time.Second, 10*time.Millisecond, 2000, r, func(i int) fate {
		if i%20 == 10 {
			return lost
		}
		return delivered
	})
	places := map[string]string{}
	for _, f := range s.compared(t).Findings {
		places[string(f.End)+" "+string(f.ID)] = f.Place
	}
	if places["B path-loss"] != "host A" || places["A path-loss"] != "path B to A" || places["A firewall-drop"] != "host A" {
		t.Errorf("places %v", places)
	}
}
