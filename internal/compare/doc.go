// SPDX-License-Identifier: Apache-2.0

// Package compare joins what two ends of a tunnel kept, each a recording or a capture, into one account: of
// the packets that one end numbered, which were lost in its own host, which on the path, which in the other
// host. It looks at nothing itself: the bins of an end are those of its ledger.
//
// Two recordings never begin and end at the same packet, so an SA is joined over a range of sequence
// numbers, between two cuts. A cut is a number, a snapshot of the sender and one of the receiver that agree
// on it: every packet up to the number is counted in both, none after it in either.
package compare

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// Schema names the version of the JSON that a Document becomes. Fields may be added, never renamed.
const Schema = "xfrmscope-compare/1"

// Label names an end, in the order of the arguments.
type Label string

// The ends.
const (
	A Label = "A"
	B Label = "B"
)

// other is the end across.
func (l Label) other() Label {
	if l == A {
		return B
	}
	return A
}

// Document is the account of both ends. A nil pointer means "no vantage point observes this".
type Document struct {
	Schema     string      `json:"schema"`
	Ends       []End       `json:"ends"` // A, then B
	Clock      Clock       `json:"clock"`
	Directions []Direction `json:"directions"`
	SAs        []SA        `json:"sas"`
	Unmatched  []Unmatched `json:"unmatched"` // SAs that only one end has
	Findings   []Finding   `json:"findings"`
	Notes      []string    `json:"notes,omitempty"`
}

// End is one side of the comparison.
type End struct {
	Label     Label         `json:"label"`
	File      string        `json:"file"`
	Kind      string        `json:"kind"` // recording or capture
	Host      string        `json:"host,omitempty"`
	Kernel    string        `json:"kernel,omitempty"`
	Netns     string        `json:"netns,omitempty"`
	Start     time.Time     `json:"start,omitzero"` // by its own clock
	DurationS float64       `json:"duration_s"`
	Snapshots int           `json:"snapshots"`
	Marks     int           `json:"marks"` // packets with the time at which they were seen
	SAs       int           `json:"sas"`
	Damage    string        `json:"damage,omitempty"` // how far it could be read
	Blind     []ledger.Hook `json:"blind"`            // hooks that were missing, and what that costs
}

// SA is one security association as both ends know it.
type SA struct {
	SPI          ledger.SPI   `json:"spi"`
	Proto        ledger.Proto `json:"proto"`
	Src          netip.Addr   `json:"src"` // as the sender has it
	Dst          netip.Addr   `json:"dst"`
	ReceivedFrom netip.Addr   `json:"received_from,omitzero"` // as the receiver has it, where that differs
	ReceivedAt   netip.Addr   `json:"received_at,omitzero"`
	From         Label        `json:"from"`
	To           Label        `json:"to"`
	MatchedBy    string       `json:"matched_by"` // key, or spi where addresses are translated
	ReqID        uint32       `json:"reqid,omitempty"`
	ESN          bool         `json:"esn,omitempty"`
	Joined       bool         `json:"joined"`
	Why          string       `json:"why,omitempty"` // it could not be joined
	Range        *Range       `json:"range"`
	Sender       Sender       `json:"sender"`
	Path         Path         `json:"path"`
	Receiver     Receiver     `json:"receiver"`
	Lost         Lost         `json:"lost"`
	Drops        []Drop       `json:"drops"`
	Delay        *Delay       `json:"delay"` // null: no packet was marked at both ends
	Notes        []string     `json:"notes,omitempty"`
}

// Range is the sequence numbers that both ends account for.
type Range struct {
	First       uint64 `json:"first"`
	Last        uint64 `json:"last"`
	Numbers     int64  `json:"numbers"`
	Uncertainty int64  `json:"uncertainty"` // packets that may belong to the other side of an edge
	StartEdge   Edge   `json:"start_edge"`
	EndEdge     Edge   `json:"end_edge"`
}

// Edge says why the ends agree on a number.
type Edge string

// The edges.
const (
	EdgeIdle    Edge = "idle"    // nothing was under way
	EdgeNumber  Edge = "number"  // the receiver's highest number at one of its snapshots
	EdgeFirst   Edge = "first"   // the first packet that the receiver saw
	EdgeCapture Edge = "capture" // the first or last packet of a capture
)

