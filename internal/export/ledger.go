// SPDX-License-Identifier: Apache-2.0

package export

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

// side is one direction of a tunnel: the sums of its SAs. A bin that no SA observes has no series.
type side struct {
	sums   []int64
	seen   []bool
	alive  int
	rekeys int64
	causes map[ledger.Cause]int64
}

var allBins = slices.Concat(inboundBins, outboundBins, bothBins)

// ledger puts the bins of every tunnel, and says where each SA went.
func (p *Points) ledger(r *ledger.Report) map[ledger.SAKey]Tunnel {
	places := make(map[ledger.SAKey]Tunnel, len(r.SAs))
	sides := map[Tunnel]*side{}
	at := func(t Tunnel) *side {
		s := sides[t]
		if s == nil {
			s = &side{sums: make([]int64, len(allBins)), seen: make([]bool, len(allBins))}
			sides[t] = s
		}
		return s
	}
	p.settle(r)
	for i := range r.SAs {
		sa := &r.SAs[i]
		t, ok := p.place(tunnelOf(sa))
		if !ok {
			continue
		}
		places[ledger.SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}] = t
		at(t).take(sa)
		p.info(sa, t)
	}
	for i := range r.Rekeys {
		k := &r.Rekeys[i]
		if t, ok := p.place(tunnel(k.Src, k.Dst, k.ReqID, k.Direction)); ok {
			at(t).rekeys++
		}
	}
	for _, t := range ordered(sides) {
		p.side(t, sides[t])
	}
	return places
}

// settle decides which tunnels have series. One of which no SA has lived for long has none any more.
func (p *Points) settle(r *ledger.Report) {
	clear(p.places)
	for i := range r.SAs {
		sa := &r.SAs[i]
		t := tunnelOf(sa)
		if _, done := p.places[t]; done || t.shared == "" && p.now.Sub(lastAlive(sa, p.now)) > kept {
			continue
		}
		to := t
		if t.shared == "" && !p.bound.admit(t, p.now) {
			to = Tunnel{Direction: t.Direction, shared: other}
		}
		p.places[t] = to
	}
}

// place finds where a tunnel's figures go; ok is false where it has no series any more.
func (p *Points) place(t Tunnel) (to Tunnel, ok bool) {
	to, ok = p.places[t]
	return to, ok
}

// lastAlive is when an SA was last known to be there.
func lastAlive(sa *ledger.SA, now time.Time) time.Time {
	switch {
	case sa.State == ledger.Alive:
		return now
	case len(sa.Endings) > 0:
		return sa.Endings[len(sa.Endings)-1].At
	case sa.Wire != nil && sa.Wire.LastSeen != nil:
		return *sa.Wire.LastSeen
	}
	return now
}

// take adds an SA.
func (s *side) take(sa *ledger.SA) {
	if sa.State == ledger.Alive || sa.State == ledger.NotCovered {
		s.alive++
	}
	for i, b := range allBins {
		if n := b.of(sa); n != nil {
			s.sums[i] += *n
			s.seen[i] = true
		}
	}
	for c, n := range sa.Xfrm {
		if s.causes == nil {
			s.causes = map[ledger.Cause]int64{}
		}
		s.causes[c] += n
	}
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
	for c, n := range s.causes {
		p.put(mXfrmByCause, p.more(mXfrmByCause, t, string(c)), float64(n))
	}
}

// ordered lists the tunnels so that the output is the same each time.
func ordered[V any](m map[Tunnel]V) []Tunnel {
	out := make([]Tunnel, 0, len(m))
	for t := range m {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tunnel) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.shared, b.shared), a.Local.Compare(b.Local),
			a.Peer.Compare(b.Peer), cmp.Compare(a.ReqID, b.ReqID))
	})
	return out
}

// info says of an SA what its tunnel's series do not.
func (p *Points) info(sa *ledger.SA, t Tunnel) {
	if sa.State != ledger.Alive && sa.State != ledger.NotCovered || t.shared != "" {
		return
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

// breakdown puts why packets were dropped outside xfrm.
func (p *Points) breakdown(r *ledger.Report) {
	sums := map[*Labels]int64{}
	var order []*Labels
	for i := range r.Drops {
		d := &r.Drops[i]
		if !d.Lost {
			continue
		}
		t := Tunnel{Direction: d.Direction, shared: strangers}
		if d.KnownSA {
			to, ok := p.place(tunnel(d.Src, d.Dst, d.ReqID, d.Direction))
			if !ok {
				continue
			}
			t = to
		}
		where := []string{string(d.Stage), string(d.Place), d.Function, d.Reason}
		if !p.drops.admit(joined(append(t.values(), where...)), p.now) {
			t, where = Tunnel{Direction: d.Direction, shared: other}, []string{string(d.Stage), other, other, other}
		}
		l := p.more(mHostDrops, t, where...)
		if _, ok := sums[l]; !ok {
			order = append(order, l)
		}
		sums[l] += d.Packets
	}
	for _, l := range order {
		p.put(mHostDrops, l, float64(sums[l]))
	}
	if r.UnknownSPIs == nil {
		return
	}
	strange := map[ledger.Direction]int64{ledger.In: 0}
	for _, s := range r.UnknownSPIs {
		strange[s.Direction] += s.Packets
	}
	for dir, n := range strange {
		p.add(mUnknown, float64(n), string(dir))
	}
}

// paths puts what fits through a tunnel. Of several SAs the least counts.
func (p *Points) paths(r *ledger.Report, places map[ledger.SAKey]Tunnel) {
	if r.PMTU == nil {
		return
	}
	type mtus struct{ path, inner int }
	least := map[Tunnel]mtus{}
	for i := range r.PMTU.Paths {
		a := &r.PMTU.Paths[i]
		t, ok := places[ledger.SAKey{Dst: a.Dst, SPI: a.SPI, Proto: ledger.ESP, Direction: ledger.Out}]
		if !ok || t.shared != "" {
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
func (p *Points) ike(r *ledger.Report) {
	if r.IKE == nil {
		return
	}
	type ends struct{ local, peer netip.Addr }
	known := map[ends]bool{}
	for t := range p.bound.known {
		known[ends{t.Local, t.Peer}] = true
	}
	type key struct {
		metric *Metric
		values string
	}
	sums, values := map[key]int64{}, map[key][]string{}
	var order []key
	for i := range r.IKE.Peers {
		q := &r.IKE.Peers[i]
		local, peer := address(q.Local.Addr()), address(q.Remote.Addr())
		if !known[ends{q.Local.Addr(), q.Remote.Addr()}] {
			local, peer = strangers, strangers
		}
		put := func(m *Metric, who ledger.End, n int64) {
			v := []string{local, peer, string(who)}
			k := key{m, joined(v)}
			if values[k] == nil {
				values[k] = v
				order = append(order, k)
			}
			sums[k] += n
		}
		put(mIKE, ledger.Local, q.Sent)
		put(mIKE, ledger.Remote, q.Received)
		for _, who := range []ledger.End{ledger.Local, ledger.Remote} {
			put(mIKERepeat, who, 0)
			put(mIKEFailed, who, 0)
		}
		for _, x := range q.Exchanges {
			put(mIKERepeat, x.Requester, x.Repeats)
			put(mIKEFailed, x.Requester, x.Unanswered)
		}
	}
	for _, k := range order {
		p.add(k.metric, float64(sums[k]), values[k]...)
	}
}
