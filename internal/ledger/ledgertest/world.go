// SPDX-License-Identifier: Apache-2.0

// Package ledgertest makes up a host with security associations, lets things happen to exact numbers
// of packets, and takes the snapshots that the real sources would have taken. Tests of the ledger and
// of everything behind it share it.
package ledgertest

import (
	"cmp"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
)

// Here and Peer are the addresses of both ends.
var (
	Here = netip.MustParseAddr("192.0.2.2")
	Peer = netip.MustParseAddr("192.0.2.1")
)

// Start is when every world begins.
var Start = time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)

// World is a host. Blind* switch a source off, as a kernel without it would.
type World struct {
	BlindWire, BlindStack, BlindDrops, BlindSAD, BlindStat bool // BlindStack takes the drops as well

	Flows   *ledger.FlowTable // nil: not observed; see Talk
	Self    ledger.Self
	Residue map[string]uint64
	Stat    map[string]uint64
	Host    *ledger.Host // nil: not looked at
	Hooks   []ledger.Hook
	Latency *ledger.LatencyTable
	NAT     *ledger.NATReading // nil: not observed

	PMTU *ledger.PMTUInput // nil: not observed

	Policies      []ledger.Policy
	PolicyDefault *ledger.PolicyDefault
	Clamps        []ledger.MSSClamp

	now      time.Time
	sas      []*SA
	ended    []ledger.EndedSA
	lone     map[ledger.Cause]uint64 // drops without an SA
	drops    map[ledger.DropID]uint64
	refusals []ledger.Refusal
	ike      *ike.Tracker // nil: not observed

	Packets map[ledger.Direction]map[string]uint64 // classes; nil: not observed
	Asides  map[ledger.Direction]map[string]uint64 // with Packets
	Names   []ledger.SAName                        // what an IKE daemon calls the SAs
}

// SA is one association of the world, on the wire and in the kernel.
type SA struct {
	Key     ledger.SAKey
	Wire    ledger.WireSA
	Entry   ledger.SADEntry
	Causes  map[ledger.Cause]uint64
	Unknown uint64

	world    *World
	alive    bool
	lateMax  uint64
	lateHist []uint64
	lag      uint64 // packets that arrived after the SAD was dumped
}

// New makes an empty world.
func New() *World {
	return &World{now: Start, Stat: map[string]uint64{}, Residue: map[string]uint64{}, lone: map[ledger.Cause]uint64{}, drops: map[ledger.DropID]uint64{}}
}

// Tick lets time pass.
func (w *World) Tick(d time.Duration) { w.now = w.now.Add(d) }

// Mono is the world's time by the clock of what the kernel programs write down.
func (w *World) Mono() time.Duration { return w.mono() }

func (w *World) nat() *ledger.NATReading {
	if w.NAT == nil {
		return nil
	}
	n := *w.NAT
	n.Keepalives, n.Peers, n.Mappings = slices.Clone(n.Keepalives), slices.Clone(n.Peers), slices.Clone(n.Mappings)
	return &n
}

// Now is the world's time.
func (w *World) Now() time.Time { return w.now }

// Inbound adds an SA of the peer towards here.
func (w *World) Inbound(spi ledger.SPI, window uint32, esn bool) *SA {
	sa := w.add(spi, ledger.In, Peer, Here)
	sa.Entry.ReplayWindow, sa.Entry.ESN = window, esn
	return sa
}

// Outbound adds an SA from here towards the peer.
func (w *World) Outbound(spi ledger.SPI) *SA { return w.add(spi, ledger.Out, Here, Peer) }

// Foreign is ESP on the wire that no SA of this host goes with.
func (w *World) Foreign(spi ledger.SPI) *SA {
	sa := w.add(spi, ledger.In, Peer, Here)
	sa.alive = false
	return sa
}

func (w *World) add(spi ledger.SPI, dir ledger.Direction, src, dst netip.Addr) *SA {
	key := ledger.SAKey{Dst: dst, SPI: spi, Proto: ledger.ESP, Direction: dir}
	sa := &SA{
		Key: key, world: w, alive: true,
		Causes:   map[ledger.Cause]uint64{},
		lateHist: make([]uint64, 16),
		Wire: ledger.WireSA{
			Key: key, Src: src, Encap: ledger.EncapNone, Ifindex: 3, FirstSeq: 1,
			ExtentHist: make([]uint64, 16), DisplacementHist: make([]uint64, 16),
		},
		Entry: ledger.SADEntry{
			Key: key, Src: src, Mode: "tunnel", ReqID: 1, Encap: ledger.EncapNone, Added: w.now,
			Algorithms: []ledger.Algorithm{{Kind: "aead", Name: "rfc4106(gcm(aes))", KeyBits: 160, ICVBits: 128}},
		},
	}
	w.sas = append(w.sas, sa)
	return sa
}

