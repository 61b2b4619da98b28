// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// SAName is what an IKE daemon calls an SA.
type SAName struct {
	Key        SAKey
	ReqID      uint32
	Connection string
	Child      string
	IKE        IKESPI // initiator's SPI of the IKE SA that it belongs to; 0: not told
}

// Limits are an SA's lifetimes; what is left out is unlimited.
type Limits struct {
	SoftAddS    int64  `json:"soft_add_s,omitempty"` // seconds after it was added
	HardAddS    int64  `json:"hard_add_s,omitempty"`
	SoftPackets uint64 `json:"soft_packets,omitempty"`
	HardPackets uint64 `json:"hard_packets,omitempty"`
	SoftBytes   uint64 `json:"soft_bytes,omitempty"`
	HardBytes   uint64 `json:"hard_bytes,omitempty"`
}

// Rekey is an SA that took the place of another one during the run: same ends, direction, reqid,
// interface id and mark.
type Rekey struct {
	Direction  Direction  `json:"direction"`
	Src        netip.Addr `json:"src"`
	Dst        netip.Addr `json:"dst"`
	Proto      Proto      `json:"proto"`
	ReqID      uint32     `json:"reqid,omitempty"`
	IfID       uint32     `json:"if_id,omitempty"`
	Connection string     `json:"connection,omitempty"`
	Child      string     `json:"child,omitempty"`
	Old        SPI        `json:"old"`
	New        SPI        `json:"new"`

	Added    time.Time  `json:"added"`               // the new SA, to the millisecond where it was announced
	Ended    *time.Time `json:"ended,omitempty"`     // the old SA; absent: it is still there
	Why      EndReason  `json:"why,omitempty"`       // how it ended
	OverlapS float64    `json:"overlap_s,omitempty"` // both were there; negative: neither was

	// The wire's view: at the interface, by the clock of the kernel programs.
	OldLast  *time.Time `json:"old_last,omitempty"`  // newest packet of the old SA, sampled
	NewFirst *time.Time `json:"new_first,omitempty"` // first packet of the new SA, exact
	// SilenceS is from the old SA's last packet to the new one's first: sampled to the same quarter of a
	// second, and the pause of a tunnel that had nothing to send as well as a gap.
	SilenceS *float64 `json:"silence_s,omitempty"`

	OldRefused int64   `json:"old_refused"` // packets for the old SPI that found no SA any more, or one being removed
	NewRefused int64   `json:"new_refused"` // packets for the new SPI that found no SA yet
	GapS       float64 `json:"gap_s"`       // how long packets were refused, at most; 0: none were
}
