// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"fmt"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// byPath are the findings of a receiver that speak of what happened before its packets came to it.
var byPath = []verdict.ID{
	verdict.PathLoss, verdict.Congestion, verdict.PolicingSuspected, verdict.DuplicatePackets, verdict.MTUBlackHole,
	verdict.NATMappingChanged, verdict.NATBindingLost, verdict.IKEUnanswered, verdict.IKERetransmissions,
}

// findings judges each end by itself, and says which place each finding is about. What one end can only call
// the path, the other one may know better.
func (d *Document) findings(a, b *Side) {
	for _, s := range []struct {
		label Label
		side  *Side
	}{{A, a}, {B, b}} {
		for _, f := range verdict.Judge(s.side.whole.Report) {
			out := Finding{End: s.label, Place: "host " + string(s.label), Finding: f}
			if slices.Contains(byPath, f.ID) {
				out.Place = fmt.Sprintf("path %s to %s", s.label.other(), s.label)
				if sa := d.about(s.label, f.Subject); sa != nil {
					out.relocate(sa)
				}
			}
			d.Findings = append(d.Findings, out)
		}
	}
	slices.SortStableFunc(d.Findings, func(a, b Finding) int { return rank(a.Severity) - rank(b.Severity) })
}

func rank(s verdict.Severity) int {
	return slices.Index([]verdict.Severity{verdict.Critical, verdict.Warning, verdict.Info}, s)
}

// about is the joined SA that a finding of this end is about.
func (d *Document) about(l Label, s verdict.Subject) *SA {
	if s.SPI == nil || s.Direction == ledger.Out {
		return nil
	}
	for i := range d.SAs {
		sa := &d.SAs[i]
		dst := sa.Dst
		if sa.ReceivedAt.IsValid() {
			dst = sa.ReceivedAt
		}
		if sa.Joined && sa.To == l && sa.SPI == *s.SPI && (s.Dst == nil || *s.Dst == dst) {
			return sa
		}
	}
	return nil
}

// relocate holds a loss that the receiver sees against what the sender knows of it.
func (f *Finding) relocate(sa *SA) {
	if f.ID != verdict.PathLoss && f.ID != verdict.Congestion && f.ID != verdict.PolicingSuspected || sa.Path.Lost == nil {
		return
	}
	host, path := value(sa.Sender.EncryptFailed)+value(sa.Sender.LostInHost), *sa.Path.Lost
	if host == 0 {
		return
	}
	f.Note = fmt.Sprintf("of the numbers that %s misses, host %s lost %d before its wire and the path %d", f.End, sa.From, host, path)
	if places := placesOf(sa, sa.From); places != "" {
		f.Note += ": " + places
	}
	if path == 0 {
		f.Place = "host " + string(sa.From)
	}
}

// placesOf names where an end dropped packets of an SA.
func placesOf(sa *SA, end Label) string {
	var out []string
	for _, d := range sa.Drops {
		if d.End == end {
			out = append(out, fmt.Sprintf("%s %s %d", d.Place, d.Function, d.Packets))
		}
	}
	return strings.Join(out, ", ")
}
