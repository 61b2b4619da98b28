// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// PolicyEntry is one policy of the SPD in a report. The kernel counts no packets per policy, only when
// it was last asked for.
type PolicyEntry struct {
	Index     uint32          `json:"index"`
	Dir       string          `json:"dir"`
	Action    string          `json:"action"`
	Priority  uint32          `json:"priority"`
	Sub       bool            `json:"sub,omitempty"`
	Src       string          `json:"src"` // prefix; any
	Dst       string          `json:"dst"`
	Proto     uint8           `json:"proto,omitempty"` // 0: any
	SrcPort   uint16          `json:"src_port,omitempty"`
	DstPort   uint16          `json:"dst_port,omitempty"`
	Ifindex   int             `json:"ifindex,omitempty"`
	IfID      uint32          `json:"if_id,omitempty"`
	Mark      string          `json:"mark,omitempty"` // value/mask
	Templates []TemplateEntry `json:"templates"`
	Flags     []string        `json:"flags,omitempty"`
	Added     *time.Time      `json:"added,omitempty"`
	Used      *time.Time      `json:"used,omitempty"` // absent: never
	SAs       *int            `json:"sas,omitempty"`  // SAs that fit its template; absent: none is demanded, or not known

	policy Policy
}

// TemplateEntry is the SA that a policy demands.
type TemplateEntry struct {
	Src      string `json:"src,omitempty"` // absent: as in the packet
	Dst      string `json:"dst,omitempty"`
	SPI      *SPI   `json:"spi,omitempty"` // absent: any
	Proto    Proto  `json:"proto"`
	Mode     string `json:"mode"`
	ReqID    uint32 `json:"reqid,omitempty"` // absent: any
	Optional bool   `json:"optional,omitempty"`
}

// RefusedFlow is packets of one flow that a policy, or the want of one, refused.
type RefusedFlow struct {
	Cause     Cause        `json:"cause"`
	Counter   string       `json:"counter"` // of /proc/net/xfrm_stat; "": the kernel counts it nowhere
	Place     Site         `json:"place"`
	Dir       string       `json:"dir"`           // of the policies that were asked
	SPI       *SPI         `json:"spi,omitempty"` // of the SA that decrypted them; absent: none
	SADst     string       `json:"sa_dst,omitempty"`
	SAProto   Proto        `json:"sa_proto,omitempty"`
	ReqID     uint32       `json:"reqid,omitempty"`
	IfID      uint32       `json:"if_id,omitempty"`
	Elsewhere bool         `json:"sa_of_other_netns,omitempty"`
	Src       netip.Addr   `json:"src"`
	Dst       netip.Addr   `json:"dst"`
	Proto     uint8        `json:"proto"`
	SrcPort   uint16       `json:"src_port,omitempty"` // ICMP: type; the higher of two ports is left out from 1024 on
	DstPort   uint16       `json:"dst_port,omitempty"`
	Mark      uint32       `json:"mark,omitempty"`
	Ifindex   int          `json:"ifindex,omitempty"`
	Packets   int64        `json:"packets"`
	Largest   int64        `json:"largest"`
	Policy    *uint32      `json:"policy,omitempty"`  // index of the policy that decided; absent: none was found
	Nearest   *SPI         `json:"nearest,omitempty"` // SA that comes nearest to what the policy demands
	Differs   []Difference `json:"differs,omitempty"` // in what the SA is not what was demanded

	decided *Policy
}

// Decided is the policy that Policy names, nil if none was found.
func (f *RefusedFlow) Decided() *Policy { return f.decided }

// Policy is the entry's policy.
func (e *PolicyEntry) Policy() *Policy { return &e.policy }

// Difference is one thing in which an SA is not what a policy demands.
type Difference struct {
	Field  string `json:"field"`
	Wanted string `json:"wanted"`
	Found  string `json:"found"`
}

// refusal is what a flow's packets are counted by.
type refused struct {
	now Refusal
	tally[Cause]
}

// flow is a refusal's identity.
func (r Refusal) flow() Refusal {
	r.Packets, r.Largest, r.Mark, r.ReqID, r.IfID = 0, 0, 0, 0, 0
	return r
}

