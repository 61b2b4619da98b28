// SPDX-License-Identifier: Apache-2.0

package export

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"xfrmscope/internal/ledger"
)

// side is one direction of a tunnel, or of all those that share one row. A bin that is not observed has no
// series.
type side struct {
	sums   []int64
	seen   []bool
	alive  int
	rekeys int64
	causes map[ledger.Cause]int64
	flows  *ledger.FlowTotals // nil: no TCP was seen inside
}

var allBins = slices.Concat(inboundBins, outboundBins, bothBins)

// settle decides which tunnels have series, and which of these series of their own. One of which no SA has
// lived for long has none any more; its counts stand where they stood when it comes back.
func (p *Points) settle(all *ledger.Totals) {
	clear(p.places)
	ended := map[Tunnel]bool{}
	defer func() { p.ended = ended }()
	for _, u := range all.Sorted() {
		t := tunnelOf(u.TunnelKey)
		last, known := p.bound.known[t]
		switch {
		case u.Alive > 0:
			delete(p.ended, t)
			delete(ended, t)
		case p.ended[t] || known && p.now.Sub(last) > kept:
			ended[t] = true
			continue
		case known:
			p.places[t] = t
			continue
		}
		p.places[t] = t
		if !p.bound.admit(t, p.now) {
			p.places[t] = Tunnel{Direction: t.Direction, shares: true}
		}
	}
}

// ledger puts the bins of every tunnel.
func (p *Points) ledger(all *ledger.Totals) {
	sides := map[Tunnel]*side{}
	for k, u := range p.shared {
		if all.Tunnels[k] == nil {
			s := sideOf(p.gone, k.Direction)
			s.take(u)
			s.alive = 0
		}
	}
	for dir, s := range p.gone {
		sideOf(sides, Tunnel{Direction: dir, shares: true}).add(s)
	}
	p.shared = map[ledger.TunnelKey]*ledger.Tunnel{}
	for k, u := range all.Tunnels {
		t, ok := p.places[tunnelOf(k)]
		if !ok {
			continue
		}
		if t.shares {
			p.shared[k] = u
		}
		sideOf(sides, t).take(u)
	}
	for _, t := range ordered(sides) {
		p.side(t, sides[t])
	}
}

func sideOf[K comparable](sides map[K]*side, key K) *side {
	s := sides[key]
	if s == nil {
		s = &side{sums: make([]int64, len(allBins)), seen: make([]bool, len(allBins))}
		sides[key] = s
	}
	return s
}

// add adds what another has counted.
func (s *side) add(o *side) {
	s.alive += o.alive
	s.rekeys += o.rekeys
	for i := range o.sums {
		s.sums[i] += o.sums[i]
		s.seen[i] = s.seen[i] || o.seen[i]
	}
	s.flow(o.flows)
	s.cause(o.causes)
}

func (s *side) flow(f *ledger.FlowTotals) {
	if f == nil {
		return
	}
	if s.flows == nil {
		s.flows = &ledger.FlowTotals{}
	}
	s.flows.Segments += f.Segments
	s.flows.Retransmissions += f.Retransmissions
	s.flows.ZeroWindowUS += f.ZeroWindowUS
}

func (s *side) cause(causes map[ledger.Cause]int64) {
	for c, n := range causes {
		if s.causes == nil {
			s.causes = map[ledger.Cause]int64{}
		}
		s.causes[c] += n
	}
}

// take adds a tunnel.
func (s *side) take(u *ledger.Tunnel) {
	s.alive += u.Alive
	s.rekeys += u.Rekeys
	for i, b := range allBins {
		if n := b.of(u); n != nil {
			s.sums[i] += *n
			s.seen[i] = true
		}
	}
	s.flow(u.Flows)
	s.cause(u.Xfrm)
}

func (p *Points) side(t Tunnel, s *side) {
	l := p.labels(t)
	for i, b := range allBins {
		if s.seen[i] {
			p.put(b.metric, l, float64(s.sums[i]))
		}
	}
	p.put(mSAs, l, float64(s.alive))
	p.put(mRekeys, l, float64(s.rekeys))
	if f := s.flows; f != nil {
		p.put(mSegments, l, float64(f.Segments))
		p.put(mRetrans, l, float64(f.Retransmissions))
		p.put(mZero, l, float64(f.ZeroWindowUS)/1e6)
	}
	for _, c := range slices.Sorted(maps.Keys(s.causes)) {
		p.put(mXfrmByCause, p.more(mXfrmByCause, t, string(c)), float64(s.causes[c]))
	}
}

// ordered lists the tunnels so that the output is the same each time.
func ordered[V any](m map[Tunnel]V) []Tunnel {
	out := make([]Tunnel, 0, len(m))
	for t := range m {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tunnel) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), a.Local.Compare(b.Local), a.Peer.Compare(b.Peer),
			cmp.Compare(a.ReqID, b.ReqID))
	})
	return out
}

