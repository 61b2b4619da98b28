// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"

	"xfrmscope/internal/ledger"
)

// EventKind says what a message of the kernel announces.
type EventKind string

// The announcements.
const (
	SAAdded         EventKind = "sa-added"
	SAUpdated       EventKind = "sa-updated"
	SADeleted       EventKind = "sa-deleted"      // with its last counters and replay state
	SAHardExpired   EventKind = "sa-hard-expired" // with its last counters, without replay state
	SASoftExpired   EventKind = "sa-soft-expired" // time to rekey; the SA goes on
	SAsFlushed      EventKind = "sas-flushed"     // all SAs of a protocol, without their counters
	MappingChanged  EventKind = "mapping-changed" // the peer's NAT gave it another address or port
	PolicyAdded     EventKind = "policy-added"
	PolicyUpdated   EventKind = "policy-updated"
	PolicyDeleted   EventKind = "policy-deleted"
	PolicyExpired   EventKind = "policy-expired"
	PoliciesFlushed EventKind = "policies-flushed"
	// MessagesLost means that the socket's buffer overflowed (ENOBUFS): dump again, what was announced
	// meanwhile is unknown.
	MessagesLost EventKind = "messages-lost"

	// barrier is the answer to the tracker's own request: whatever the kernel announced before it
	// has been received.
	barrier EventKind = "barrier"
)

// Event is one announcement of the kernel.
type Event struct {
	At      time.Time // when it was received
	Kind    EventKind
	SA      *SA      // the SA's events
	Policy  *Policy  // the policy's events; after a deletion by selector only what it was named by
	Mapping *Mapping // MappingChanged
	Proto   uint8    // SAsFlushed: IP protocol, 0 or 255 for all of IPsec

	seq uint32 // barrier: the request's
}

// Mapping is the change of a peer behind NAT (struct xfrm_user_mapping).
type Mapping struct {
	Key              ledger.SAKey
	ReqID            uint32
	OldSrc, NewSrc   netip.Addr
	OldPort, NewPort uint16
}

// decodeEvent reads one message of the monitor's socket. ok is false for messages of no interest.
func decodeEvent(m netlink.Message) (ev Event, ok bool, err error) {
	b := m.Data
	switch m.Header.Type {
	case msgNewSA, msgUpdSA:
		ev.Kind = SAAdded
		if m.Header.Type == msgUpdSA {
			ev.Kind = SAUpdated
		}
		ev.SA, err = pointer(decodeSA(b))
	case msgDelSA:
		ev.Kind = SADeleted
		ev.SA, err = pointer(decodeDeletedSA(b))
	case msgExpire:
		ev, err = decodeExpire(b)
	case msgFlushSA:
		ev.Kind = SAsFlushed
		if err = enough(b, 1); err == nil {
			ev.Proto = b[0]
		}
	case msgMapping:
		ev.Kind = MappingChanged
		ev.Mapping, err = pointer(decodeMapping(b))
	case msgNewPolicy, msgUpdPolicy:
		ev.Kind = PolicyAdded
		if m.Header.Type == msgUpdPolicy {
			ev.Kind = PolicyUpdated
		}
		ev.Policy, err = pointer(decodePolicy(b))
	case msgDelPolicy:
		ev.Kind = PolicyDeleted
		ev.Policy, err = pointer(decodeDeletedPolicy(b))
	case msgPolExpire:
		ev.Kind = PolicyExpired
		ev.Policy, err = pointer(decodeExpiredPolicy(b))
	case msgFlushPolicy:
		ev.Kind = PoliciesFlushed
	case msgNewSADInfo:
		ev.Kind, ev.seq = barrier, m.Header.Sequence
	default:
		return Event{}, false, nil
	}
	if err != nil {
		return Event{}, false, fmt.Errorf("decode %s message: %w", ev.Kind, err)
	}
	return ev, true, nil
}

// decodeDeletedSA reads XFRM_MSG_DELSA: the SA's name, then the SA as an attribute among the others
// (xfrm_notify_sa).
func decodeDeletedSA(b []byte) (SA, error) {
	if err := enough(b, sizeSAID); err != nil {
		return SA{}, err
	}
	for a := (attributes{rest: b[sizeSAID:]}); a.next(); {
		if a.typ != attrSA {
			continue
		}
		if !a.need(sizeSAInfo) {
			return SA{}, a.err
		}
		sa := decodeSAInfo(a.data)
		return sa, sa.readAttributes(b[sizeSAID:])
	}
	return SA{}, fmt.Errorf("%w: no description of the SA", ErrMalformed)
}

// decodeExpire reads struct xfrm_user_expire and the attributes behind it.
func decodeExpire(b []byte) (Event, error) {
	ev := Event{Kind: SASoftExpired}
	if err := enough(b, sizeExpire); err != nil {
		return ev, err
	}
	if b[sizeSAInfo] != 0 {
		ev.Kind = SAHardExpired
	}
	sa := decodeSAInfo(b)
	err := sa.readAttributes(b[sizeExpire:])
	ev.SA = &sa
	return ev, err
}

// decodeDeletedPolicy reads XFRM_MSG_DELPOLICY: the policy's name, then the policy as an attribute
// (xfrm_notify_policy).
func decodeDeletedPolicy(b []byte) (Policy, error) {
	if err := enough(b, sizePolicyID); err != nil {
		return Policy{}, err
	}
	for a := (attributes{rest: b[sizePolicyID:]}); a.next(); {
		if a.typ != attrPolicy {
			continue
		}
		if !a.need(sizePolicyInfo) {
			return Policy{}, a.err
		}
		p, err := decodePolicy(a.data[:sizePolicyInfo])
		if err != nil {
			return Policy{}, err
		}
		return p, readPolicyAttributes(&p, b[sizePolicyID:])
	}
	return Policy{}, fmt.Errorf("%w: no description of the policy", ErrMalformed)
}

// decodeExpiredPolicy reads struct xfrm_user_polexpire and the attributes behind it.
func decodeExpiredPolicy(b []byte) (Policy, error) {
	if err := enough(b, sizePolExpire); err != nil {
		return Policy{}, err
	}
	p, err := decodePolicy(b[:sizePolicyInfo])
	if err != nil {
		return Policy{}, err
	}
	return p, readPolicyAttributes(&p, b[sizePolExpire:])
}

// decodeMapping reads struct xfrm_user_mapping.
func decodeMapping(b []byte) (Mapping, error) {
	if err := enough(b, sizeMapping); err != nil {
		return Mapping{}, err
	}
	family := u16(b[20:])
	return Mapping{
		Key: ledger.SAKey{
			Dst:       address(b, family),
			SPI:       ledger.SPI(be32(b[16:])),
			Proto:     protoName(b[22]),
			Direction: ledger.In, // only receiving finds out about a new mapping
		},
		ReqID:   u32(b[24:]),
		OldSrc:  address(b[28:], family),
		NewSrc:  address(b[44:], family),
		OldPort: be16(b[60:]),
		NewPort: be16(b[62:]),
	}, nil
}

func enough(b []byte, n int) error {
	if len(b) < n {
		return fmt.Errorf("%w: %d bytes of %d", ErrMalformed, len(b), n)
	}
	return nil
}

func pointer[T any](v T, err error) (*T, error) { return &v, err }
