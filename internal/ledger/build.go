// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Report draws up the ledger as of the last snapshot. It changes nothing, so it may be called at any
// time and as often as wanted.
func (l *Ledger) Report() Report {
	r := Report{
		Schema: Schema,
		Source: l.source,
		SAs:    []SA{},
		Hooks:  []Hook{},
		Self:   l.selfReport(),
	}
	if r.Source.Start.IsZero() {
		r.Source.Start = l.first
	}
	if !r.Source.Start.IsZero() {
		r.Source.Start = r.Source.Start.Round(0).UTC()
	}
	if r.Source.DurationS == 0 && l.snapshots > 0 {
		r.Source.DurationS = math.Round(float64(l.duration())/float64(time.Millisecond)) / 1000
	}
	r.Hooks = append(r.Hooks, l.hooks...)

	r.Drops, r.Firewall, r.Clamps = l.dropList(), l.firewallEntries(), l.clamps
	sums := sumDrops(r.Drops)
	rows := l.rows()
	for _, row := range rows {
		row.drops = sums[row.key]
		r.SAs = append(r.SAs, l.build(row))
	}
	r.PMTU = l.pmtuReport(rows)
	r.UnknownSPIs = l.strangers()
	r.Policies, r.PolicyDefault = l.policyEntries(), l.policyDefault
	r.Refusals = l.refusedFlows()
	r.Rekeys = l.rekeys(r.SAs)
	r.IKE = l.ikeReport()
	r.Kernel = l.reconcile(r.SAs)
	if l.packetsSeen {
		r.Packets = &PacketStats{Classes: totals(l.classes), Asides: totals(l.asides)}
	}
	r.Host = l.hostReport(r.SAs)
	l.holdLinks(&r.Kernel)
	r.Flows = l.flowReport()
	r.NAT = l.natReport(r.SAs)
	r.Notes = l.notes(r)
	return r
}

// Select draws up some SAs only, as Report has them: it is cheap where there are many and few are wanted.
func (l *Ledger) Select(wanted func(SAKey) bool) []SA {
	sums := sumDrops(l.dropList())
	out := []SA{}
	for _, row := range l.rows() {
		if wanted(row.key) {
			row.drops = sums[row.key]
			out = append(out, l.build(row))
		}
	}
	return out
}

// duration is how long the run was by the sources' clock, which nobody sets while it runs; a capture has
// only the times of its packets.
func (l *Ledger) duration() time.Duration {
	if l.source.Kind == KindCapture || l.firstMono == 0 || l.mono == 0 {
		return l.last.Sub(l.first)
	}
	return l.mono - l.firstMono
}

// row is one SA with whatever each source has of it.
type row struct {
	key     SAKey
	wire    *wireSA
	sad     *sadView
	stack   *stackSA
	unknown int64
	drops   dropSums
}

// rows joins the sources by key, in the order of the report: inbound, outbound, unknown, then by
// destination and SPI.
func (l *Ledger) rows() []row {
	joined := map[SAKey]*row{}
	at := func(k SAKey) *row {
		if joined[k] == nil {
			joined[k] = &row{key: k}
		}
		return joined[k]
	}
	for k, t := range l.wire {
		at(k).wire = t
	}
	for k, t := range l.stack {
		if k.SPI != 0 {
			at(k).stack = t
		}
	}
	for k, all := range l.byKey() {
		at(l.sadRow(k)).sad = l.view(k, all)
	}
	for k, t := range l.unknown {
		// An SPI that no SA had makes no row of its own: it is a stranger.
		if r := joined[k]; r != nil {
			r.unknown = t.total()[NoState]
		}
	}
	out := make([]row, 0, len(joined))
	for _, r := range joined {
		if !r.stale(l) {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b row) int { return compareKeys(a.key, b.key) })
	return out
}

// stale says whether a row is nothing but what the wire programs still remember of an SA that was over
// before the run began.
func (r *row) stale(l *Ledger) bool {
	return r.sad == nil && r.stack == nil && r.unknown == 0 && l.sadSeen && l.source.Kind != KindCapture &&
		r.wire != nil && r.wire.total()[wirePackets] == 0
}

// sadRow places an SA of the database. One whose direction the database cannot tell (neither
// address is local) belongs to the one direction in which its packets were seen.
func (l *Ledger) sadRow(k SAKey) SAKey {
	if k.Direction != Unknown {
		return k
	}
	in, out := k, k
	in.Direction, out.Direction = In, Out
	seen := func(k SAKey) bool {
		return !l.inSAD(k) && (l.wire[k] != nil || l.stack[k] != nil)
	}
	switch {
	case seen(in) && !seen(out):
		return in
	case seen(out) && !seen(in):
		return out
	}
	return k
}

