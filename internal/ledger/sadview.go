// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"slices"
)

// sadView is what the SA database has of one key on the wire: as a rule one SA, or several that only
// their marks tell apart. Their counters are summed; the youngest one alive lends the rest.
type sadView struct {
	now     SADEntry
	alive   bool
	unbased bool
	during  bool
	endings []Ending
	sum     counts
	shared  int
}

// byKey groups the SAs of the database by their key on the wire.
func (l *Ledger) byKey() map[SAKey][]*sadSA {
	out := make(map[SAKey][]*sadSA, len(l.sad))
	for k, t := range l.sad {
		out[k.SAKey] = append(out[k.SAKey], t)
	}
	return out
}

// inSAD says whether an SA with this key was in the database at any time.
func (l *Ledger) inSAD(k SAKey) bool { return l.sharing[k] > 0 }

// view sums the SAs of one key.
func (l *Ledger) view(k SAKey, all []*sadSA) *sadView {
	slices.SortFunc(all, func(a, b *sadSA) int {
		if a.alive != b.alive {
			if a.alive {
				return -1
			}
			return 1
		}
		return cmp.Or(b.now.Added.Compare(a.now.Added),
			cmp.Compare(a.now.MarkValue, b.now.MarkValue), cmp.Compare(a.now.MarkMask, b.now.MarkMask))
	})
	v := &sadView{now: all[0].now, alive: all[0].alive, during: all[0].during, shared: l.sharing[k]}
	v.sum = make(counts, len(all[0].last))
	for _, t := range all {
		for i, n := range t.total() {
			v.sum[i] += n
		}
		v.unbased = v.unbased || t.unbased
		v.endings = append(v.endings, t.endings...)
	}
	slices.SortStableFunc(v.endings, func(a, b Ending) int { return a.At.Compare(b.At) })
	return v
}
