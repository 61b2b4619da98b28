// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Exchange types of IKEv2 (RFC 7296 section 3.1).
const (
	IKESAInit     = 34
	IKEAuth       = 35
	CreateChildSA = 36
	Informational = 37
)

// Where the fields of the IKE header are, and its flags (RFC 7296 section 3.1).
const (
	ikePort      = 500
	markerLen    = 4 // the non-ESP marker (RFC 3948 section 2.2)
	ikeLen       = 28
	ikeExchange  = 18
	ikeFlags     = 19
	ikeID        = 20
	ikeInitiator = 0x08
	ikeResponse  = 0x20
)

// Message is an IKE message on the path: what is readable of it, and what became of it.
type Message struct {
	At            time.Time
	Direction     Direction
	Initiator     uint64 // the two ends' SPIs
	Responder     uint64
	ID            uint32
	Exchange      byte
	Response      bool
	FromInitiator bool // of the IKE SA
	Again         int  // how often the same header had come by before: above 0 it is a retransmission
	Dropped       bool
	Held          bool // for ever, until Release
	Copies        int  // beyond the first
}

// Kind tells requests from responses.
type Kind int

// The kinds of messages.
const (
	AnyKind Kind = iota
	Request
	Response
)

// Control names IKE messages by their direction, exchange and kind, counts those that match, and
// acts from the First to the last of Count. It is the rule for packets that have no sequence number.
type Control struct {
	Direction Direction
	Exchange  byte // 0 is every exchange
	Kind      Kind
	First     int // of the messages that match from now on; 0 means 1
	Count     int // 0 means all further ones
	Action    Action
	Copies    int // Duplicate: how many more; 0 means 1
}

func (c Control) matches(m Message) bool {
	return c.Direction == m.Direction && (c.Exchange == 0 || c.Exchange == m.Exchange) &&
		(c.Kind == AnyKind || (c.Kind == Response) == m.Response)
}

// normalize fills in what was left out and refuses what an IKE message cannot have done to it.
func (c Control) normalize() (Control, error) {
	switch {
	case c.Direction < 0 || c.Direction >= directions:
		return c, fmt.Errorf("no such direction: %d", c.Direction)
	case c.Action != Drop && c.Action != Hold && c.Action != Duplicate:
		return c, fmt.Errorf("IKE messages are dropped, held or duplicated, not: %s", c.Action)
	case c.Kind < AnyKind || c.Kind > Response:
		return c, fmt.Errorf("no such kind of message: %d", c.Kind)
	case c.First < 0 || c.Count < 0 || c.Copies < 0:
		return c, fmt.Errorf("negative count: %+v", c)
	}
	if c.First == 0 {
		c.First = 1
	}
	if c.Action == Duplicate && c.Copies == 0 {
		c.Copies = 1
	}
	return c, nil
}

// control is a Control at work.
type control struct {
	Control
	seen int // messages that matched
	done int // messages that it acted on
}

// takes counts a message and says whether the rule acts on it.
func (c *control) takes(m Message) bool {
	if !c.matches(m) {
		return false
	}
	c.seen++
	if c.seen < c.First || c.Count > 0 && c.seen >= c.First+c.Count {
		return false
	}
	c.done++
	return true
}

// Control lets these rules, and no earlier ones, decide about IKE messages from now on. An earlier
// rule that has not met all its messages yet makes the run invalid.
func (in *Injector) Control(rules ...Control) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.verifyControl(); err != nil {
		return err
	}
	in.controls = nil
	for i, r := range rules {
		r, err := r.normalize()
		if err != nil {
			return fmt.Errorf("control rule %d: %w", i, err)
		}
		in.controls = append(in.controls, &control{Control: r})
	}
	return nil
}

func (in *Injector) verifyControl() error {
	for _, c := range in.controls {
		if c.done < c.Count {
			return fmt.Errorf("invalid run: rule %q on IKE messages %s met %d of %d", c.Action, c.Direction, c.done, c.Count)
		}
	}
	return nil
}

// Block drops everything that comes in a direction, until it is told otherwise. What it dropped is in
// the accounts of the SAs and messages.
func (in *Injector) Block(d Direction, on bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.blocked[d] = on
}

// Messages are all IKE messages so far, in the order in which they came.
func (in *Injector) Messages() []Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]Message(nil), in.messages...)
}

// message handles a frame that is no ESP; false means that it is no IKE either.
func (in *Injector) message(d Direction, frame []byte) bool {
	m, ok := parseIKE(frame)
	if !ok {
		return false
	}
	m.At, m.Direction = time.Now(), d
	for _, earlier := range in.messages {
		if earlier.same(m) {
			m.Again++
		}
	}
	copies := 0
	for _, c := range in.controls {
		if !c.takes(m) {
			continue
		}
		switch c.Action {
		case Hold:
			m.Held = true
		case Duplicate:
			copies = c.Copies
		default:
			m.Dropped = true
		}
		break
	}
	m.Dropped = m.Dropped || in.blocked[d]
	switch {
	case m.Dropped:
		m.Held = false
	case m.Held:
		in.held++
		in.parked = append(in.parked, parked{d, clone(frame)})
	default:
		m.Copies = copies
		for range 1 + copies {
			in.send(d, frame)
		}
	}
	in.messages = append(in.messages, m)
	return true
}

// same says that two messages have one header, which makes the later one a retransmission.
func (m Message) same(o Message) bool {
	return m.Direction == o.Direction && m.Initiator == o.Initiator && m.ID == o.ID && m.Exchange == o.Exchange &&
		m.Response == o.Response && m.FromInitiator == o.FromInitiator
}

// parked is a held message.
type parked struct {
	direction Direction
	frame     []byte
}

// unpark lets go the messages that are held.
func (in *Injector) unpark() {
	for _, p := range in.parked {
		in.held--
		in.send(p.direction, p.frame)
	}
	in.parked = nil
}

// parseIKE reads the header of an IKE message: on port 500, or behind the marker on port 4500.
func parseIKE(frame []byte) (m Message, ok bool) {
	h, ok := network(frame)
	if !ok || h.proto != protoUDP || h.at+udpLen > h.end {
		return m, false
	}
	from, to := binary.BigEndian.Uint16(frame[h.at:]), binary.BigEndian.Uint16(frame[h.at+2:])
	at := h.at + udpLen
	switch {
	case from == ikePort || to == ikePort:
	case from == encapPort || to == encapPort:
		if at+markerLen > h.end || binary.BigEndian.Uint32(frame[at:]) != 0 {
			return m, false
		}
		at += markerLen
	default:
		return m, false
	}
	if at+ikeLen > h.end {
		return m, false
	}
	ike := frame[at:h.end]
	flags := ike[ikeFlags]
	return Message{
		Initiator: binary.BigEndian.Uint64(ike), Responder: binary.BigEndian.Uint64(ike[8:]),
		ID: binary.BigEndian.Uint32(ike[ikeID:]), Exchange: ike[ikeExchange],
		Response: flags&ikeResponse != 0, FromInitiator: flags&ikeInitiator != 0,
	}, true
}
