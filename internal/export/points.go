// SPDX-License-Identifier: Apache-2.0

package export

import (
	"net/netip"
	"strconv"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// Points turns samples into points. It remembers what counters have shown, and which tunnels have series of
// their own. It is not safe for concurrent use.
type Points struct {
	opts    Options
	tunnels shelf[Tunnel]
	sets    shelf[string]
	bound   *bound[Tunnel]
	ended   map[Tunnel]bool                     // that have no series any more
	shared  map[ledger.TunnelKey]*ledger.Tunnel // of the sample before, without series of their own
	gone    map[ledger.Direction]*side          // what such have counted that the totals have forgotten
	drops   *bound[ledger.DropKey]
	names   map[string]*Metric // of counters of the kernel
	taken   uint64
	failed  uint64

	now    time.Time
	out    []Point
	places map[Tunnel]Tunnel // where the figures of each tunnel of this sample go
}

// Tunnel is what the series of a tunnel go by.
type Tunnel struct {
	Local, Peer netip.Addr
	ReqID       uint32
	Direction   ledger.Direction

	shares bool // has no series of its own
}

// NewPoints begins to count.
func NewPoints(o Options) *Points {
	if o.MaxTunnels == 0 {
		o.MaxTunnels = DefaultMaxTunnels
	}
	if o.MaxDrops == 0 {
		o.MaxDrops = DefaultMaxDrops
	}
	p := &Points{
		opts: o, tunnels: shelf[Tunnel]{}, sets: shelf[string]{}, names: map[string]*Metric{},
		places: map[Tunnel]Tunnel{},
		bound:  newBound[Tunnel](2 * o.MaxTunnels), drops: newBound[ledger.DropKey](o.MaxDrops), ended: map[Tunnel]bool{},
		gone: map[ledger.Direction]*side{},
	}
	for _, m := range kernelStats() {
		p.names[m.Name] = m
	}
	return p
}

// Of gives the points of a sample. The slice is the caller's, the labels are not to be changed.
func (p *Points) Of(s Sample) []Point {
	p.now = s.At
	p.out = make([]Point, 0, len(p.out)+64)
	p.taken++
	p.add(mUp, 1)
	p.settle(&s.Totals)
	p.ledger(&s.Totals)
	p.breakdown(&s.Totals)
	p.infos(&s.Report)
	p.paths(&s.Report)
	p.ike(s.IKE)
	p.findings(s.Findings)
	for name, n := range s.XfrmStat {
		p.add(p.kernelStat(name), float64(n))
	}
	p.self(&s)
	p.bound.forget(p.now)
	p.drops.forget(p.now)
	p.tunnels.forget(p.now)
	p.sets.forget(p.now)
	return p.out
}

// Failed gives what can be said when no snapshot could be taken.
func (p *Points) Failed(at time.Time) []Point {
	p.now, p.out = at, nil
	p.failed++
	p.add(mUp, 0)
	p.add(mBuild, 1, p.opts.Version, p.opts.GoVersion)
	p.add(mSnapshots, float64(p.taken))
	p.add(mFailed, float64(p.failed))
	return p.out
}

// put adds a point. A counter never goes back.
func (p *Points) put(m *Metric, l *Labels, v float64) {
	if m.Kind == Counter {
		v = l.rise(m, v)
	}
	p.out = append(p.out, Point{m, l, v})
}

// add puts a point with labels of its own.
func (p *Points) add(m *Metric, v float64, values ...string) {
	p.put(m, p.sets.get(m.Name+"\xff"+joined(values), p.now, func() []string { return values }), v)
}

// tunnelOf leaves out the interface id of a tunnel: its SAs' series say it.
func tunnelOf(k ledger.TunnelKey) Tunnel {
	return Tunnel{Local: k.Local, Peer: k.Remote, ReqID: k.ReqID, Direction: k.Direction}
}

func (t Tunnel) values() []string {
	if t.shares {
		return []string{other, other, other, string(t.Direction)}
	}
	return []string{address(t.Local), address(t.Peer), strconv.FormatUint(uint64(t.ReqID), 10), string(t.Direction)}
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.String()
}

func (p *Points) labels(t Tunnel) *Labels {
	return p.tunnels.get(t, p.now, t.values)
}

// more gives the labels of a tunnel and further ones.
func (p *Points) more(m *Metric, t Tunnel, values ...string) *Labels {
	all := append(p.labels(t).Values[:4:4], values...)
	return p.sets.get(m.Name+"\xff"+joined(all), p.now, func() []string { return all })
}

func (p *Points) kernelStat(name string) *Metric {
	m := kernelStat(name)
	if known := p.names[m.Name]; known != nil {
		return known
	}
	p.names[m.Name] = m
	return m
}

func (p *Points) findings(all []verdict.Finding) {
	active := map[string]float64{}
	for _, f := range all {
		active[string(f.ID)+"\xff"+string(f.Severity)]++
	}
	for _, k := range verdict.Catalogue() {
		for _, s := range []verdict.Severity{verdict.Critical, verdict.Warning, verdict.Info} {
			p.add(mFinding, active[string(k.ID)+"\xff"+string(s)], string(k.ID), string(s))
		}
	}
}

func (p *Points) self(s *Sample) {
	r := &s.Totals.Self
	p.add(mBuild, 1, p.opts.Version, p.opts.GoVersion)
	for _, h := range s.Report.Hooks {
		p.add(mHook, truth(h.Attached), h.Name)
	}
	for _, cause := range p.opts.Lost {
		p.add(mLost, float64(r.Lost[cause]), cause)
	}
	p.add(mEvicted, float64(r.Evicted))
	p.add(mMisses, float64(r.RecursionMisses))
	p.add(mOverflow, float64(len(p.bound.over)))
	for _, g := range s.Programs {
		p.add(mRuns, float64(g.Runs), g.Name)
		p.add(mRunTime, g.Seconds, g.Name)
	}
	for name, n := range s.MapBytes {
		p.add(mMapBytes, float64(n), name)
	}
	for t, n := range s.Triggers {
		p.add(mTriggers, float64(n), t.Action, t.Result)
	}
	p.add(mSnapshots, float64(p.taken))
	p.add(mFailed, float64(p.failed))
	p.add(mTook, s.Took.Seconds())
	p.add(mAge, float64(s.At.UnixMilli())/1000)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