func compareKeys(a, b SAKey) int {
	return cmp.Or(
		cmp.Compare(place(a.Direction), place(b.Direction)),
		a.Dst.Compare(b.Dst),
		cmp.Compare(a.SPI, b.SPI),
		cmp.Compare(a.Proto, b.Proto),
	)
}

func place(d Direction) int {
	switch d {
	case In:
		return 0
	case Out:
		return 1
	case Unknown:
		return 2
	}
	return 3
}

// build draws up one SA.
func (l *Ledger) build(r row) SA {
	sa := SA{SPI: r.key.SPI, Dst: r.key.Dst, Proto: r.key.Proto, Direction: r.key.Direction, Encap: EncapNone}
	l.identify(&sa, r)
	if r.wire != nil {
		sa.Wire = l.wireReport(r.wire)
		sa.CPUs = r.wire.cpus.total()
	} else if l.watches(r) {
		sa.Wire = &Wire{ReorderHistogram: make([]int64, histBuckets), DisplacementHistogram: make([]int64, histBuckets),
			GapHistogram: make([]int64, histBuckets)}
	}
	if r.sad != nil && !r.sad.unbased {
		t := r.sad.sum
		sa.Own = &Own{
			Packets: t[sadPackets], Bytes: t[sadBytes], OSeq: t[sadOSeq],
			ReplayWindow: t[sadReplayLate], Replay: t[sadReplayDuplicate], IntegrityFailed: t[sadIntegrityFailed],
		}
	}
	sa.Latency = l.latency[r.key].report()
	l.causes(&sa, r)
	if sa.Direction == Out {
		sa.Ledger.Out = l.outbound(&sa, r)
	} else {
		sa.Ledger.In = l.inbound(&sa, r)
	}
	return sa
}

// watches says whether the wire programs would have seen this SA's packets.
func (l *Ledger) watches(r row) bool { return l.wireSeen && r.key.Proto == ESP }

// identify fills in who the SA is.
func (l *Ledger) identify(sa *SA, r row) {
	if w := r.wire; w != nil {
		sa.Src, sa.Encap, sa.Ifindex = w.now.Src, w.now.Encap, w.now.Ifindex
		sa.SrcPort, sa.DstPort = w.now.SrcPort, w.now.DstPort
	}
	if x := r.stack; x != nil {
		sa.ReqID, sa.IfID = x.now.ReqID, x.now.IfID
	}
	if r.sad == nil {
		sa.State = Absent
		if !l.sadSeen {
			sa.State = NotCovered
		}
		return
	}
	e := r.sad.now
	sa.Src, sa.Encap, sa.Mode, sa.ReqID, sa.IfID = e.Src, e.Encap, e.Mode, e.ReqID, e.IfID
	sa.SrcPort, sa.DstPort = e.EncapSrcPort, e.EncapDstPort
	if sa.Encap == "" {
		sa.Encap = EncapNone
	}
	if r.sad.shared > 1 {
		sa.SharedBy = r.sad.shared
	} else if e.MarkMask != 0 {
		sa.Mark = fmt.Sprintf("0x%x/0x%x", e.MarkValue, e.MarkMask)
	}
	sa.ReplayWindow, sa.ESN, sa.Offload = new(e.ReplayWindow), new(e.ESN), e.Offload
	sa.OffloadIfindex = e.OffloadIfindex
	for _, a := range e.Algorithms {
		sa.Algorithms = append(sa.Algorithms, a.Name)
	}
	if !e.Added.IsZero() {
		sa.Added = new(e.Added.Round(0).UTC())
	}
	sa.AddedDuring = r.sad.during
	sa.Seq, sa.OSeq, sa.Lifetimes = e.Seq, e.OSeq, limits(e.Lifetimes)
	sa.Announced, sa.SoftExpired = moment(e.Announced), moment(e.SoftExpired)
	sa.Connection, sa.Child = l.nameOf(sa)
	sa.State = Alive
	if !r.sad.alive {
		sa.State = Gone
	}
	for _, end := range r.sad.endings {
		sa.Endings = append(sa.Endings, Ending{At: end.At.UTC(), Why: end.Why})
	}
}

