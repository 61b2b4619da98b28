// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"
	"time"
)

// Ledger joins snapshots. It is not safe for concurrent use.
type Ledger struct {
	source    Source
	hooks     []Hook
	snapshots int
	first     time.Time
	last      time.Time

	wireSeen, stackSeen, unknownSeen, sadSeen, statSeen, packetsSeen bool

	wire    map[SAKey]*wireSA
	sad     map[sadKey]*sadSA
	sharing map[SAKey]int // the most SAs that had one key at one time
	stack   map[SAKey]*stackSA
	unknown map[SAKey]*tally[Cause]

	stat    tally[string]
	residue tally[string]
	classes map[Direction]*tally[string]
	asides  map[Direction]*tally[string]
	lost    tally[string]
	self    tally[string]
	selfNow Self
}

// wireSA is one SA on the wire: the newest reading and the counters behind it.
type wireSA struct {
	now       WireSA
	skewStart int64 // packets that arrived while the SAD was dumped for the baseline
	track
}

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

// stackSA is one SA as the hooks in the stack saw it.
type stackSA struct {
	now StackSA
	tally[Cause]
	late tally[int] // the histogram of distances below the window
}

// New opens a ledger for a source.
func New(source Source) *Ledger {
	return &Ledger{
		source:  source,
		wire:    map[SAKey]*wireSA{},
		sad:     map[sadKey]*sadSA{},
		sharing: map[SAKey]int{},
		stack:   map[SAKey]*stackSA{},
		unknown: map[SAKey]*tally[Cause]{},
		classes: map[Direction]*tally[string]{},
		asides:  map[Direction]*tally[string]{},
	}
}

// SetHooks states where the source looks and where it could not; the report repeats it.
func (l *Ledger) SetHooks(hooks []Hook) { l.hooks = slices.Clone(hooks) }

// Observe takes the next snapshot. The first one is the baseline, except for a capture, which counts
// from its own beginning.
func (l *Ledger) Observe(s Snapshot) {
	baseline := l.snapshots == 0 && l.source.Kind != KindCapture
	if l.first.IsZero() {
		l.first = s.At
	}
	l.snapshots++
	l.last = s.At

	l.observeWire(s, baseline)
	l.observeStack(s, baseline)
	l.observeSAD(s, baseline)
	if s.XfrmStat != nil {
		l.stat.observe(s.XfrmStat, baseline || !l.statSeen && l.source.Kind != KindCapture)
		l.statSeen = true
	}
	l.residue.observe(s.Residue, baseline)
	l.observeSelf(s.Self, baseline)
}

func (l *Ledger) observeWire(s Snapshot, baseline bool) {
	if s.Wire != nil {
		l.wireSeen = true
	}
	for _, w := range s.Wire {
		now := wireCounts(w)
		t, known := l.wire[w.Key]
		switch {
		case !known:
			t = &wireSA{}
			l.wire[w.Key] = t
			if baseline {
				t.start(now, now)
				t.skewStart = skew(w)
			} else {
				t.start(now, nil)
			}
		case w.Created != t.now.Created || t.wentBack(now, wirePackets, wireSpan, wireDuplicates):
			// The slot was given up and taken again: what it had counted is settled.
			t.restart(now)
		}
		t.last, t.now = now, w
	}
	if s.Packets == nil {
		return
	}
	l.packetsSeen = true
	observeBy(l.classes, s.Packets.Classes, baseline)
	observeBy(l.asides, s.Packets.Asides, baseline)
}

// skew is how many packets arrived while the SAD was being dumped.
func skew(w WireSA) int64 { return max(0, int64(w.Packets)-int64(w.PacketsBefore)) }

func observeBy(into map[Direction]*tally[string], now map[Direction]map[string]uint64, baseline bool) {
	for dir, m := range now {
		if into[dir] == nil {
			into[dir] = &tally[string]{}
		}
		into[dir].observe(m, baseline)
	}
}

func (l *Ledger) observeStack(s Snapshot, baseline bool) {
	if s.Stack != nil {
		l.stackSeen = true
	}
	for _, x := range s.Stack {
		t := l.stack[x.Key]
		if t == nil {
			t = &stackSA{}
			l.stack[x.Key] = t
		}
		t.observe(x.Causes, baseline)
		hist := make(map[int]uint64, len(x.LateHist))
		for b, n := range x.LateHist {
			hist[b] = n
		}
		t.late.observe(hist, baseline)
		t.now = x
	}
	if s.Unknown != nil {
		l.unknownSeen = true
	}
	for _, u := range s.Unknown {
		if l.unknown[u.Key] == nil {
			l.unknown[u.Key] = &tally[Cause]{}
		}
		l.unknown[u.Key].observe(map[Cause]uint64{NoState: u.Packets}, baseline)
	}
}

func (l *Ledger) observeSAD(s Snapshot, baseline bool) {
	// The ends come first: an SA that ended and the one that took its place share the key.
	for _, e := range s.Ended {
		if t := l.sad[keyOf(&e.Last)]; t != nil && t.endAgain(e) {
			continue
		}
		t := l.sad[keyOf(&e.Last)]
		if t == nil {
			t = &sadSA{during: !baseline && l.sadSeen}
			l.sad[keyOf(&e.Last)] = t
			l.sharing[e.Last.Key] = max(l.sharing[e.Last.Key], 1)
			now := sadCounts(e.Last)
			if baseline || !l.sadSeen {
				t.start(now, now)
			} else {
				t.start(now, nil)
			}
			t.now = e.Last
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
		if t := l.sad[keyOf(&e)]; t != nil {
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

func (l *Ledger) observeSelf(s Self, baseline bool) {
	l.lost.observe(s.Lost, baseline)
	l.self.observe(map[string]uint64{
		"suppressed": s.Suppressed,
		"events":     s.EventsLost,
		"recursion":  s.RecursionMisses,
		"evicted":    s.Evicted,
	}, baseline)
	l.selfNow = s
}
