// SPDX-License-Identifier: Apache-2.0

// Package verdict judges a ledger: a rule a file, each a pure function of the report. Identifiers are
// stable, texts are not. A rule names the cause and folds what follows from it, so that one fault
// gives one finding.
package verdict

import (
	"cmp"
	"net/netip"
	"slices"

	"xfrmscope/internal/ledger"
)

// ID names a kind of finding for good.
type ID string

// Severity ranks findings: critical and warning ask for action, info does not.
type Severity string

// The severities.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Finding is one thing that is wrong, how sure that is, on what evidence, and what to do.
type Finding struct {
	ID           ID         `json:"id"`
	Severity     Severity   `json:"severity"`
	Confidence   float64    `json:"confidence"`
	Subject      Subject    `json:"subject"`
	Summary      string     `json:"summary"`
	Evidence     []Evidence `json:"evidence"`
	Remedy       []Remedy   `json:"remedy"`
	Consequences []ID       `json:"consequences"`       // kinds of findings that this one explains
	Explains     []Finding  `json:"explains,omitempty"` // those of them that were judged by themselves

	spares []ID // kinds that it does not explain this time, whatever foldings says
}

// Subject is what a finding is about; a finding about no SA in particular leaves it empty.
type Subject struct {
	SPI        *ledger.SPI      `json:"spi,omitempty"`
	Src        *netip.Addr      `json:"src,omitempty"`
	Dst        *netip.Addr      `json:"dst,omitempty"`
	Proto      ledger.Proto     `json:"proto,omitempty"`
	Direction  ledger.Direction `json:"direction,omitempty"`
	ReqID      uint32           `json:"reqid,omitempty"`
	IfID       uint32           `json:"if_id,omitempty"`
	Ifindex    int              `json:"ifindex,omitempty"`
	Connection string           `json:"connection,omitempty"` // the IKE daemon's names
	Child      string           `json:"child,omitempty"`
}

// Evidence is one figure and who counted it.
type Evidence struct {
	Counter string `json:"counter"`
	Value   int64  `json:"value"`
	Unit    string `json:"unit"`
	Source  string `json:"source"`
	Note    string `json:"note,omitempty"`
}

// Remedy is what to do, for whom, and the exact commands or configuration lines where there are any.
type Remedy struct {
	For      string   `json:"for"`
	Text     string   `json:"text"`
	Commands []string `json:"commands,omitempty"`
}

// rule judges the whole report and returns its findings in any order.
type rule func(*ledger.Report) []Finding

// Kind describes a finding in the catalogue.
type Kind struct {
	ID    ID
	Title string
	judge rule
}

// Catalogue lists every kind of finding, in the order in which equals are ranked.
func Catalogue() []Kind {
	return slices.Concat(
		saKinds(),
		congestionKinds(),
		natKinds(),
		hostKinds(),
		firewallKinds(),
		policyKinds(),
		processingKinds(),
		configKinds(),
		flowKinds(),
		ikeKinds(),
		pmtuKinds(),
	)
}

// saKinds are about an SA's own packets: their numbers, their integrity, its life.
func saKinds() []Kind {
	return []Kind{
		{SAExpired, "An SA reached its hard limit under traffic", saExpired},
		{SPIUnknown, "Packets for an SPI that has no SA", spiUnknown},
		{IntegrityFailed, "Packets fail their integrity check", integrityFailed},
		{ESNMisEpoch, "Late packets fail their integrity check under ESN", esnMisEpoch},
		{ReplayWindowTooSmall, "Reordering exceeds the replay window", replayWindowTooSmall},
		{PathLoss, "Packets are lost on the path", pathLoss},
		{DuplicatePackets, "Packets arrive more than once", duplicatePackets},
		{SAInvalid, "Packets meet an SA that is not valid", saInvalid},
		{ReplayWindowZero, "No replay protection", replayWindowZero},
	}
}

// Judge gives every finding of a report, the gravest and surest first.
func Judge(r ledger.Report) []Finding { return judgeBy(&r, Catalogue()) }

// Review gives the findings about the configuration alone, which need no traffic.
func Review(r ledger.Report) []Finding {
	kinds := slices.DeleteFunc(Catalogue(), func(k Kind) bool {
		return k.ID != ReplayWindowZero && !slices.ContainsFunc(configKinds(), func(c Kind) bool { return c.ID == k.ID })
	})
	return judgeBy(&r, kinds)
}

func judgeBy(r *ledger.Report, kinds []Kind) []Finding {
	out := []Finding{}
	order := map[ID]int{}
	for i, k := range kinds {
		order[k.ID] = i
		out = append(out, k.judge(r)...)
	}
	out = fold(out)
	for i := range out {
		callByName(&out[i])
		if out[i].Consequences == nil {
			out[i].Consequences = []ID{}
		}
		for j := range out[i].Explains {
			if out[i].Explains[j].Consequences == nil {
				out[i].Explains[j].Consequences = []ID{}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(rank(a.Severity), rank(b.Severity)),
			cmp.Compare(b.Confidence, a.Confidence),
			cmp.Compare(order[a.ID], order[b.ID]),
			compareSubjects(a.Subject, b.Subject),
		)
	})
	return out
}

// ExitCode is 1 where a finding asks for action and 0 where none does.
func ExitCode(findings []Finding) int {
	for _, f := range findings {
		if f.Severity != Info {
			return 1
		}
	}
	return 0
}

func rank(s Severity) int {
	switch s {
	case Critical:
		return 0
	case Warning:
		return 1
	case Info:
		return 2
	}
	return 3
}

// compareSubjects orders by destination, SPI and source; what is not named comes first.
func compareSubjects(a, b Subject) int {
	return cmp.Or(or(a.Dst).Compare(or(b.Dst)), cmp.Compare(or(a.SPI), or(b.SPI)), or(a.Src).Compare(or(b.Src)))
}

// or is what a pointer points to, or the zero value.
func or[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// about names an SA as a finding's subject.
func about(sa *ledger.SA) Subject {
	s := Subject{
		SPI: new(sa.SPI), Dst: new(sa.Dst), Proto: sa.Proto, Direction: sa.Direction,
		ReqID: sa.ReqID, IfID: sa.IfID, Ifindex: sa.Ifindex, Connection: sa.Connection, Child: sa.Child,
	}
	if sa.Src.IsValid() {
		s.Src = new(sa.Src)
	}
	return s
}
