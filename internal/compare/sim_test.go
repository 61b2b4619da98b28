// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// fate is what becomes of a packet.
type fate int

const (
	delivered fate = iota
	refused        // by the sender's xfrm, before it had a number
	withheld       // by the sender's firewall, with a number
	lost           // on the path
	stopped        // by the receiver's firewall, before xfrm
	corrupted      // dropped by the receiver's xfrm
	swallowed      // dropped by the receiver after decryption
	twice          // delivered, and its copy dropped
)

// flight is one packet of a simulated tunnel.
type flight struct {
	from  Label
	seq   uint64
	fate  fate
	sent  time.Duration // true time since the start
	delay time.Duration
}

// sim is a tunnel of which everything is known: what it says is the truth that the comparison has to find.
type sim struct {
	flights  []flight
	offset   time.Duration // of B's clock at the start
	drift    float64       // of B's clock
	interval time.Duration
	span     map[Label][2]time.Duration // when each end records
	unmarked bool
	prepare  func(map[Label]*host) // before anything happens; may be nil
	every    uint64
	boot     string
}

func newSim() *sim {
	return &sim{interval: time.Second, every: 16, span: map[Label][2]time.Duration{A: {0, 40 * time.Second}, B: {0, 40 * time.Second}}}
}

// traffic lets one end send n packets from a moment on; pick says what becomes of each.
func (s *sim) traffic(from Label, begin, gap time.Duration, n int, r *rand.Rand, pick func(i int) fate) {
	seq := uint64(0)
	for _, f := range s.flights {
		if f.from == from {
			seq = max(seq, f.seq)
		}
	}
	for i := range n {
		f := flight{from: from, fate: pick(i), sent: begin + time.Duration(i)*gap, delay: 2*time.Millisecond + time.Duration(r.ExpFloat64()*float64(3*time.Millisecond))}
		if f.fate != refused {
			seq++
		}
		f.seq = seq
		s.flights = append(s.flights, f)
	}
}

// clock is what an end's clock shows at a true time.
func (s *sim) clock(l Label, t time.Duration) time.Time {
	if l == B {
		t += s.offset + time.Duration(s.drift*float64(t))
	}
	return ledgertest.Start.Add(t)
}

// host is one end of the simulation.
type host struct {
	label   Label
	world   *ledgertest.World
	in, out *ledgertest.SA
	history []reached // of the inbound highest number
	seen    map[uint64]bool
	snaps   []ledger.Snapshot
	events  []any // snapshots and marks in their order
}

type reached struct {
	at      time.Duration
	highest uint64
}

const (
	spiAtoB = 0xa2b00001
	spiBtoA = 0xb2a00001
)

func newHost(l Label) *host {
	h := &host{label: l, world: ledgertest.New(), seen: map[uint64]bool{}}
	in, out := ledger.SPI(spiBtoA), ledger.SPI(spiAtoB)
	if l == B {
		in, out = out, in
	}
	h.in, h.out = h.world.Inbound(in, 64, false), h.world.Outbound(out)
	return h
}

// mirror gives A's world A's addresses: every world is at the same one.
func (h *host) mirror(a netip.Addr) netip.Addr {
	switch {
	case h.label == A && a == ledgertest.Here:
		return ledgertest.Peer
	case h.label == A && a == ledgertest.Peer:
		return ledgertest.Here
	}
	return a
}

func (h *host) key(k ledger.SAKey) ledger.SAKey {
	k.Dst = h.mirror(k.Dst)
	return k
}

// run plays all packets to both hosts.
func (s *sim) run() map[Label]*host {
	hosts := map[Label]*host{A: newHost(A), B: newHost(B)}
	if s.prepare != nil {
		s.prepare(hosts)
	}
	type happening struct {
		at   time.Duration
		what func()
	}
	var all []happening
	for _, f := range s.flights {
		from, to := hosts[f.from], hosts[f.from.other()]
		all = append(all, happening{f.sent, func() { s.send(from, f) }})
		if f.fate != refused && f.fate != withheld && f.fate != lost {
			all = append(all, happening{f.sent + f.delay, func() { s.receive(to, f) }})
		}
	}
	for _, h := range hosts {
		span := s.span[h.label]
		for at := span[0]; at <= span[1]; at += s.interval {
			all = append(all, happening{at, func() { s.snapshot(h, at) }})
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return cmp.Compare(a.at, b.at) })
	for _, x := range all {
		x.what()
	}
	return hosts
}

