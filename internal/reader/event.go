// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"time"
	"unsafe"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

const rawEventSize = int(unsafe.Sizeof(bpfobj.Event{}))

// Event is one thing that happened to one packet. It marshals to one object of `trace --json`.
type Event struct {
	Time         time.Time        `json:"time"`
	MonoNS       uint64           `json:"mono_ns"`
	Kind         string           `json:"kind"` // enum event_kind, lower case without prefix
	Direction    ledger.Direction `json:"direction"`
	SPI          ledger.SPI       `json:"spi"`
	Src          netip.Addr       `json:"src"`
	Dst          netip.Addr       `json:"dst"`
	SrcPort      uint16           `json:"sport,omitempty"` // UDP encapsulation
	DstPort      uint16           `json:"dport,omitempty"`
	ReqID        uint32           `json:"reqid,omitempty"`
	Seq          uint64           `json:"seq"`
	Top          uint64           `json:"top,omitempty"`           // highest number before this packet
	Value        int64            `json:"value,omitempty"`         // by kind: numbers skipped, distance below top, …
	Extent       uint32           `json:"extent,omitempty"`        // late: RFC 4737 reorder extent
	Cause        ledger.Cause     `json:"cause,omitempty"`         // xfrm_drop
	Counter      string           `json:"counter,omitempty"`       // xfrm_drop: the kernel's counter that moved
	Reason       string           `json:"reason,omitempty"`        // xfrm_drop: skb drop reason
	Location     string           `json:"location,omitempty"`      // xfrm_drop: function+offset that freed it
	ReplayWindow uint32           `json:"replay_window,omitempty"` // xfrm_drop: the SA's
	Interface    string           `json:"interface,omitempty"`
	Ifindex      uint32           `json:"ifindex,omitempty"`
	CPU          uint32           `json:"cpu"`
	IKE          *IKEHeader       `json:"ike,omitempty"` // ike

	Stage    ledger.DropStage `json:"stage,omitempty"`   // host_drop: where on its way the packet was
	Hook     string           `json:"hook,omitempty"`    // host_drop: the netfilter hook it was at or had last passed
	Place    ledger.Place     `json:"place,omitempty"`   // host_drop: the part of the kernel
	Lost     *bool            `json:"lost,omitempty"`    // host_drop: a loss, not a packet that was dealt with
	Bytes    uint32           `json:"bytes,omitempty"`   // host_drop, pmtu: of the packet
	What     ledger.PMTUKind  `json:"what,omitempty"`    // pmtu
	MTU      uint32           `json:"mtu,omitempty"`     // pmtu: that the packet has to fit; absent: not known
	Reporter netip.Addr       `json:"reporter,omitzero"` // pmtu: who sent the ICMP message
	Stack    []string         `json:"stack,omitempty"`   // xfrm_drop, host_drop: kernel functions, innermost first
}

// IKEHeader is what an IKE message says in the clear (RFC 7296 section 3.1, RFC 2408 section 3.1).
type IKEHeader struct {
	Initiator   IKESPI `json:"initiator_spi"` // IKEv1: cookies
	Responder   IKESPI `json:"responder_spi"` // 0 until it has answered
	MessageID   uint32 `json:"message_id"`
	Version     uint8  `json:"version"` // major << 4 | minor
	Exchange    uint8  `json:"exchange"`
	Flags       uint8  `json:"flags"`
	NextPayload uint8  `json:"next_payload"`
	Length      uint32 `json:"length"` // of the whole message, by its own account
}

// IKESPI is an IKE SPI (IKEv1: cookie), which JSON's numbers cannot hold.
type IKESPI uint64

// MarshalText writes the SPI as IKE daemons do: sixteen hexadecimal digits.
func (s IKESPI) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(s)), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *IKESPI) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil {
		return fmt.Errorf("read IKE SPI %q: %w", b, err)
	}
	*s = IKESPI(n)
	return nil
}

// Kinds of events, as Event.Kind has them.
const (
	KindSANew     = "sa_new"
	KindGap       = "gap"
	KindDuplicate = "duplicate"
	KindLate      = "late"
	KindStale     = "stale"
	KindRestart   = "restart"
	KindJump      = "jump"
	KindXfrmDrop  = "xfrm_drop"
	KindIKE       = "ike"
	KindRebind    = "rebind"
	KindMark      = "mark"
	KindHostDrop  = "host_drop"
	KindPMTU      = "pmtu"
)

// Translate gives names to the numbers in events that only this kernel and this machine know. Any
// of its functions may be nil; the number is shown then.
type Translate struct {
	Location  func(addr uint64) string
	Reason    func(uint32) string
	Counter   func(uint32) string
	Interface func(ifindex uint32) string
	Stack     func(id uint32, location uint64) []string
}

// clock turns the events' CLOCK_MONOTONIC into wall time, with an offset taken once, so that no two
// events change their order.
type clock struct{ wallAtZero time.Time }

func newClock() (clock, error) {
	mono, err := monoNow()
	if err != nil {
		return clock{}, err
	}
	return clock{time.Now().Add(-time.Duration(mono))}, nil
}

func (c clock) wall(monoNS uint64) time.Time { return c.wallAtZero.Add(time.Duration(monoNS)) }

