// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/json"
	"errors"
)

// Bins are one SA's ledger: In for what arrives here (and for captures, which do not know), Out for
// what leaves. Exactly one is set, and it alone is what JSON shows.
type Bins struct {
	In  *Inbound
	Out *Outbound
}

// Inbound holds the bins of an inbound SA in packets; nil is "not observed".
//
//	Sent         = Unique + Missing
//	Missing      = LostOnPath + Pending
//	Arrivals     = Unique + Duplicates + Stale + Unsorted
//	Arrivals     = LostInHost + XfrmDropped + Decapsulated + InFlight + Unattributed
//	Decapsulated = Delivered + PolicyDropped + InnerDropped
//
// All are changes over the run, so a bin may be negative: Pending when numbers that were open at the
// start were settled, InFlight when more packets were under way at the start than at the end.
type Inbound struct {
	Sent          *int64 `json:"sent"`
	Unique        *int64 `json:"unique"`
	Missing       *int64 `json:"missing"`
	LostOnPath    *int64 `json:"lost_on_path"`
	Pending       *int64 `json:"pending"`
	Arrivals      *int64 `json:"arrivals"`
	Duplicates    *int64 `json:"duplicates"`
	Stale         *int64 `json:"stale"`
	Unsorted      *int64 `json:"unsorted"` // read between the packet count and its sorting
	LostInHost    *int64 `json:"lost_in_host"`
	XfrmDropped   *int64 `json:"xfrm_dropped"`
	Decapsulated  *int64 `json:"decapsulated"`
	PolicyDropped *int64 `json:"policy_dropped"`
	InnerDropped  *int64 `json:"inner_dropped"`
	Delivered     *int64 `json:"delivered"`
	InFlight      *int64 `json:"in_flight"`
	Unattributed  *int64 `json:"unattributed"`
}

// Outbound holds the bins of an outbound SA in packets; nil is "not observed".
//
//	Offered      = Encapsulated + XfrmOutDropped
//	Encapsulated = OnWire + EncryptFailed + LostInHostEgress + InFlight + Unattributed
type Outbound struct {
	Offered          *int64 `json:"offered"`
	XfrmOutDropped   *int64 `json:"xfrm_out_dropped"` // before a sequence number was assigned
	Encapsulated     *int64 `json:"encapsulated"`     // sequence numbers assigned
	EncryptFailed    *int64 `json:"encrypt_failed"`   // dropped with a number: XfrmOutStateProtoError
	OnWire           *int64 `json:"on_wire"`
	LostInHostEgress *int64 `json:"lost_in_host_egress"`
	InFlight         *int64 `json:"in_flight"`
	Unattributed     *int64 `json:"unattributed"`
}

// MarshalJSON writes the bins of the one direction that is set.
func (b Bins) MarshalJSON() ([]byte, error) {
	switch {
	case b.In != nil && b.Out == nil:
		return json.Marshal(b.In)
	case b.Out != nil && b.In == nil:
		return json.Marshal(b.Out)
	}
	return nil, errors.New("marshal ledger bins: exactly one direction must be set")
}

// UnmarshalJSON reads what MarshalJSON wrote; "offered" is what tells the directions apart.
func (b *Bins) UnmarshalJSON(data []byte) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return err
	}
	if _, out := keys["offered"]; out {
		b.In, b.Out = nil, new(Outbound)
		return json.Unmarshal(data, b.Out)
	}
	b.In, b.Out = new(Inbound), nil
	return json.Unmarshal(data, b.In)
}

// Unattributed is what does not add up, and whether it could be computed.
func (b Bins) Unattributed() (int64, bool) {
	var u *int64
	switch {
	case b.In != nil:
		u = b.In.Unattributed
	case b.Out != nil:
		u = b.Out.Unattributed
	}
	if u == nil {
		return 0, false
	}
	return *u, true
}