// arrive puts packets on the wire as it counts them.
func (s *SA) arrive(n uint64) {
	if s.Wire.LastSeen = s.world.mono(); s.Wire.Created == 0 {
		s.Wire.Created = s.Wire.LastSeen
	}
	s.Wire.Packets += n
	s.Wire.Bytes += n * 1400
}

func (s *SA) fresh(n uint64) {
	s.arrive(n)
	s.Wire.Unique += n
	s.Wire.Span += n
	s.Wire.HighestSeq += n
}

// Deliver lets n packets arrive in order and be decapsulated.
func (s *SA) Deliver(n uint64) { s.fresh(n); s.decap(n) }

func (s *SA) decap(n uint64) {
	s.Entry.Packets += n
	s.Entry.Bytes += n * 1300
	if s.Entry.ReplayWindow > 0 {
		s.Entry.Seq = s.Wire.HighestSeq
	}
}

// Lose takes n packets from the path and says whether the wire can know: what was lost before the
// first packet that came leaves no gap.
func (s *SA) Lose(n uint64) bool {
	s.Wire.HighestSeq += n
	if s.Wire.Packets == 0 {
		s.Wire.FirstSeq += n
		return false
	}
	s.Wire.Span += n
	s.Wire.Missing += n
	s.Wire.GapEvents++
	return true
}

// Pend is Lose for packets that may still come.
func (s *SA) Pend(n uint64) {
	if s.Lose(n) {
		s.Wire.Pending += n
	}
}

// Repeat lets n numbers arrive again, distance below the highest.
func (s *SA) Repeat(n, distance uint64) {
	s.arrive(n)
	s.Wire.Duplicates += n
	switch {
	case s.Entry.ReplayWindow == 0:
		s.decap(n)
	case distance < uint64(s.Entry.ReplayWindow):
		s.Entry.ReplayDuplicate += n
		s.drop(ledger.ReplayDuplicate, n)
	default:
		s.tooLate(n, distance)
	}
}

// Reorder delivers n packets displaced by so many numbers: late on the wire, and refused by xfrm
// where the replay window does not reach that far.
func (s *SA) Reorder(n, displacement uint64) {
	s.fresh(n)
	s.Wire.Late += n
	s.Wire.DisplacementMax = max(s.Wire.DisplacementMax, displacement)
	s.Wire.ExtentMax = max(s.Wire.ExtentMax, displacement)
	s.Wire.DisplacementHist[bucket(displacement)] += n
	s.Wire.ExtentHist[bucket(displacement)] += n
	if s.Entry.ReplayWindow == 0 || displacement < uint64(s.Entry.ReplayWindow) {
		s.decap(n)
		return
	}
	s.tooLate(n, displacement)
}

// ReorderInside is Reorder behind the wire hook: the wire saw them in order.
func (s *SA) ReorderInside(n, displacement uint64) { s.fresh(n); s.tooLate(n, displacement) }

func (s *SA) tooLate(n, distance uint64) {
	s.lateMax = max(s.lateMax, distance)
	s.lateHist[bucket(distance)] += n
	if s.Entry.ESN {
		s.Entry.IntegrityFailed += n
		s.drop(ledger.ESNMisEpoch, n)
		return
	}
	s.Entry.ReplayLate += n
	s.drop(ledger.ReplayLate, n)
}

func bucket(v uint64) int { return min(bits.Len64(max(v, 1))-1, 15) }

// Corrupt lets n packets arrive damaged.
func (s *SA) Corrupt(n uint64) {
	s.fresh(n)
	s.Entry.IntegrityFailed += n
	s.drop(ledger.IntegrityFailed, n)
}

// RepeatInside doubles n packets behind the wire hook.
func (s *SA) RepeatInside(n uint64) {
	s.Entry.ReplayDuplicate += n
	s.drop(ledger.ReplayDuplicate, n)
}