// infos says of each SA what its tunnel's series do not.
func (p *Points) infos(r *ledger.Report) {
	for i := range r.SAs {
		sa := &r.SAs[i]
		t, ok := p.places[tunnelOf(sa.Tunnel())]
		if !ok || t.shares || sa.State != ledger.Alive {
			continue
		}
		window, esn := "", ""
		if sa.ReplayWindow != nil {
			window = strconv.FormatUint(uint64(*sa.ReplayWindow), 10)
		}
		if sa.ESN != nil {
			esn = strconv.FormatBool(*sa.ESN)
		}
		// No counter goes by these labels, so nothing needs to be remembered of them.
		p.put(mSAInfo, &Labels{Values: append(p.labels(t).Values[:4:4],
			sa.SPI.String(), string(sa.Proto), sa.Mode, string(sa.Encap), strings.Join(sa.Algorithms, " "), window, esn,
			strconv.FormatUint(uint64(sa.IfID), 10), sa.Connection, sa.Child)}, 1)
	}
}

// breakdown puts why packets were dropped, where no tunnel is named.
func (p *Points) breakdown(all *ledger.Totals) {
	sums := map[ledger.DropKey]int64{}
	for d, n := range all.Drops {
		if !p.drops.admit(d, p.now) {
			d = ledger.DropKey{Stage: d.Stage, Place: other, Function: other, Reason: other}
		}
		sums[d] += n
	}
	for d, n := range sums {
		p.add(mHostDrops, float64(n), string(d.Stage), string(d.Place), d.Function, d.Reason)
	}
	for c, n := range all.Without {
		p.add(mWithout, float64(n), string(c))
	}
	p.add(mUnknown, float64(all.Unknown))
	for dir, w := range all.Absent {
		p.add(mStrangers, float64(w.Packets), string(dir))
	}
}

// paths puts what fits through a tunnel. Of several SAs the least counts.
func (p *Points) paths(r *ledger.Report) {
	if r.PMTU == nil {
		return
	}
	type mtus struct{ path, inner int }
	least := map[Tunnel]mtus{}
	for i := range r.PMTU.Paths {
		a := &r.PMTU.Paths[i]
		t, ok := p.places[Tunnel{Local: a.Src, Peer: a.Dst, ReqID: a.ReqID, Direction: ledger.Out}]
		if !ok || t.shares {
			continue
		}
		m := least[t]
		m.path, m.inner = lower(m.path, a.Known()), lower(m.inner, a.InnerMTU)
		least[t] = m
	}
	for _, t := range ordered(least) {
		if n := least[t].path; n > 0 {
			p.add(mPathMTU, float64(n), t.values()[:3]...)
		}
		if n := least[t].inner; n > 0 {
			p.add(mInnerMTU, float64(n), t.values()[:3]...)
		}
	}
}

// lower is the lesser of two, of which 0 means not known.
func lower(a, b int) int {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// ike puts the counts of IKE messages. Only peers that have SAs, or had, get series of their own: anyone can
// begin an exchange from an invented address.
func (p *Points) ike(all *ledger.IKE) {
	if all == nil {
		return
	}
	type ends struct{ local, peer netip.Addr }
	known := map[ends]bool{}
	for t := range p.places {
		known[ends{t.Local, t.Peer}] = true
	}
	type key struct {
		metric           *Metric
		local, peer, who string
	}
	sums := map[key]int64{}
	add := func(local, peer string, sent, received int64, exchanges []ledger.IKEExchanges) {
		sums[key{mIKE, local, peer, string(ledger.Local)}] += sent
		sums[key{mIKE, local, peer, string(ledger.Remote)}] += received
		for _, who := range []ledger.End{ledger.Local, ledger.Remote} {
			sums[key{mIKERepeat, local, peer, string(who)}] += 0
			sums[key{mIKEFailed, local, peer, string(who)}] += 0
		}
		for _, x := range exchanges {
			sums[key{mIKERepeat, local, peer, string(x.Requester)}] += x.Repeats
			sums[key{mIKEFailed, local, peer, string(x.Requester)}] += x.Unanswered
		}
	}
	for i := range all.Peers {
		q := &all.Peers[i]
		local, peer := address(q.Local.Addr()), address(q.Remote.Addr())
		if !known[ends{q.Local.Addr(), q.Remote.Addr()}] {
			local, peer = other, other
		}
		add(local, peer, q.Sent, q.Received, q.Exchanges)
	}
	if gone := all.Gone; gone != nil {
		add(other, other, gone.Sent, gone.Received, gone.Exchanges)
	}
	for k, n := range sums {
		p.add(k.metric, float64(n), k.local, k.peer, k.who)
	}
}
