// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// TunnelKey names what SAs that renew one another have in common, as metrics want it: no SPI. Local is
// this host's end, which is the destination of what arrives; where neither end is this host's, the
// source is taken as remote.
type TunnelKey struct {
	Direction Direction  `json:"direction"`
	Local     netip.Addr `json:"local"`
	Remote    netip.Addr `json:"remote"`
	ReqID     uint32     `json:"reqid"`
	IfID      uint32     `json:"if_id,omitempty"`
}

// Tunnel sums up the SAs of one TunnelKey, ended ones included. Nil bins and maps are not observed.
type Tunnel struct {
	TunnelKey
	Connection string          `json:"connection,omitempty"` // the IKE daemon's names
	Child      string          `json:"child,omitempty"`
	In         *Inbound        `json:"in,omitempty"`
	Out        *Outbound       `json:"out,omitempty"`
	Wire       *WireSums       `json:"wire"` // null: not watched on the wire
	Xfrm       map[Cause]int64 `json:"xfrm"`
	Flows      *FlowTotals     `json:"flows"` // null: no TCP was seen inside
	Alive      int             `json:"alive"` // SAs that exist now
	Rekeys     int64           `json:"rekeys"`

	last uint64 // the newest report with an SA of it
}

// maxTunnels bounds how many tunnels the totals remember, those without an SA included: 0.9 KB each. A gateway whose peers come from
// ever new addresses would fill its memory with them.
const maxTunnels = 65536

// FlowTotals are what the TCP connections inside a tunnel did together, in one direction.
type FlowTotals struct {
	Segments        int64 `json:"segments"`
	Retransmissions int64 `json:"retransmissions"`
	ZeroWindowUS    int64 `json:"zero_window_us"`
}

// WireSums are the figures of the wire that can be added up.
type WireSums struct {
	Packets    int64 `json:"packets"`
	Bytes      int64 `json:"bytes"`
	Late       int64 `json:"late"`
	Duplicates int64 `json:"duplicates"`
	Missing    int64 `json:"missing"`
	Stale      int64 `json:"stale"`
	Restarts   int64 `json:"restarts"`
	Jumps      int64 `json:"jumps"`
	GapEvents  int64 `json:"gap_events"`
	ECNCE      int64 `json:"ecn_ce"`
	Rebinds    int64 `json:"rebinds"`
}

// DropKey is where and why packets were dropped outside xfrm, without the SA.
type DropKey struct {
	Stage    DropStage
	Place    Place
	Function string
	Reason   string
}

// Totals are the sums of a run since its beginning. SAs that are in no SA database are strangers: their
// addresses may be invented, so they are one row for each direction.
type Totals struct {
	Start    time.Time
	Tunnels  map[TunnelKey]*Tunnel
	Absent   map[Direction]*WireSums
	Drops    map[DropKey]int64
	XfrmStat map[string]int64 // nil: not readable
	Unknown  int64            // packets for SPIs that no SA had
	Without  map[Cause]int64  // drops whose SA could not be read
	Classes  map[Direction]map[string]int64
	Self     SelfReport // NsPerRun and CPUPercent are those of the last reading

	reports uint64
	max     int // 0: maxTunnels
}

// NewTotals are the sums of nothing yet.
func NewTotals() *Totals {
	return &Totals{
		Tunnels: map[TunnelKey]*Tunnel{}, Absent: map[Direction]*WireSums{}, Drops: map[DropKey]int64{},
		Without: map[Cause]int64{}, Classes: map[Direction]map[string]int64{},
		Self: SelfReport{Lost: map[string]int64{}},
	}
}