func (s *sim) send(h *host, f flight) {
	switch f.fate {
	case refused:
		h.out.Drop(1, ledger.OutPolBlock)
	case withheld:
		h.out.Withhold(1, "nf_hook_slow", "NETFILTER_DROP", "output")
	default:
		h.out.Send(1)
		// The wire knows of numbers that did not reach it.
		gap := f.seq - h.out.Wire.HighestSeq
		h.out.Wire.HighestSeq += gap
		h.out.Wire.Missing += gap
		h.out.Wire.Span += gap
		s.mark(h, f, f.sent, ledger.Out)
	}
}

func (s *sim) receive(h *host, f flight) {
	w := &h.in.Wire
	for i := 0; i < 1 || i < 2 && f.fate == twice; i++ {
		if w.Packets == 0 {
			w.FirstSeq, w.HighestSeq, w.Created = f.seq, f.seq-1, time.Second
		}
		w.Packets++
		switch {
		case h.seen[f.seq]:
			w.Duplicates++
			h.in.Causes[ledger.ReplayDuplicate]++
			continue
		case f.seq > w.HighestSeq:
			w.Span += f.seq - w.HighestSeq
			w.Missing += f.seq - w.HighestSeq - 1
			w.HighestSeq = f.seq
		case f.seq < w.FirstSeq:
		default:
			w.Missing--
			w.Late++
		}
		h.seen[f.seq] = true
		w.Unique++
	}
	h.history = append(h.history, reached{f.sent + f.delay, w.HighestSeq})
	s.mark(h, f, f.sent+f.delay, ledger.In)
	switch f.fate {
	case stopped:
		id := h.in.DropAt(ledger.BeforeXfrm, "nf_hook_slow", "NETFILTER_DROP")
		id.Hook = "input"
		h.world.Discard(1, id)
		return
	case corrupted:
		h.in.Causes[ledger.IntegrityFailed]++
		return
	case swallowed:
		id := h.in.DropAt(ledger.AfterDecap, "nf_hook_slow", "NETFILTER_DROP")
		id.Hook = "forward"
		h.world.Discard(1, id)
	}
	h.in.Entry.Packets++
	h.in.Entry.Seq = max(h.in.Entry.Seq, f.seq)
}

func (s *sim) mark(h *host, f flight, at time.Duration, dir ledger.Direction) {
	span := s.span[h.label]
	if s.unmarked || f.seq%s.every != 0 || at < span[0] || at > span[1] {
		return
	}
	sa := h.in
	if dir == ledger.Out {
		sa = h.out
	}
	m := Mark{Key: h.key(sa.Key), Src: h.mirror(sa.Entry.Src), Seq: uint32(f.seq), At: s.clock(h.label, at)}
	h.events = append(h.events, m)
}

func (s *sim) snapshot(h *host, at time.Duration) {
	// Pending is what is missing above the highest number of a second ago.
	floor := uint64(0)
	for _, x := range h.history {
		if x.at <= at-time.Second {
			floor = x.highest
		}
	}
	pending := uint64(0)
	for n := max(floor, h.in.Wire.FirstSeq) + 1; n <= h.in.Wire.HighestSeq; n++ {
		if !h.seen[n] {
			pending++
		}
	}
	h.in.Wire.Pending = pending
	snap := h.world.Snapshot()
	snap.At, snap.Mono = s.clock(h.label, at), time.Hour+at
	for i := range snap.Wire {
		snap.Wire[i].Key, snap.Wire[i].Src = h.key(snap.Wire[i].Key), h.mirror(snap.Wire[i].Src)
	}
	for i := range snap.SAD {
		snap.SAD[i].Key, snap.SAD[i].Src = h.key(snap.SAD[i].Key), h.mirror(snap.SAD[i].Src)
	}
	for i := range snap.Stack {
		snap.Stack[i].Key = h.key(snap.Stack[i].Key)
	}
	for i := range snap.HostDrops {
		snap.HostDrops[i].Key, snap.HostDrops[i].Src = h.key(snap.HostDrops[i].Key), h.mirror(snap.HostDrops[i].Src)
	}
	h.snaps = append(h.snaps, snap)
	h.events = append(h.events, snap)
}

