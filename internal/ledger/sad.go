// SPDX-License-Identifier: Apache-2.0

package ledger

// sadKey is what the kernel tells SAs apart by (__xfrm_state_lookup). The wire shows no mark, so
// several of them may be one row of the ledger.
type sadKey struct {
	SAKey
	markValue, markMask uint32
}

func keyOf(e *SADEntry) sadKey { return sadKey{e.Key, e.MarkValue, e.MarkMask} }

// sadSA is one key of the SA database, which several SAs may have used one after the other.
type sadSA struct {
	now     SADEntry
	alive   bool
	unbased bool // its counters had begun before anyone read them
	during  bool // added after the baseline
	endings []Ending
	track
}

func (l *Ledger) observeSAD(s Snapshot, baseline bool) {
	// The ends come first: an SA that ended and the one that took its place share the key.
	for _, e := range s.Ended {
		t := l.entry(&e.Last)
		if t != nil && t.endAgain(e) {
			continue
		}
		if t == nil {
			t = &sadSA{now: e.Last, during: !baseline && l.sadSeen}
			if baseline || !l.sadSeen {
				t.start(sadCounts(e.Last), sadCounts(e.Last))
			} else {
				t.start(sadCounts(e.Last), nil)
			}
			l.sad[keyOf(&e.Last)] = t
			l.sharing[e.Last.Key] = max(l.sharing[e.Last.Key], 1)
		} else {
			l.readSAD(t, e.Last, baseline)
		}
		t.alive = false
		t.endings = append(t.endings, Ending{At: e.At.Round(0), Why: e.Why})
	}
	if s.SAD == nil {
		return
	}
	alive := make(map[sadKey]bool, len(s.SAD))
	together := make(map[SAKey]int, len(s.SAD))
	for _, e := range s.SAD {
		alive[keyOf(&e)] = true
		together[e.Key]++
		l.sharing[e.Key] = max(l.sharing[e.Key], together[e.Key])
		if t := l.entry(&e); t != nil {
			t.revive(e)
			l.readSAD(t, e, baseline)
			t.alive = true
			continue
		}
		t := &sadSA{now: e, alive: true}
		now := sadCounts(e)
		switch {
		case baseline:
			t.start(now, now)
		case l.sadSeen || l.source.Kind == KindCapture || e.Added.After(l.first):
			t.start(now, nil)
			t.during = true
		default:
			t.start(now, now)
			t.unbased = true
		}
		l.sad[keyOf(&e)] = t
	}
	for key, t := range l.sad {
		if t.alive && !alive[key] {
			t.alive = false
			t.endings = append(t.endings, Ending{At: s.At.Round(0), Why: EndVanished})
		}
	}
	l.sadSeen = true
}

// entry finds what is known of an SA. Its direction is not in the database but concluded from
// addresses and policies, which may come later than the SA: then it moves to its new key.
func (l *Ledger) entry(e *SADEntry) *sadSA {
	key := keyOf(e)
	if t := l.sad[key]; t != nil {
		return t
	}
	for _, dir := range []Direction{Unknown, In, Out} {
		old := key
		old.Direction = dir
		t := l.sad[old]
		if t == nil || dir != Unknown && key.Direction != Unknown || !t.now.Added.Equal(e.Added) {
			continue
		}
		delete(l.sad, old)
		l.sad[key] = t
		l.sharing[old.SAKey]--
		l.sharing[key.SAKey] = max(l.sharing[key.SAKey], 1)
		return t
	}
	return nil
}

// revive takes back an end that was only concluded from a dump which missed the SA.
func (t *sadSA) revive(e SADEntry) {
	n := len(t.endings)
	if !t.alive && n > 0 && t.endings[n-1].Why == EndVanished && e.Added.Equal(t.now.Added) &&
		!t.wentBack(sadCounts(e), sadPackets, sadBytes, sadOSeq) {
		t.endings = t.endings[:n-1]
	}
}

// endAgain recognises a further message about an end that is already known: an SA that a dump missed
// before its message came, or one that the kernel expired and the IKE daemon then deleted. The cause
// told first stands, unless it was only a guess.
func (t *sadSA) endAgain(e EndedSA) bool {
	if t.alive || len(t.endings) == 0 || !e.Last.Added.Equal(t.now.Added) {
		return false
	}
	now := sadCounts(e.Last)
	if t.wentBack(now, sadPackets, sadBytes, sadOSeq) {
		return false
	}
	t.last, t.now = now, e.Last
	if end := &t.endings[len(t.endings)-1]; end.Why == EndVanished {
		*end = Ending{At: e.At.Round(0), Why: e.Why}
	}
	return true
}

// readSAD takes a further reading of a key. An SA added anew under the same key counts from zero.
func (l *Ledger) readSAD(t *sadSA, e SADEntry, baseline bool) {
	now := sadCounts(e)
	anew := !e.Added.Equal(t.now.Added) || t.wentBack(now, sadPackets, sadBytes, sadOSeq)
	switch {
	case baseline:
		t.start(now, now)
	case anew:
		t.restart(now)
		t.during = true
	default:
		t.last = now
	}
	t.now = e
}
