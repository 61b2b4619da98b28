// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

// within the midst of traffic, so that neither end knows the first numbers.
func midst(r func(int) fate) *sim {
	s := newSim()
	s.span = map[Label][2]time.Duration{A: {8 * time.Second, 30 * time.Second}, B: {10300 * time.Millisecond, 40 * time.Second}}
	s.traffic(A, time.Second/2, 5*time.Millisecond, 9000, seeded(), r)
	return s
}

// TestWithoutSADatabase has a sender of which only the wire is known: a router on the path, or a host that
// does not let its database be read. What it lost itself is then not known, what the path lost is.
func TestWithoutSADatabase(t *testing.T) {
	s := midst(mixed(seeded()))
	s.prepare = func(hosts map[Label]*host) { hosts[A].world.BlindSAD = true }
	sa := s.compared(t).only(t, A)
	if !sa.Joined {
		t.Fatal(sa.Why)
	}
	if sa.Sender.Numbered != nil || sa.Sender.Offered != nil || sa.Lost.SenderHost != nil {
		t.Errorf("nobody can know what A numbered: %+v", sa.Sender)
	}
	truth := s.truth(A, sa.Range.First, sa.Range.Last)
	got := value(sa.Path.Lost) + value(sa.Path.Pending)
	if d := got - truth[lost]; d > sa.Range.Uncertainty || -d > sa.Range.Uncertainty || sa.Range.First < 1500 || sa.Range.Numbers < 3000 {
		t.Errorf("%+v: lost %d, truth %d", *sa.Range, got, truth[lost])
	}
	if !strings.Contains(strings.Join(sa.Notes, "\n"), "never sent or lost in its host") {
		t.Errorf("notes %q", sa.Notes)
	}
}

// TestWithoutReplayProtection has a receiver whose database keeps no numbers: it knows of none before the
// first that it saw.
func TestWithoutReplayProtection(t *testing.T) {
	s := midst(func(i int) fate {
		if i%10 == 5 {
			return lost
		}
		return delivered
	})
	s.prepare = func(hosts map[Label]*host) { hosts[B].in.Entry.ReplayWindow = 0 }
	sa := s.compared(t).only(t, A)
	if !sa.Joined || sa.Range.Uncertainty > 40 {
		t.Fatalf("%s %+v", sa.Why, sa.Range)
	}
	truth := s.truth(A, sa.Range.First, sa.Range.Last)
	if d := value(sa.Path.Lost) + value(sa.Path.Pending) - truth[lost]; d > sa.Range.Uncertainty || -d > sa.Range.Uncertainty {
		t.Errorf("%+v: lost %d and pending %d, truth %d", *sa.Range, *sa.Path.Lost, *sa.Path.Pending, truth[lost])
	}
}

// TestReused refuses to join what is not one SA.
func TestReused(t *testing.T) {
	s := newSim()
	s.traffic(A, 3*time.Second, 10*time.Millisecond, 1000, seeded(), always(delivered))
	hosts := s.run()
	for i, e := range hosts[A].events {
		if snap, ok := e.(ledger.Snapshot); ok && i > len(hosts[A].events)/2 {
			for j := range snap.SAD {
				if snap.SAD[j].Key.Direction == ledger.Out {
					snap.SAD[j].OSeq = 3
				}
			}
		}
	}
	d, err := New(hosts[A].side(t, ""), hosts[B].side(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	if sa := d.only(t, A); sa.Joined || !strings.Contains(sa.Why, "began anew") {
		t.Errorf("joined %v: %s", sa.Joined, sa.Why)
	}
}

// TestComesAndGoes follows an SA that is set up and ended during both recordings, as at a rekey: all its
// numbers count, from 1 on.
func TestComesAndGoes(t *testing.T) {
	s := newSim()
	s.offset = -time.Minute
	s.traffic(A, 5*time.Second, 10*time.Millisecond, 2000, seeded(), mixed(seeded()))
	s.flights[firstOf(s, A)].fate, s.flights[lastOf(s, A)].fate = lost, lost
	hosts := s.run()
	for l, h := range hosts {
		var last []ledger.SADEntry
		for i, e := range h.events {
			snap, ok := e.(ledger.Snapshot)
			if !ok {
				continue
			}
			switch at := snap.At.Sub(s.clock(l, 0)); {
			case at < 4*time.Second:
				snap.SAD = []ledger.SADEntry{}
			case at < 30*time.Second:
				last = snap.SAD
			default:
				for _, sa := range last {
					snap.Ended = append(snap.Ended, ledger.EndedSA{Last: sa, At: snap.At, Why: ledger.EndDeleted})
				}
				snap.SAD, last = []ledger.SADEntry{}, nil
			}
			h.events[i] = snap
		}
	}
	d, err := New(hosts[A].side(t, ""), hosts[B].side(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	sa := d.only(t, A)
	last := s.flights[lastOf(s, A)].seq
	if !sa.Joined || sa.Range.First != 1 || sa.Range.Last != last || sa.Range.Uncertainty != 0 {
		t.Fatalf("%s: range %+v, want 1 to %d", sa.Why, sa.Range, last)
	}
	checkSums(t, sa)
	if diff := cmp.Diff(s.truth(A, 1, last), figures(sa)); diff != "" {
		t.Errorf("(-truth +found):\n%s", diff)
	}
}