// clone copies what Add changes.
func (t *Totals) clone() *Totals {
	c := *t
	c.Tunnels = make(map[TunnelKey]*Tunnel, len(t.Tunnels))
	for k, v := range t.Tunnels {
		u := *v
		u.Xfrm, u.Wire, u.Flows = maps.Clone(v.Xfrm), copyOf(v.Wire), copyOf(v.Flows)
		u.In, u.Out = copyBins(v.In), copyBins(v.Out)
		c.Tunnels[k] = &u
	}
	c.Absent = make(map[Direction]*WireSums, len(t.Absent))
	for k, v := range t.Absent {
		c.Absent[k] = copyOf(v)
	}
	c.Drops, c.XfrmStat, c.Without = maps.Clone(t.Drops), maps.Clone(t.XfrmStat), maps.Clone(t.Without)
	c.Classes = make(map[Direction]map[string]int64, len(t.Classes))
	for k, v := range t.Classes {
		c.Classes[k] = maps.Clone(v)
	}
	c.Self.Lost = maps.Clone(t.Self.Lost)
	return &c
}

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// copyBins copies bins with what they point to.
func copyBins[T Inbound | Outbound](p *T) *T {
	if p == nil {
		return nil
	}
	out := new(T)
	addBins(out, p)
	return out
}

// addBins adds bin by bin; a bin that neither has observed stays so.
func addBins[T Inbound | Outbound](dst, src *T) {
	to, from := reflect.ValueOf(dst).Elem(), reflect.ValueOf(src).Elem()
	for i := range to.NumField() {
		p, ok := from.Field(i).Interface().(*int64)
		if !ok || p == nil {
			continue
		}
		sum := *p
		if had, _ := to.Field(i).Interface().(*int64); had != nil {
			sum += *had
		}
		to.Field(i).Set(reflect.ValueOf(&sum))
	}
}

// Add takes a report whose stretch of time follows on those added before.
func (t *Totals) Add(r Report) {
	t.reports++
	for _, u := range t.Tunnels {
		u.Alive = 0
	}
	defer t.forget()
	for i := range r.SAs {
		t.addSA(&r.SAs[i])
	}
	for _, k := range r.Rekeys {
		sa := SA{Direction: k.Direction, Src: k.Src, Dst: k.Dst, ReqID: k.ReqID, IfID: k.IfID}
		if u := t.Tunnels[sa.Tunnel()]; u != nil {
			u.Rekeys++
		}
	}
	t.addFlows(&r)
	for _, d := range r.Drops {
		if d.Lost {
			t.Drops[DropKey{d.Stage, d.Place, d.Function, d.Reason}] += d.Packets
		}
	}
	if r.Kernel.XfrmStat != nil && t.XfrmStat == nil {
		t.XfrmStat = map[string]int64{}
	}
	addUp(t.XfrmStat, r.Kernel.XfrmStat)
	addUp(t.Without, r.Kernel.WithoutSA)
	for _, s := range r.UnknownSPIs {
		t.Unknown += s.Packets
	}
	if r.Packets != nil {
		for dir, m := range r.Packets.Classes {
			if t.Classes[dir] == nil {
				t.Classes[dir] = map[string]int64{}
			}
			addUp(t.Classes[dir], m)
		}
	}
	s := &t.Self
	s.EventsLost += r.Self.EventsLost
	s.EventsSuppressed += r.Self.EventsSuppressed
	s.TableFull += r.Self.TableFull
	s.RecursionMisses += r.Self.RecursionMisses
	s.Evicted += r.Self.Evicted
	addUp(s.Lost, r.Self.Lost)
	s.NsPerRun, s.CPUPercent = r.Self.NsPerRun, r.Self.CPUPercent
}

// forget drops the tunnels that have been without an SA for longest, an eighth of all at a time, once there are too many.
func (t *Totals) forget() {
	most := cmp.Or(t.max, maxTunnels)
	if len(t.Tunnels) <= most {
		return
	}
	var ended []*Tunnel
	for _, u := range t.Tunnels {
		if u.last < t.reports {
			ended = append(ended, u)
		}
	}
	slices.SortFunc(ended, func(a, b *Tunnel) int { return cmp.Compare(a.last, b.last) })
	for _, u := range ended[:min(len(ended), len(t.Tunnels)-most+most/8)] {
		delete(t.Tunnels, u.TunnelKey)
	}
}