// Sender holds the bins of the host that numbered the packets.
//
//	Offered = Numbered + XfrmDropped
//	Numbered = EncryptFailed + LostInHost + InFlight + Unattributed + OnWire
type Sender struct {
	Offered       *int64                 `json:"offered"`
	XfrmDropped   *int64                 `json:"xfrm_dropped"` // before a number was assigned
	Causes        map[ledger.Cause]int64 `json:"causes,omitempty"`
	Numbered      *int64                 `json:"numbered"`
	EncryptFailed *int64                 `json:"encrypt_failed"`
	LostInHost    *int64                 `json:"lost_in_host"` // with a number, before the wire
	InFlight      *int64                 `json:"in_flight"`
	Unattributed  *int64                 `json:"unattributed"`
	OnWire        *int64                 `json:"on_wire"`
}

// Path holds what became of the packets between the wires.
//
//	OnWire = Lost + Pending + Unattributed + Unique
type Path struct {
	Lost         *int64 `json:"lost"`
	Pending      *int64 `json:"pending"`      // not seen yet when the range ends
	Unattributed *int64 `json:"unattributed"` // negative: more arrived than was seen to leave
}

// Receiver holds the bins of the host that the packets were for.
//
//	Arrivals = Unique + Duplicates + Stale + Unsorted
//	Arrivals = LostInHost + XfrmDropped + InFlight + Unattributed + Decapsulated
//	Decapsulated = Delivered + PolicyDropped + InnerDropped
type Receiver struct {
	Unique        *int64                 `json:"unique"`
	Duplicates    *int64                 `json:"duplicates"`
	Stale         *int64                 `json:"stale"`
	Unsorted      *int64                 `json:"unsorted"`
	Arrivals      *int64                 `json:"arrivals"`
	LostInHost    *int64                 `json:"lost_in_host"`
	XfrmDropped   *int64                 `json:"xfrm_dropped"`
	InFlight      *int64                 `json:"in_flight"`
	Unattributed  *int64                 `json:"unattributed"`
	Decapsulated  *int64                 `json:"decapsulated"`
	PolicyDropped *int64                 `json:"policy_dropped"`
	InnerDropped  *int64                 `json:"inner_dropped"`
	Delivered     *int64                 `json:"delivered"`
	Causes        map[ledger.Cause]int64 `json:"causes,omitempty"`
}

// Lost says where packets were lost; copies of packets that were delivered are no loss.
type Lost struct {
	SenderHost   *int64 `json:"sender_host"`
	Path         *int64 `json:"path"`
	ReceiverHost *int64 `json:"receiver_host"`
	Unattributed *int64 `json:"unattributed"` // of sender, path and receiver together
}

// Drop is where in the kernel one of the hosts dropped packets of an SA, outside xfrm.
type Drop struct {
	End      Label            `json:"end"`
	Stage    ledger.DropStage `json:"stage"`
	Place    ledger.Place     `json:"place"`
	Function string           `json:"function"`
	Reason   string           `json:"reason,omitempty"`
	Hook     string           `json:"hook,omitempty"`
	Packets  int64            `json:"packets"`
}

// Direction sums up what one end sent to the other.
type Direction struct {
	From        Label  `json:"from"`
	To          Label  `json:"to"`
	SAs         int    `json:"sas"`
	Joined      int    `json:"joined"`
	Numbers     int64  `json:"numbers"`
	Uncertainty int64  `json:"uncertainty"`
	Delivered   *int64 `json:"delivered"`
	Lost        Lost   `json:"lost"`
	Delay       *Delay `json:"delay"`
}

// Unmatched is an SA that the other end does not have.
type Unmatched struct {
	End       Label            `json:"end"`
	SPI       ledger.SPI       `json:"spi"`
	Proto     ledger.Proto     `json:"proto"`
	Src       netip.Addr       `json:"src"`
	Dst       netip.Addr       `json:"dst"`
	Direction ledger.Direction `json:"direction"`
	Packets   int64            `json:"packets"` // on the wire
}

// Finding is a finding of one end with the place that it is about.
type Finding struct {
	End   Label  `json:"end"`
	Place string `json:"place"` // "host A", "path A to B", …
	Note  string `json:"note,omitempty"`
	verdict.Finding
}

// ExitCode is 1 where packets were lost or do not add up, or a finding asks for action, else 0.
func (d *Document) ExitCode() int {
	for _, dir := range d.Directions {
		l := dir.Lost
		if nonzero(l.SenderHost, l.Path, l.ReceiverHost, l.Unattributed) {
			return 1
		}
	}
	for _, f := range d.Findings {
		if f.Severity != verdict.Info {
			return 1
		}
	}
	return 0
}

func nonzero(bins ...*int64) bool {
	for _, b := range bins {
		if b != nil && *b != 0 {
			return true
		}
	}
	return false
}
