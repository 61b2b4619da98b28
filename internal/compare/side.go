// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"net/netip"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// Mark is a packet with the time at which one end saw it, by that end's clock.
type Mark struct {
	Key ledger.SAKey
	Src netip.Addr
	Seq uint32
	At  time.Time
}

// Visitor takes what a recording holds, in its order. Either function may be nil.
type Visitor struct {
	// Snapshot gets each snapshot and the ledger after it has taken it. The ledger is good for this call.
	Snapshot func(ledger.Snapshot, *ledger.Ledger) error
	Mark     func(Mark) error
}

// Whole is what is known of a recording once it has been read.
type Whole struct {
	Report ledger.Report
	Boot   string // whose clocks are the same: machines that were not restarted in between
	Damage string
}

// Feed reads a recording from its beginning to its end, as often as it is called.
type Feed func(Visitor) (Whole, error)

// Side is one end's account, as far as joining needs it.
type Side struct {
	file    string
	whole   Whole
	capture bool
	feed    Feed
	times   []time.Time // of the snapshots
	tracks  map[ledger.SAKey]*track
	marks   int
}

// track is one SA at one end.
type track struct {
	key    ledger.SAKey
	src    netip.Addr
	points []point // one for each snapshot that changed something
	marks  []mark
	seen   *numbers // of a capture: all its packets
	reused bool     // the key was given to another SA, whose numbers began anew
}

// mark is a packet with its number joined to 64 bits.
type mark struct {
	seq uint64
	ns  int64 // since 1970
}

// point is what one end knew of an SA's numbers from one snapshot on.
type point struct {
	snap int
	// By the SA database. An SA that does not exist has sent and accepted nothing.
	oseq, seq uint64
	listed    bool // the SA was in the database
	window    bool // the database keeps seq, which it does with replay protection only
	known     bool // the database was readable
	// By the wire.
	wire                                           bool
	first, highest, packets, unique, pending, lost uint64
	restarts                                       uint64
}

// Recording reads one end's recording.
func Recording(file string, feed Feed) (*Side, error) {
	s := &Side{file: file, feed: feed, tracks: map[ledger.SAKey]*track{}}
	var err error
	s.whole, err = feed(Visitor{Snapshot: s.snapshot, Mark: s.mark})
	return s, err
}

// Capture is one end of which only the packets on its wire are known: read hands over every ESP packet.
func Capture(file string, read func(take func(Mark) error) (Whole, error)) (*Side, error) {
	s := &Side{file: file, capture: true, tracks: map[ledger.SAKey]*track{}}
	var err error
	if s.whole, err = read(s.mark); err != nil {
		return nil, err
	}
	for _, t := range s.tracks {
		t.seen = count(t.marks)
		t.thin()
	}
	return s, nil
}

// marksMax is of how many packets of an SA the times are kept, about.
const marksMax = 1 << 17

// thin keeps the times of packets with round numbers where there are more than enough. The other end, if it
// has to choose as well, keeps the same ones.
func (t *track) thin() {
	step := uint64(1)
	for uint64(len(t.marks))/step > marksMax {
		step *= 2
	}
	if step > 1 {
		t.marks = slices.Clip(slices.DeleteFunc(t.marks, func(m mark) bool { return m.seq%step != 0 }))
	}
}

func (s *Side) track(k ledger.SAKey, src netip.Addr) *track {
	t := s.tracks[k]
	if t == nil {
		t = &track{key: k}
		s.tracks[k] = t
	}
	if src.IsValid() {
		t.src = src
	}
	return t
}

// mark joins a packet's number to those before it: of all that end in its 32 bits, the nearest.
func (s *Side) mark(m Mark) error {
	t := s.track(m.Key, m.Src)
	seq := uint64(m.Seq)
	if n := len(t.marks); n > 0 {
		last := t.marks[n-1].seq
		if near := int64(last) + int64(int32(m.Seq-uint32(last))); near >= 0 {
			seq = uint64(near)
		}
	}
	t.marks = append(t.marks, mark{seq, m.At.UnixNano()})
	s.marks++
	return nil
}