// side is what a recording of the host is read as.
func (h *host) side(t *testing.T, boot string) *Side {
	t.Helper()
	s, err := Recording(string(h.label)+".xsr", func(v Visitor) (Whole, error) {
		l := ledger.New(ledger.Source{Kind: ledger.KindRecording, Name: "gw-" + string(h.label)})
		for _, e := range h.events {
			switch e := e.(type) {
			case Mark:
				if v.Mark != nil {
					if err := v.Mark(e); err != nil {
						return Whole{}, err
					}
				}
			case ledger.Snapshot:
				l.Observe(e)
				if v.Snapshot != nil {
					if err := v.Snapshot(e, l); err != nil {
						return Whole{}, err
					}
				}
			}
		}
		return Whole{Report: l.Report(), Boot: boot}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// captured is what a capture on the host's wire is read as.
func (s *sim) captured(t *testing.T, l Label) *Side {
	t.Helper()
	type sighting struct {
		at time.Duration
		m  Mark
	}
	var all []sighting
	span := s.span[l]
	for _, f := range s.flights {
		if f.fate == refused || f.fate == withheld {
			continue
		}
		at := f.sent
		if f.from != l {
			if f.fate == lost {
				continue
			}
			at += f.delay
		}
		if at < span[0] || at > span[1] {
			continue
		}
		k := ledger.SAKey{Dst: ledgertest.Here, SPI: spiAtoB, Proto: ledger.ESP, Direction: ledger.Unknown}
		src := ledgertest.Peer
		if f.from == B {
			k.Dst, k.SPI, src = ledgertest.Peer, spiBtoA, ledgertest.Here
		}
		m := Mark{Key: k, Src: src, Seq: uint32(f.seq), At: s.clock(l, at)}
		all = append(all, sighting{at, m})
		if f.fate == twice && f.from != l {
			all = append(all, sighting{at, m})
		}
	}
	slices.SortStableFunc(all, func(a, b sighting) int { return cmp.Compare(a.at, b.at) })
	side, err := Capture(string(l)+".pcap", func(take func(Mark) error) (Whole, error) {
		for _, x := range all {
			if err := take(x.m); err != nil {
				return Whole{}, err
			}
		}
		return Whole{Report: ledger.New(ledger.Source{Kind: ledger.KindCapture, Name: string(l) + ".pcap"}).Report()}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return side
}

// compared joins both ends' recordings.
func (s *sim) compared(t *testing.T) *Document {
	t.Helper()
	hosts := s.run()
	d, err := New(hosts[A].side(t, s.boot), hosts[B].side(t, s.boot))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// truth counts the fates of the numbers of a range.
func (s *sim) truth(from Label, first, last uint64) map[fate]int64 {
	out := map[fate]int64{}
	for _, f := range s.flights {
		if f.from == from && f.fate != refused && f.seq >= first && f.seq <= last {
			out[f.fate]++
		}
	}
	return out
}

func (d *Document) only(t *testing.T, from Label) *SA {
	t.Helper()
	var found *SA
	for i := range d.SAs {
		if d.SAs[i].From == from {
			if found != nil {
				t.Fatalf("several SAs from %s", from)
			}
			found = &d.SAs[i]
		}
	}
	if found == nil {
		t.Fatalf("no SA from %s", from)
	}
	return found
}
