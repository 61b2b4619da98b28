// SPDX-License-Identifier: Apache-2.0

package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
)

// HeaderSize is the size of an IKE header of either version (RFC 7296 section 3.1, RFC 2408
// section 3.1).
const HeaderSize = 28

// Header is the header of an IKE message. In IKEv1 the SPIs are called cookies.
type Header struct {
	InitiatorSPI uint64
	ResponderSPI uint64
	NextPayload  uint8
	Version      uint8 // major << 4 | minor
	Exchange     Exchange
	Flags        uint8
	MessageID    uint32
	Length       uint32
}

// Flags of RFC 7296 section 3.1. IKEv1 has none of them; its lowest bits have other meanings.
const (
	flagInitiator = 0x08
	flagResponse  = 0x20
)

// Major is the major version: 1 or 2 in everything that is in use.
func (h *Header) Major() int { return int(h.Version >> 4) }

var errShort = errors.New("shorter than an IKE header")

// ParseHeader reads the header at the start of b.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("parse IKE header: %w: %d bytes", errShort, len(b))
	}
	be := binary.BigEndian
	return Header{
		InitiatorSPI: be.Uint64(b), ResponderSPI: be.Uint64(b[8:]),
		NextPayload: b[16], Version: b[17], Exchange: Exchange(b[18]), Flags: b[19],
		MessageID: be.Uint32(b[20:]), Length: be.Uint32(b[24:]),
	}, nil
}

// Message is a header with the packet that it came in.
type Message struct {
	Header
	At        time.Time
	Src, Dst  netip.AddrPort
	Direction ledger.Direction // Unknown in a capture
}

// fragment says whether the message is one of several that carry one request or response between them:
// payload types SKF (RFC 7383 section 2.5) and the fragment payload that IKEv1 peers agree upon.
func (m *Message) fragment() bool {
	const skf, fragmentV1 = 53, 132
	return m.Major() == 2 && m.NextPayload == skf || m.Major() == 1 && m.NextPayload == fragmentV1
}