func (s *Side) snapshot(snap ledger.Snapshot, _ *ledger.Ledger) error {
	now := map[ledger.SAKey]*point{}
	at := func(k ledger.SAKey, src netip.Addr) *point {
		t := s.track(k, src)
		if now[k] == nil {
			p := point{}
			if n := len(t.points); n > 0 {
				p = t.points[n-1]
			}
			p.known = snap.SAD != nil
			now[k] = &p
		}
		return now[k]
	}
	for _, w := range snap.Wire {
		p := at(w.Key, w.Src)
		p.wire, p.first, p.highest = true, w.FirstSeq, w.HighestSeq
		p.packets, p.unique, p.pending, p.lost, p.restarts = w.Packets, w.Unique, w.Pending, w.Missing, w.Restarts
	}
	for _, e := range snap.SAD {
		p := at(e.Key, e.Src)
		if e.OSeq < p.oseq || e.Seq < p.seq {
			s.tracks[e.Key].reused = true
		}
		p.oseq, p.seq, p.window, p.listed = e.OSeq, e.Seq, e.ReplayWindow > 0, true
	}
	for _, e := range snap.Ended {
		p := at(e.Last.Key, e.Last.Src)
		p.oseq = max(p.oseq, e.Last.OSeq)
		p.seq = max(p.seq, e.Last.Seq)
	}
	index := len(s.times)
	s.times = append(s.times, snap.At)
	for k, p := range now {
		t := s.tracks[k]
		if n := len(t.points); n > 0 {
			p.snap = t.points[n-1].snap
			if *p == t.points[n-1] {
				continue
			}
		}
		p.snap = index
		t.points = append(t.points, *p)
	}
	return nil
}

// at is what was known of the SA at a snapshot, and whether anything was.
func (t *track) at(snap int) (point, bool) {
	i, found := slices.BinarySearchFunc(t.points, snap, func(p point, snap int) int { return p.snap - snap })
	if !found {
		i--
	}
	if i < 0 {
		return point{}, false
	}
	return t.points[i], true
}

// packets is what passed on the wire in all.
func (t *track) packets() int64 {
	if t.seen != nil {
		return int64(t.seen.packets)
	}
	if n := len(t.points); n > 0 {
		return int64(t.points[n-1].packets)
	}
	return 0
}

// restarted says whether the sequence began anew while it was watched.
func (t *track) restarted() bool {
	for i, p := range t.points {
		if i > 0 && t.points[i-1].wire && p.restarts != t.points[i-1].restarts {
			return true
		}
	}
	return t.reused
}

// span is the first and the last number that this end knows of as a sender's or a receiver's.
func (t *track) span() (first, last uint64, ok bool) {
	if t.seen != nil {
		return t.seen.first(), t.seen.last(), len(t.seen.sorted) > 0
	}
	for _, p := range t.points {
		if n := max(p.oseq, p.highest, p.seq); n > 0 {
			if !ok {
				first, ok = n, true
			}
			last = max(last, n)
		}
	}
	return first, last, ok
}

// numbers are the packets of one SA in a capture.
type numbers struct {
	sorted  []uint64 // each once
	copies  []uint64 // the further ones, sorted
	packets int
}

func count(marks []mark) *numbers {
	all := make([]uint64, len(marks))
	for i, m := range marks {
		all[i] = m.seq
	}
	slices.Sort(all)
	n := &numbers{packets: len(all)}
	for i, seq := range all {
		if i > 0 && all[i-1] == seq {
			n.copies = append(n.copies, seq)
		} else {
			n.sorted = append(n.sorted, seq)
		}
	}
	return n
}

func (n *numbers) first() uint64 { return n.sorted[0] }
func (n *numbers) last() uint64  { return n.sorted[len(n.sorted)-1] }

// within are those of a sorted list that are beyond after and not beyond last.
func within(sorted []uint64, after, last uint64) []uint64 {
	from, _ := slices.BinarySearch(sorted, after+1)
	to, _ := slices.BinarySearch(sorted, last+1)
	return sorted[from:max(from, to)]
}

// missing counts numbers of one sorted list that another one lacks.
func missing(of, in []uint64) int64 {
	n, j := int64(0), 0
	for _, seq := range of {
		for j < len(in) && in[j] < seq {
			j++
		}
		if j == len(in) || in[j] != seq {
			n++
		}
	}
	return n
}
