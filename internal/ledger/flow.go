// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// FlowsListed is how many flows a report lists for each measure of trouble.
const FlowsListed = 25

// flowsKept bounds how many flows the ledger remembers; the kernel's own table holds 8192.
const flowsKept = 16384

// flowKey is a connection; the ends come in the kernel's order, which does not change.
type flowKey [2]netip.AddrPort

// flow is one connection: the newest reading, and the counters behind it for each end.
type flow struct {
	now   FlowReading
	clock time.Duration
	at    time.Time // wall clock of clock
	ends  [2]track
	conns track
}

// Counters of one end, by index.
const (
	flowPackets = iota
	flowBytes
	flowSegments
	flowRetransmissions
	flowReordered
	flowGaps
	flowSkipped
	flowLimited
	flowProbes
	flowKeepalives
	flowCongested
	flowZeroEpisodes
	flowZeroPackets
	flowEdgeChecked
	flowEdgeHit
	flowZeroNS // the open episode included
	flowCounters
)

func flowCounts(e *FlowEndReading, clock time.Duration) counts {
	c := make(counts, flowCounters)
	for i, n := range []uint64{
		e.Packets, e.PayloadBytes, e.Segments, e.Retransmissions, e.Reordered, e.Gaps, e.Skipped, e.Limited, e.Probes,
		e.Keepalives, e.Congested, e.ZeroEpisodes, e.ZeroPackets, e.EdgeChecked, e.EdgeHit,
	} {
		c[i] = int64(n)
	}
	c[flowZeroNS] = int64(e.ZeroTotal + e.zeroOpen(clock))
	return c
}

// zeroOpen is how long the window has been zero that is so now.
func (e *FlowEndReading) zeroOpen(clock time.Duration) time.Duration {
	if e.ZeroSince == 0 {
		return 0
	}
	return max(0, clock-e.ZeroSince)
}

func (l *Ledger) observeFlows(s Snapshot, baseline bool) {
	t := s.Flows
	if t == nil {
		return
	}
	l.flowsSeen = true
	l.fates.observe(t.Fates, baseline)
	if baseline {
		l.flowsBefore = int64(len(t.Flows))
	}
	for _, r := range t.Flows {
		key := flowKey{r.Ends[0].Addr, r.Ends[1].Addr}
		f := l.flows[key]
		anew := f != nil && f.now.Opened != r.Opened
		if f == nil {
			f = &flow{}
			l.flows[key] = f
		}
		if f.now.Opened == 0 || anew {
			l.flowsMet++
		}
		for i := range f.ends {
			now := flowCounts(&r.Ends[i], t.Clock)
			switch {
			case f.now.Opened == 0 && baseline:
				f.ends[i].start(now, now)
			case f.now.Opened == 0:
				f.ends[i].start(now, nil)
			case anew:
				f.ends[i].restart(now)
			}
			f.ends[i].last = now
		}
		conns := counts{int64(r.Connections)}
		switch {
		case f.now.Opened == 0 && baseline:
			f.conns.start(conns, conns)
		case f.now.Opened == 0:
			f.conns.start(conns, nil)
		case anew:
			f.conns.restart(conns)
		}
		f.conns.last = conns
		f.now, f.clock, f.at = r, t.Clock, s.At
	}
	l.forgetFlows()
}

// forgetFlows lets go of the flows that were silent longest, when there are too many.
func (l *Ledger) forgetFlows() {
	if len(l.flows) <= flowsKept {
		return
	}
	keys := make([]flowKey, 0, len(l.flows))
	for k := range l.flows {
		keys = append(keys, k)
	}
	last := func(k flowKey) time.Duration {
		return max(l.flows[k].now.Ends[0].Last, l.flows[k].now.Ends[1].Last)
	}
	slices.SortFunc(keys, func(a, b flowKey) int { return cmp.Compare(last(a), last(b)) })
	for _, k := range keys[:len(keys)-flowsKept] {
		l.flowsPast.add(l.flows[k])
		delete(l.flows, k)
	}
}

// flowReport draws up what is worth a place in the report.
func (l *Ledger) flowReport() *Flows {
	if !l.flowsSeen {
		return nil
	}
	fates := l.fates.total()
	opened := fates["opened"]
	delete(fates, "opened")
	out := &Flows{Packets: fates, List: []Flow{}, Sums: l.flowSums()}
	var all []Flow
	for _, f := range l.flows {
		r := f.report()
		if r.Ends[0].Packets+r.Ends[1].Packets > 0 {
			all = append(all, r)
		}
	}
	// What was opened and was in no reading was thrown out of the kernel's table before.
	out.Seen = max(int64(len(all)), opened)
	out.Forgotten = max(0, opened+l.flowsBefore-l.flowsMet)
	picked := map[flowKey]bool{}
	for _, measure := range []func(*Flow) int64{
		func(f *Flow) int64 { return f.Ends[0].Zero.TotalUS + f.Ends[1].Zero.TotalUS },
		func(f *Flow) int64 { return f.Ends[0].Retransmissions + f.Ends[1].Retransmissions },
		func(f *Flow) int64 {
			return f.Ends[0].Limited + f.Ends[1].Limited + f.Ends[0].EdgeHit + f.Ends[1].EdgeHit
		},
		func(f *Flow) int64 { return f.Ends[0].smoothedMax() + f.Ends[1].smoothedMax() },
		func(f *Flow) int64 { return f.Ends[0].PayloadBytes + f.Ends[1].PayloadBytes },
		(*Flow).unanswered,
	} {
		slices.SortFunc(all, func(a, b Flow) int {
			return cmp.Or(cmp.Compare(measure(&b), measure(&a)), compareFlows(&a, &b))
		})
		for i := range min(len(all), FlowsListed) {
			if measure(&all[i]) == 0 {
				break
			}
			if key := all[i].key(); !picked[key] {
				picked[key] = true
				out.List = append(out.List, all[i])
			}
		}
	}
	return out
}