// decodeEvent turns a ring record into an Event.
func (n *Names) decodeEvent(b []byte, c clock, tr Translate) (Event, error) {
	if len(b) < rawEventSize {
		return Event{}, fmt.Errorf("decode event: %d bytes, want %d: the objects and the Go side are of different builds",
			len(b), rawEventSize)
	}
	var raw bpfobj.Event
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), rawEventSize), b)
	e := Event{
		Time: c.wall(raw.TimeNs).Round(0), MonoNS: raw.TimeNs, Kind: name(n.Event, int(raw.Kind)),
		Direction: direction(raw.Dir), SPI: ledger.SPI(raw.Spi), Src: addr(raw.Src), Dst: addr(raw.Dst),
		SrcPort: raw.Sport, DstPort: raw.Dport, ReqID: raw.Reqid,
		Seq: raw.Seq, Top: raw.Top, Value: raw.Value, Extent: raw.Extent,
		Ifindex: raw.Ifindex, CPU: raw.Cpu, ReplayWindow: raw.ReplayWindow,
	}
	if tr.Interface != nil && raw.Ifindex != 0 {
		e.Interface = tr.Interface(raw.Ifindex)
	}
	if e.Kind == KindIKE {
		e.IKE = &IKEHeader{
			Initiator: IKESPI(raw.Seq), Responder: IKESPI(raw.Top), MessageID: uint32(raw.Value), Version: uint8(raw.Extent >> 24),
			Exchange: uint8(raw.Extent >> 16), Flags: uint8(raw.Extent >> 8), NextPayload: uint8(raw.Extent), Length: raw.ReplayWindow,
		}
		e.Seq, e.Top, e.Value, e.Extent, e.ReplayWindow = 0, 0, 0, 0, 0
		return e, nil
	}
	switch e.Kind {
	case KindHostDrop:
		n.hostDrop(&e, &raw, tr)
		return e, nil
	case KindPMTU:
		n.pmtuFields(&e, &raw)
		return e, nil
	}
	if e.Kind != KindXfrmDrop {
		// On the wire numbers are joined and biased, each restart an epoch further (abi.h).
		e.Seq, e.Top = plainEvent(raw.Seq, raw.Top)
		return e, nil
	}
	e.Cause = ledger.Cause(name(n.Cause, int(raw.Cause)))
	if raw.Mib != 0 {
		e.Counter = translate(tr.Counter, raw.Mib, "counter_%d")
	}
	e.where(&raw, tr)
	return e, nil
}

// where fills in the place of a drop.
func (e *Event) where(raw *bpfobj.Event, tr Translate) {
	if raw.Reason != 0 {
		e.Reason = translate(tr.Reason, raw.Reason, "reason_%d")
	}
	if raw.Location != 0 {
		e.Location = fmt.Sprintf("0x%x", raw.Location)
		if tr.Location != nil {
			e.Location = tr.Location(raw.Location)
		}
	}
	if raw.Stack > 0 && tr.Stack != nil {
		e.Stack = tr.Stack(uint32(raw.Stack-1), raw.Location)
	}
}

// hostDrop reads an EVENT_HOST_DROP, and judges it as the ledger judges the counts.
func (n *Names) hostDrop(e *Event, raw *bpfobj.Event, tr Translate) {
	e.Seq, e.Top, e.Value, e.Extent = 0, 0, 0, 0
	e.Bytes = uint32(raw.Value)
	e.Stage, e.Hook = ledger.DropStage(name(n.Stage, int(raw.Cause))), name(n.Hook, int(raw.Extent))
	e.where(raw, tr)
	key := bpfobj.DropKey{
		Location: raw.Location, Reason: raw.Reason, Ifindex: raw.Ifindex, Flags: uint8(raw.Mib),
		Stage: bpfobj.DropDropStage(raw.Cause), Hook: bpfobj.DropDropHook(raw.Extent),
	}
	id, ok := DropSource{Location: tr.Location, Reason: tr.Reason}.identify(&key, n.Stage, n.Hook)
	place, lost := id.Loss()
	lost = lost && ok
	e.Place, e.Lost = place, &lost
}

// pmtuFields reads an EVENT_PMTU.
func (n *Names) pmtuFields(e *Event, raw *bpfobj.Event) {
	var reporter [16]byte
	binary.NativeEndian.PutUint64(reporter[:], raw.Seq)
	binary.NativeEndian.PutUint64(reporter[8:], raw.Top)
	e.Seq, e.Top, e.Value, e.Extent = 0, 0, 0, 0
	e.What = ledger.PMTUKind(name(n.PMTU, int(raw.Cause)))
	e.MTU, e.Bytes = uint32(raw.Value), raw.Extent
	if reporter != ([16]byte{}) {
		e.Reporter = addr(reporter)
	}
}

// plainEvent shows the 32 bits that were on the wire. Which epoch a number was joined to is the wire
// program's own affair, and a restart begins a new one.
func plainEvent(seq, top uint64) (uint64, uint64) {
	return seq & (seqBias - 1), top & (seqBias - 1)
}

func translate(f func(uint32) string, v uint32, format string) string {
	if f != nil {
		if s := f(v); s != "" {
			return s
		}
	}
	return fmt.Sprintf(format, v)
}