func (l *Ledger) observePolicies(s Snapshot, baseline bool) {
	if s.Policies != nil {
		l.policiesSeen, l.policies = true, s.Policies
		l.policyDefault = s.PolicyDefault
	}
	if s.Refusals == nil {
		return
	}
	l.refusalsSeen = true
	for _, r := range s.Refusals {
		t := l.refusals[r.flow()]
		if t == nil {
			t = &refused{}
			l.refusals[r.flow()] = t
		}
		t.observe(map[Cause]uint64{r.Cause: r.Packets}, baseline)
		t.now = r
	}
}

// policyEntries lists the SPD as it was at the last snapshot.
func (l *Ledger) policyEntries() []PolicyEntry {
	if !l.policiesSeen {
		return nil
	}
	out := []PolicyEntry{}
	index := l.indexSAD()
	for i := range l.policies {
		out = append(out, l.policyEntry(&l.policies[i], index))
	}
	return out
}

// sadIndex finds SAs by what policies name them by: a gateway has as many of the ones as of the others.
type sadIndex struct {
	byKey   map[SAKey]*SADEntry // direction left out, living or not
	byReqID map[uint32][]*SADEntry
	byDst   map[netip.Addr][]*SADEntry
	living  []*SADEntry
}

func (l *Ledger) indexSAD() sadIndex {
	x := sadIndex{byKey: map[SAKey]*SADEntry{}, byReqID: map[uint32][]*SADEntry{}, byDst: map[netip.Addr][]*SADEntry{}}
	for _, sa := range l.sad {
		e := &sa.now
		k := e.Key
		k.Direction = ""
		if x.byKey[k] == nil || sa.alive {
			x.byKey[k] = e
		}
		if sa.alive {
			x.living = append(x.living, e)
			x.byReqID[e.ReqID] = append(x.byReqID[e.ReqID], e)
			x.byDst[e.Key.Dst] = append(x.byDst[e.Key.Dst], e)
		}
	}
	return x
}

// to lists the living SAs that go where a template says.
func (x sadIndex) to(t *Template) []*SADEntry {
	if t.Dst.IsValid() && !t.Dst.IsUnspecified() {
		return x.byDst[t.Dst]
	}
	return x.living
}

// candidates lists the living SAs among which those that fit a template are.
func (x sadIndex) candidates(t *Template) []*SADEntry {
	if t.ReqID != 0 {
		return x.byReqID[t.ReqID]
	}
	return x.to(t)
}

func (l *Ledger) policyEntry(p *Policy, index sadIndex) PolicyEntry {
	e := PolicyEntry{
		Index: p.Index, Dir: p.Dir, Action: p.Action, Priority: p.Priority, Sub: p.Sub,
		Src: prefixText(p.Selector.Src), Dst: prefixText(p.Selector.Dst), Proto: p.Selector.Proto,
		SrcPort: p.Selector.SrcPort, DstPort: p.Selector.DstPort, Ifindex: p.Selector.Ifindex,
		IfID: p.IfID, Flags: p.Flags, Templates: []TemplateEntry{}, policy: *p,
	}
	if p.MarkMask != 0 {
		e.Mark = fmt.Sprintf("0x%x/0x%x", p.MarkValue, p.MarkMask)
	}
	if !p.Added.IsZero() {
		e.Added = new(p.Added.UTC())
	}
	if !p.Used.IsZero() {
		e.Used = new(p.Used.UTC())
	}
	for _, t := range p.Templates {
		e.Templates = append(e.Templates, templateEntry(t))
	}
	if t := p.Required(); t != nil && l.sadSeen {
		n := 0
		for _, sa := range index.candidates(t) {
			if towards(p.Dir, sa.Key.Direction) && len(t.Differences(sa, p)) == 0 {
				n++
			}
		}
		e.SAs = new(n)
	}
	return e
}

// towards says whether an SA of a direction serves policies of one.
func towards(policy string, sa Direction) bool {
	return sa == Unknown || (sa == Out) == (policy == "out")
}

func templateEntry(t Template) TemplateEntry {
	e := TemplateEntry{Src: addrText(t.Src), Dst: addrText(t.Dst), Proto: t.Proto, Mode: t.Mode, ReqID: t.ReqID, Optional: t.Optional}
	if t.SPI != 0 {
		e.SPI = new(t.SPI)
	}
	return e
}

func addrText(a netip.Addr) string {
	if !a.IsValid() || a.IsUnspecified() {
		return ""
	}
	return a.String()
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return "any"
	}
	return p.String()
}