func (f *Flow) key() flowKey {
	return flowKey{
		netip.AddrPortFrom(f.Ends[0].Addr, f.Ends[0].Port),
		netip.AddrPortFrom(f.Ends[1].Addr, f.Ends[1].Port),
	}
}

// unanswered is what one end sent where the other sent nothing.
func (f *Flow) unanswered() int64 {
	if min(f.Ends[0].Packets, f.Ends[1].Packets) > 0 {
		return 0
	}
	return max(f.Ends[0].Packets, f.Ends[1].Packets)
}

func compareFlows(a, b *Flow) int {
	x, y := a.key(), b.key()
	return cmp.Or(x[0].Compare(y[0]), x[1].Compare(y[1]))
}

func (e *FlowEnd) smoothedMax() (us int64) {
	for _, r := range []*FlowRTT{e.RTT, e.Back} {
		if r != nil {
			us = max(us, r.SmoothedMaxUS)
		}
	}
	return us
}

func (f *flow) report() Flow {
	out := Flow{Connections: max(1, f.conns.total()[0])}
	for i := range out.Ends {
		out.Ends[i] = f.end(i)
	}
	a, b := &f.now.Ends[0], &f.now.Ends[1]
	out.Closed = a.RST || b.RST || a.FIN && b.FIN
	return out
}

func (f *flow) end(i int) FlowEnd {
	r, c := &f.now.Ends[i], f.ends[i].total()
	e := FlowEnd{
		Addr: r.Addr.Addr(), Port: r.Addr.Port(), Local: r.Local,
		Packets: c[flowPackets], PayloadBytes: c[flowBytes], Segments: c[flowSegments],
		Retransmissions: c[flowRetransmissions], Reordered: c[flowReordered], Gaps: c[flowGaps], Skipped: c[flowSkipped],
		Limited: c[flowLimited], Probes: c[flowProbes], Keepalives: c[flowKeepalives], Congested: c[flowCongested],
		EdgeChecked: c[flowEdgeChecked], EdgeHit: c[flowEdgeHit],
		SegmentMax: int64(r.SegmentMax), InFlightMax: int64(r.InFlightMax), ActiveUS: (r.Last - r.First).Microseconds(),
		Zero: ZeroWindow{
			Episodes: c[flowZeroEpisodes], Packets: c[flowZeroPackets], TotalUS: c[flowZeroNS] / 1000,
			OpenUS: r.zeroOpen(f.clock).Microseconds(), Newest: []ZeroEpisode{},
		},
	}
	if r.SA != (SAKey{}) {
		e.SA = &FlowSA{SPI: r.SA.SPI, Dst: r.SA.Dst, Proto: r.SA.Proto, Direction: r.SA.Direction, ReqID: r.ReqID}
	}
	if r.WindowSeen {
		e.Window = &FlowWindow{Last: int64(r.Window), Min: int64(r.WindowMin), Max: int64(r.WindowMax)}
		if r.Scale != nil {
			e.Window.Scale = new(int(*r.Scale))
		}
	}
	if e.Zero.TotalUS > 0 || e.Zero.Episodes > 0 {
		e.Zero.LongestUS = max(r.ZeroLongest.Microseconds(), e.Zero.OpenUS)
		for _, z := range r.Zeros {
			lasted := z.Lasted
			if lasted == 0 {
				lasted = f.clock - z.Start
			}
			e.Zero.Newest = append(e.Zero.Newest, ZeroEpisode{
				Start: f.at.Add(z.Start - f.clock).Round(0).UTC(), LastedUS: lasted.Microseconds(),
			})
		}
	}
	e.RTT, e.Back = r.RTT.report(), r.Back.report()
	return e
}

func (r *RTTReading) report() *FlowRTT {
	n := int64(r.Samples)
	if n == 0 {
		return nil
	}
	return &FlowRTT{
		Samples: n, Steady: int64(r.Steady), MinUS: r.Min.Microseconds(), MeanUS: r.Sum.Microseconds() / n,
		EarlyUS: r.Early.Microseconds() / min(n, RTTEarly), MaxUS: r.Max.Microseconds(),
		SmoothedUS: r.Smoothed.Microseconds(), SmoothedMaxUS: r.SmoothedMax.Microseconds(),
	}
}
