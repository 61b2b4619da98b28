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
	rehooked  bool // devices came or went during the run
	snapshots int
	first     time.Time
	last      time.Time
	nat       natState
	mono      time.Duration // the last snapshot's by the sources' own clock
	firstMono time.Duration // the first one's

	wireSeen, stackSeen, unknownSeen, sadSeen, statSeen, packetsSeen, dropsSeen bool

	wire          map[SAKey]*wireSA
	sad           map[sadKey]*sadSA
	sharing       map[SAKey]int // the most SAs that had one key at one time
	stack         map[SAKey]*stackSA
	unknown       map[SAKey]*tally[Cause]
	drops         tally[DropID]
	firewall      []FirewallRule
	clamps        []MSSClamp
	firewallCount tally[FirewallID]

	policies      []Policy
	policyDefault *PolicyDefault
	policiesSeen  bool
	refusals      map[Refusal]*refused
	refusalsSeen  bool

	flows       map[flowKey]*flow
	flowsPast   flowSum // those that are not remembered any more
	flowsSeen   bool
	flowsBefore int64 // in the kernel's table at the baseline
	flowsMet    int64 // entries of that table that were read, those before the run among them
	fates       tally[string]

	stat    tally[string]
	residue tally[string]
	classes map[Direction]*tally[string]
	asides  map[Direction]*tally[string]
	lost    tally[string]
	self    tally[string]
	selfNow Self
	host    hostTrack

	latency        map[SAKey]*latencySA // nil: not measured
	latencyUnknown tally[string]

	pmtu pmtuState

	ike       *IKE
	ikeBefore *IKE // at the baseline
	names     map[SAKey]SAName
	ikeNames  map[IKESPI]string
}

// wireSA is one SA on the wire: the newest reading and the counters behind it.
type wireSA struct {
	now       WireSA
	skewStart int64 // packets that arrived while the SAD was dumped for the baseline
	cpus      tally[int]
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

		refusals: map[Refusal]*refused{},
		classes:  map[Direction]*tally[string]{},
		asides:   map[Direction]*tally[string]{},
		flows:    map[flowKey]*flow{},

		flowsPast: flowSum{},
		names:     map[SAKey]SAName{},
		ikeNames:  map[IKESPI]string{},
	}
}

// SetHooks states where the source looks and where it could not; the report repeats it.
// Those that come and go are stated anew.
func (l *Ledger) SetHooks(hooks []Hook) {
	l.rehooked = l.rehooked || l.snapshots > 0 && !slices.Equal(ingressHooks(l.hooks), ingressHooks(hooks))
	l.hooks = slices.Clone(hooks)
}

// Observe takes the next snapshot. The first one is the baseline, except for a capture, which counts
// from its own beginning.
func (l *Ledger) Observe(s Snapshot) {
	baseline := l.snapshots == 0 && l.source.Kind != KindCapture
	if l.first.IsZero() {
		l.first, l.firstMono = s.At, s.Mono
	}
	l.snapshots++
	l.last, l.mono = s.At, s.Mono

	l.observeWire(s, baseline)
	l.observeNAT(s, baseline)
	l.observeStack(s, baseline)
	l.observeDrops(s, baseline)
	l.observeFirewall(s, baseline)
	l.observeSAD(s, baseline)
	l.observePolicies(s, baseline)
	if s.XfrmStat != nil {
		l.stat.observe(s.XfrmStat, baseline || !l.statSeen && l.source.Kind != KindCapture)
		l.statSeen = true
	}
	l.residue.observe(s.Residue, baseline)
	l.observePMTU(s, baseline)
	l.observeIKE(s, baseline)
	l.observeFlows(s, baseline)
	l.observeSelf(s.Self, baseline)
	l.observeHost(s, baseline)
	l.observeLatency(s, baseline)
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
		t.cpus.observe(w.CPUs, baseline)
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