// Restart begins the sender's numbers anew and sends n packets whose old numbers xfrm refuses.
func (s *SA) Restart(n, distance uint64) {
	s.Wire.Restarts++
	s.fresh(n)
	s.tooLate(n, distance)
}

// Blur lets the hooks take all replay drops for one kind.
func (s *SA) Blur() {
	s.Causes[ledger.ReplayUnspecified] += s.Causes[ledger.ReplayLate] + s.Causes[ledger.ReplayDuplicate]
	delete(s.Causes, ledger.ReplayLate)
	delete(s.Causes, ledger.ReplayDuplicate)
	s.lateMax = 0
}

// Stray lets n packets arrive so far below the highest number that the wire cannot sort them.
func (s *SA) Stray(n, distance uint64) {
	s.arrive(n)
	s.Wire.Stale += n
	s.tooLate(n, distance)
}

// Refuse lets n packets arrive and be dropped for a cause that the SA itself does not count.
func (s *SA) Refuse(n uint64, c ledger.Cause) { s.fresh(n); s.drop(c, n) }

// Knock lets n packets arrive while there is no SA.
func (s *SA) Knock(n uint64) {
	s.fresh(n)
	s.Unknown += n
	s.world.Stat["XfrmInNoStates"] += n
}

// Block drops n packets by policy after they were decapsulated.
func (s *SA) Block(n uint64, c ledger.Cause) { s.Deliver(n); s.drop(c, n) }

// Vanish lets n packets reach the wire hook and nothing after it.
func (s *SA) Vanish(n uint64) { s.fresh(n) }

// DropAt is what a drop of this SA's packets looks like at a place.
func (s *SA) DropAt(stage ledger.DropStage, function, reason string) ledger.DropID {
	id := ledger.DropID{Stage: stage, Key: s.Key, Src: s.Wire.Src, Function: function, Reason: reason, Ifindex: s.Wire.Ifindex}
	if stage == ledger.AfterDecap {
		id.ReqID, id.IfID = s.Entry.ReqID, s.Entry.IfID
	}
	return id
}

// Discard counts n packets as freed by the kernel, and nothing else.
func (w *World) Discard(n uint64, id ledger.DropID) { w.drops[id] += n }

// Stop lets n packets pass the wire hook and be dropped before xfrm.
func (s *SA) Stop(n uint64, function, reason, hook string) {
	s.fresh(n)
	id := s.DropAt(ledger.BeforeXfrm, function, reason)
	id.Hook = hook
	s.world.Discard(n, id)
}

// Swallow decapsulates n packets that are dropped afterwards.
func (s *SA) Swallow(n uint64, function, reason, hook string) {
	s.Deliver(n)
	id := s.DropAt(ledger.AfterDecap, function, reason)
	id.Hook = hook
	s.world.Discard(n, id)
}

// Withhold numbers n packets that are dropped before the egress wire hook.
func (s *SA) Withhold(n uint64, function, reason, hook string) {
	s.Number(n)
	id := s.DropAt(ledger.AtEgress, function, reason)
	id.Hook = hook
	s.world.Discard(n, id)
}

// Spill lets n packets pass the egress wire hook and be dropped by the queue behind it.
func (s *SA) Spill(n uint64, function, reason string) {
	s.Send(n)
	s.world.Discard(n, s.DropAt(ledger.AtEgress, function, reason))
}

// Unseen lets xfrm decapsulate n packets that no wire hook saw.
func (s *SA) Unseen(n uint64) { s.decap(n) }

// Lag lets n packets arrive between the dump of the SAD and the second reading of the wire.
func (s *SA) Lag(n uint64) { s.fresh(n); s.lag += n }

// CatchUp decapsulates what lagged.
func (s *SA) CatchUp() { s.decap(s.lag); s.lag = 0 }

// Send numbers n packets and puts them on the wire.
func (s *SA) Send(n uint64) { s.Number(n); s.fresh(n) }

// Number assigns n sequence numbers to packets that never reach the wire.
func (s *SA) Number(n uint64) {
	s.Entry.OSeq += n
	s.Entry.Packets += n
	s.Entry.Bytes += n * 1300
}

// Drop counts n packets as dropped without their having arrived: outbound.
func (s *SA) Drop(n uint64, c ledger.Cause) { s.drop(c, n) }