func addUp[K comparable](dst, src map[K]int64) {
	for k, n := range src {
		dst[k] += n
	}
}

// Tunnel is the tunnel that an SA belongs to.
func (sa *SA) Tunnel() TunnelKey {
	k := TunnelKey{Direction: sa.Direction, Local: sa.Dst, Remote: sa.Src, ReqID: sa.ReqID, IfID: sa.IfID}
	if sa.Direction == Out {
		k.Local, k.Remote = sa.Src, sa.Dst
	}
	return k
}

func (t *Totals) addSA(sa *SA) {
	if sa.State == Absent || sa.State == NotCovered {
		if sa.Wire != nil {
			if t.Absent[sa.Direction] == nil {
				t.Absent[sa.Direction] = &WireSums{}
			}
			t.Absent[sa.Direction].add(sa.Wire)
		}
		return
	}
	u := t.Tunnels[sa.Tunnel()]
	if u == nil {
		u = &Tunnel{TunnelKey: sa.Tunnel()}
		t.Tunnels[u.TunnelKey] = u
	}
	if sa.Connection != "" || sa.Child != "" {
		u.Connection, u.Child = sa.Connection, sa.Child
	}
	u.last = t.reports
	if sa.State == Alive {
		u.Alive++
	}
	if b := sa.Ledger.In; b != nil {
		if u.In == nil {
			u.In = &Inbound{}
		}
		addBins(u.In, b)
	}
	if b := sa.Ledger.Out; b != nil {
		if u.Out == nil {
			u.Out = &Outbound{}
		}
		addBins(u.Out, b)
	}
	if sa.Xfrm != nil {
		if u.Xfrm == nil {
			u.Xfrm = map[Cause]int64{}
		}
		addUp(u.Xfrm, sa.Xfrm)
	}
	if sa.Wire != nil {
		if u.Wire == nil {
			u.Wire = &WireSums{}
		}
		u.Wire.add(sa.Wire)
	}
}

// addFlows adds up what was inside the tunnels. An SA that the report does not have belongs to no tunnel.
func (t *Totals) addFlows(r *Report) {
	if r.Flows == nil || len(r.Flows.Sums) == 0 {
		return
	}
	tunnels := make(map[SAKey]*Tunnel, len(r.SAs))
	for i := range r.SAs {
		sa := &r.SAs[i]
		tunnels[sa.key()] = t.Tunnels[sa.Tunnel()]
	}
	for _, s := range r.Flows.Sums {
		u := tunnels[s.SA.Key()]
		if u == nil {
			continue
		}
		if u.Flows == nil {
			u.Flows = &FlowTotals{}
		}
		u.Flows.Segments += s.Segments
		u.Flows.Retransmissions += s.Retransmissions
		u.Flows.ZeroWindowUS += s.ZeroWindowUS
	}
}

func (s *WireSums) add(w *Wire) {
	s.Packets += w.Packets
	s.Bytes += w.Bytes
	s.Late += w.Late
	s.Duplicates += w.Duplicates
	s.Missing += w.Missing
	s.Stale += w.Stale
	s.Restarts += w.Restarts
	s.Jumps += w.Jumps
	s.GapEvents += w.GapEvents
	s.ECNCE += w.ECNCE
	s.Rebinds += w.Rebinds
}

// Sorted lists the tunnels by direction, remote end, local end and reqid.
func (t *Totals) Sorted() []*Tunnel {
	return slices.SortedFunc(maps.Values(t.Tunnels), func(a, b *Tunnel) int {
		return cmp.Or(cmp.Compare(place(a.Direction), place(b.Direction)), a.Remote.Compare(b.Remote),
			a.Local.Compare(b.Local), cmp.Compare(a.ReqID, b.ReqID), cmp.Compare(a.IfID, b.IfID))
	})
}