func (l *Ledger) wireReport(t *wireSA) *Wire {
	c := t.total()
	w := &Wire{
		Packets:               c[wirePackets],
		Bytes:                 c[wireBytes],
		FirstSeq:              t.now.FirstSeq,
		HighestSeq:            t.now.HighestSeq,
		Unique:                c[wireUnique],
		Duplicates:            c[wireDuplicates],
		Late:                  c[wireLate],
		Stale:                 c[wireStale],
		Missing:               c[wireMissing],
		Pending:               c[wirePending],
		ReorderExtentMax:      maxDuring(t.now.ExtentMax, c.extents()),
		ReorderExtentFloor:    c[wireExtentFloor],
		ReorderHistogram:      c.extents(),
		DisplacementMax:       maxDuring(t.now.DisplacementMax, c.displacements()),
		DisplacementHistogram: c.displacements(),
		Restarts:              c[wireRestarts],
		Jumps:                 c[wireJumps],
		Jumped:                c[wireJumped],
		GapEvents:             c[wireGapEvents],
		LateAcrossCPUs:        c[wireLateSpread],
		LargestBytes:          int64(t.now.LargestBytes),
		ECNCE:                 c[wireCE],
		GapHistogram:          c.gaps(),
		GapSpacing:            spread(c[wireSpacings], c[wireSpacingSum], c[wireSpacingSquares]),
		LossyRate:             spread(c[wireLossyIntervals], c[wireLossyRate], c[wireLossyRateSquares]),
		OfferedRate:           spread(c[wireLossyIntervals], c[wireOfferedRate], c[wireOfferedRateSquares]),
		CleanRateMax:          int64(t.now.CleanRateMax),
		Rebinds:               c[wireRebinds],
		Src:                   t.now.Src,
		Encap:                 t.now.Encap,
		SrcPort:               t.now.SrcPort,
		DstPort:               t.now.DstPort,
		LastSeen:              l.when(t.now.LastSeen),
	}
	for d := range 64 {
		if t.now.DSCPs>>d&1 == 1 {
			w.DSCPs = append(w.DSCPs, d)
		}
	}
	if w.Restarts > 0 {
		w.RestartedAt = l.when(t.now.RestartAt)
	}
	if w.Rebinds > 0 {
		w.ReboundAt = l.when(t.now.RebindAt)
		w.ReboundFrom = &Endpoint{t.now.OldSrc, t.now.OldSrcPort, t.now.OldDstPort, t.now.OldEncap}
	}
	return w
}

// when turns a source's own time into the wall clock's; nil where there is none.
func (l *Ledger) when(d time.Duration) *time.Time {
	if d == 0 {
		return nil
	}
	return new(l.last.Add(d - l.mono).Round(0).UTC())
}

// spread sums up values of which number, sum and sum of squares are known; nil where there are none.
func spread(n, sum, squares int64) *Spread {
	if n <= 0 {
		return nil
	}
	mean := float64(sum) / float64(n)
	variance := max(0, float64(squares)/float64(n)-mean*mean)
	return &Spread{Count: n, Mean: math.Round(mean*10) / 10, Deviation: math.Round(math.Sqrt(variance)*10) / 10}
}

// strangers lists the SPIs that nobody had, the loudest first.
func (l *Ledger) strangers() []Stranger {
	if !l.unknownSeen {
		return nil
	}
	out := []Stranger{}
	for k, t := range l.unknown {
		n := t.total()[NoState]
		if n == 0 || l.existed(k) {
			continue
		}
		s := Stranger{SPI: k.SPI, Dst: k.Dst, Proto: k.Proto, Direction: k.Direction, Packets: n}
		if w := l.wire[k]; w != nil {
			s.Src = w.now.Src
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Stranger) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), a.Dst.Compare(b.Dst), cmp.Compare(a.SPI, b.SPI),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Direction, b.Direction))
	})
	return out
}

// existed says whether an SA with this key was in the database at any time during the run.
func (l *Ledger) existed(k SAKey) bool {
	u := k
	u.Direction = Unknown
	return l.inSAD(k) || l.inSAD(u) && l.sadRow(u) == k
}

func totals(by map[Direction]*tally[string]) map[Direction]map[string]int64 {
	out := map[Direction]map[string]int64{}
	for dir, t := range by {
		out[dir] = t.total()
	}
	return out
}

// selfReport states what xfrmscope itself lost.
func (l *Ledger) selfReport() SelfReport {
	s, lost := l.self.total(), l.lost.total()
	return SelfReport{
		EventsLost:       s["events"],
		EventsSuppressed: s["suppressed"],
		TableFull: lost["sa_table_full"] + lost["sa_hash"] + lost["sa_insert"] +
			lost["stack_table_full"] + lost["unknown_table_full"],
		RecursionMisses: s["recursion"],
		Evicted:         s["evicted"],
		Lost:            lost,
		NsPerRun:        l.selfNow.NsPerRun,
		Runs:            l.selfNow.Runs,
		MapBytes:        l.selfNow.MapBytes,
		CPUPercent:      l.selfNow.CPUPercent,
	}
}
