// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"slices"
)

// flowSum adds up connections, those included that are not remembered one by one any more.
type flowSum map[FlowSA]*FlowSums

func (s flowSum) add(f *flow) {
	for i := range f.ends {
		r := &f.now.Ends[i]
		if r.SA == (SAKey{}) {
			continue // this end sent nothing
		}
		sa := FlowSA{SPI: r.SA.SPI, Dst: r.SA.Dst, Proto: r.SA.Proto, Direction: r.SA.Direction, ReqID: r.ReqID}
		if s[sa] == nil {
			s[sa] = &FlowSums{SA: sa}
		}
		c := f.ends[i].total()
		s[sa].Segments += c[flowSegments]
		s[sa].Retransmissions += c[flowRetransmissions]
		s[sa].ZeroWindowUS += c[flowZeroNS] / 1000
	}
}

// flowSums sums up all connections of the run.
func (l *Ledger) flowSums() []FlowSums {
	all := flowSum{}
	for sa, s := range l.flowsPast {
		all[sa] = new(*s)
	}
	for _, f := range l.flows {
		all.add(f)
	}
	out := []FlowSums{}
	for _, s := range all {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b FlowSums) int {
		return cmp.Or(compareKeys(a.SA.Key(), b.SA.Key()), cmp.Compare(a.SA.ReqID, b.SA.ReqID))
	})
	return out
}