func (s *SA) drop(c ledger.Cause, n uint64) {
	s.Causes[c] += n
	s.world.Stat[c.Counter()] += n
}

// DropLone drops n packets that belong to no SA.
func (w *World) DropLone(n uint64, c ledger.Cause) { w.lone[c] += n; w.Stat[c.Counter()] += n }

// End removes the SA from the database.
func (s *SA) End(why ledger.EndReason) {
	s.alive = false
	s.world.ended = append(s.world.ended, ledger.EndedSA{Last: s.Entry, At: s.world.now, Why: why})
}

// Renew adds the SA again under its key, with fresh counters.
func (s *SA) Renew() {
	s.alive = true
	s.Entry.Added = s.world.now
	s.Entry.Packets, s.Entry.Bytes, s.Entry.OSeq, s.Entry.Seq = 0, 0, 0, 0
	s.Entry.ReplayLate, s.Entry.ReplayDuplicate, s.Entry.IntegrityFailed = 0, 0, 0
}

// Snapshot is what the sources say now.
func (w *World) Snapshot() ledger.Snapshot {
	s := ledger.Snapshot{At: w.now, Mono: w.mono(), NAT: w.nat(), IKE: w.account(), Names: w.Names, Self: w.Self, Residue: maps.Clone(w.Residue)}
	if !w.BlindStat {
		s.XfrmStat = maps.Clone(w.Stat)
	}
	s.Host, s.Latency = cloneHost(w.Host), w.Latency
	s.PMTU = clonePMTU(w.PMTU)
	w.policies(&s)
	if !w.BlindSAD {
		s.SAD, s.Ended = []ledger.SADEntry{}, w.ended
	}
	s.Flows = w.flows()
	w.ended = nil
	if w.Packets != nil {
		s.Packets = &ledger.WireTotals{Classes: cloneClasses(w.Packets), Asides: cloneClasses(w.Asides)}
	}
	if !w.BlindWire {
		s.Wire = []ledger.WireSA{}
	}
	if !w.BlindStack {
		s.Stack, s.Unknown = []ledger.StackSA{}, []ledger.UnknownSPI{}
	}
	for _, sa := range slices.SortedFunc(slices.Values(w.sas), func(a, b *SA) int { return cmp.Compare(a.Key.SPI, b.Key.SPI) }) {
		if !w.BlindWire && sa.Wire.Packets > 0 {
			wire := sa.Wire
			wire.PacketsBefore = wire.Packets - sa.lag
			wire.ExtentHist, wire.DisplacementHist = slices.Clone(wire.ExtentHist), slices.Clone(wire.DisplacementHist)
			s.Wire = append(s.Wire, wire)
		}
		if !w.BlindSAD && sa.alive {
			s.SAD = append(s.SAD, sa.Entry)
		}
		if w.BlindStack {
			continue
		}
		if len(sa.Causes) > 0 {
			s.Stack = append(s.Stack, ledger.StackSA{
				Key: sa.Key, ReqID: sa.Entry.ReqID, IfID: sa.Entry.IfID, Causes: maps.Clone(sa.Causes),
				LateMax: sa.lateMax, LateHist: slices.Clone(sa.lateHist),
			})
		}
		if sa.Unknown > 0 {
			s.Unknown = append(s.Unknown, ledger.UnknownSPI{Key: sa.Key, Packets: sa.Unknown})
		}
	}
	if !w.BlindStack && !w.BlindDrops {
		s.HostDrops = []ledger.HostDrop{}
		for id, n := range w.drops {
			s.HostDrops = append(s.HostDrops, ledger.HostDrop{DropID: id, Packets: n})
		}
	}
	if !w.BlindStack && len(w.lone) > 0 {
		s.Stack = append(s.Stack, ledger.StackSA{Causes: maps.Clone(w.lone)})
	}
	return s
}

// Run takes a snapshot, lets things happen, takes another thirty seconds later and reports.
func (w *World) Run(happen func()) ledger.Report {
	l := ledger.New(ledger.Source{Kind: ledger.KindLive, Kernel: "6.1.0-test", Netns: "gateway"})
	l.SetHooks(w.Hooks)
	l.Observe(w.Snapshot())
	happen()
	w.Tick(30 * time.Second)
	l.Observe(w.Snapshot())
	return l.Report()
}