// refusedFlows lists what was refused during the run, the most first.
func (l *Ledger) refusedFlows() []RefusedFlow {
	if !l.refusalsSeen {
		return nil
	}
	out := []RefusedFlow{}
	index := l.indexSAD()
	for _, t := range l.refusals {
		if n := t.total()[t.now.Cause]; n > 0 {
			out = append(out, l.refusedFlow(t.now, n, index))
		}
	}
	slices.SortFunc(out, func(a, b RefusedFlow) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Cause, b.Cause), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.SrcPort, b.SrcPort), cmp.Compare(a.DstPort, b.DstPort),
			cmp.Compare(spiOf(a.SPI), spiOf(b.SPI)), strings.Compare(a.SADst, b.SADst), cmp.Compare(a.Place, b.Place), cmp.Compare(a.Ifindex, b.Ifindex))
	})
	return out
}

func spiOf(s *SPI) SPI {
	if s == nil {
		return 0
	}
	return *s
}

// CompareRefusals orders refusals by cause, addresses and ports.
func CompareRefusals(a, b Refusal) int {
	return cmp.Or(cmp.Compare(a.Cause, b.Cause), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst), cmp.Compare(a.Proto, b.Proto),
		cmp.Compare(a.SrcPort, b.SrcPort), cmp.Compare(a.DstPort, b.DstPort), cmp.Compare(a.SA.SPI, b.SA.SPI),
		a.SA.Dst.Compare(b.SA.Dst), cmp.Compare(a.Place, b.Place), cmp.Compare(a.Ifindex, b.Ifindex))
}

func (l *Ledger) refusedFlow(r Refusal, packets int64, index sadIndex) RefusedFlow {
	f := RefusedFlow{
		Cause: r.Cause, Counter: r.Cause.Counter(), Place: r.Place, Dir: r.askedOf(),
		ReqID: r.ReqID, IfID: r.IfID, Elsewhere: r.Elsewhere,
		Src: r.Src, Dst: r.Dst, Proto: r.Proto, SrcPort: r.SrcPort, DstPort: r.DstPort, Mark: r.Mark,
		Ifindex: r.Ifindex, Packets: packets, Largest: int64(r.Largest),
	}
	if r.SA.SPI != 0 {
		f.SPI, f.SADst, f.SAProto = new(r.SA.SPI), r.SA.Dst.String(), r.SA.Proto
	}
	f.decided = decide(l.policies, f.Dir, r)
	if f.decided != nil {
		f.Policy = new(f.decided.Index)
	}
	f.compare(r, index)
	return f
}

// compare says in what the SA at hand differs from what was demanded of it.
func (f *RefusedFlow) compare(r Refusal, index sadIndex) {
	switch {
	case r.Cause == StateMismatch && r.SA.SPI != 0:
		if sa := index.entryOf(r.SA); sa != nil && !sa.Selector.Takes(r) {
			f.Differs = []Difference{{"selector", sa.Selector.String(), r.String()}}
		}
	case f.decided == nil || f.decided.Required() == nil:
		if r.Cause == TmplMismatch && r.SA.SPI != 0 && f.decided != nil {
			f.Differs = []Difference{{"template", "none", string(r.SA.Proto) + " SA"}}
		}
	case r.Cause == TmplMismatch && r.SA.SPI != 0:
		if sa := index.entryOf(r.SA); sa != nil {
			f.Differs = f.decided.Required().Differences(sa, f.decided)
		}
	case r.Cause == OutNoStates || r.Cause == OutPolError && f.decided.Required().SPI != 0:
		f.nearest(index)
	}
}

// nearest looks for the SA that misses the policy's template by the least.
func (f *RefusedFlow) nearest(index sadIndex) {
	t := f.decided.Required()
	for _, sa := range index.to(t) {
		if !towards("out", sa.Key.Direction) {
			continue
		}
		d := t.Differences(sa, f.decided)
		closer := f.Nearest == nil || len(d) < len(f.Differs) || len(d) == len(f.Differs) && sa.Key.SPI < *f.Nearest
		if closer {
			f.Nearest, f.Differs = new(sa.Key.SPI), d
		}
	}
}

// entryOf finds the SA of a refusal in the database, living or not.
func (x sadIndex) entryOf(k SAKey) *SADEntry {
	k.Direction = ""
	return x.byKey[k]
}
