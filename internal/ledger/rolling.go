// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

// Rolling keeps account of a run without end. What is wrong now is judged by the last one or two periods,
// so that a fault that was mended is no longer reported; what happened since the beginning is kept as
// sums. Nothing in it grows with the length of the run but the number of tunnels. It is not safe for
// concurrent use.
type Rolling struct {
	source Source
	period time.Duration
	hooks  []Hook
	rolled time.Time // when the last period ended
	first  time.Time

	// Two ledgers that began a period apart. The younger one also delivers the sums: its stretch is the
	// one that Totals does not hold yet.
	old, young *Ledger
	past       *Totals
}

// remembered is how long a new ledger still knows an SA that has ended, so that packets which come for it
// are not a stranger's.
const remembered = time.Hour

// NewRolling opens a rolling ledger for a source. The period must be longer than the time between two
// snapshots.
func NewRolling(source Source, period time.Duration) *Rolling {
	first := New(source)
	return &Rolling{source: source, period: period, old: first, young: first, past: NewTotals()}
}

// SetHooks states where the source looks and where it could not.
func (r *Rolling) SetHooks(hooks []Hook) {
	r.hooks = hooks
	r.old.SetHooks(hooks)
	r.young.SetHooks(hooks)
}

// Observe takes the next snapshot, and says whether a period ended with it.
func (r *Rolling) Observe(s Snapshot) (rolled bool) {
	if r.first.IsZero() {
		r.first, r.rolled = s.At, s.At
	}
	r.old.Observe(s)
	if r.young != r.old {
		r.young.Observe(s)
	}
	if s.At.Sub(r.rolled) < r.period {
		return false
	}
	r.past.Add(r.young.Report())
	r.old, r.young = r.young, New(r.source)
	r.young.inherit(r.old, s.At.Add(-remembered))
	r.young.SetHooks(r.hooks)
	r.young.Observe(s)
	r.rolled = s.At
	return true
}

// Report is the ledger of the last one to two periods, or of the run while it is shorter.
func (r *Rolling) Report() Report { return r.old.Report() }

// Totals are the sums since the first snapshot.
func (r *Rolling) Totals() Totals {
	sum := r.past.clone()
	sum.Add(r.young.Report())
	sum.Start = r.first.Round(0).UTC()
	return *sum
}

// inherit takes over the SAs that another ledger saw end since then; what they counted is left behind.
func (l *Ledger) inherit(from *Ledger, since time.Time) {
	for k, t := range from.sad {
		n := len(t.endings)
		if t.alive || n == 0 || t.endings[n-1].At.Before(since) {
			continue
		}
		u := &sadSA{now: t.now, endings: t.endings[n-1:]}
		u.start(t.last, t.last)
		l.sad[k] = u
		l.sharing[k.SAKey] = max(l.sharing[k.SAKey], 1)
		if name, ok := from.names[k.SAKey]; ok {
			l.names[k.SAKey] = name
		}
	}
}
