// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"encoding/binary"
	"fmt"
)

// Magic numbers of the classic format, read in the file's byte order
// (draft-ietf-opsawg-pcap section 4).
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
)

const (
	classicHeader = 24
	classicRecord = 16
)

// classic is the pcap format: one header, then records.
type classic struct {
	order  binary.ByteOrder
	unitNS int64 // of the fraction of a second
}

func newClassic(r *Reader) (format, error) {
	magic, err := r.peek(4)
	if err != nil {
		return nil, r.damage(noEOF(err))
	}
	f := &classic{}
	switch {
	case binary.LittleEndian.Uint32(magic) == magicMicro:
		f.order, f.unitNS = binary.LittleEndian, 1000
	case binary.BigEndian.Uint32(magic) == magicMicro:
		f.order, f.unitNS = binary.BigEndian, 1000
	case binary.LittleEndian.Uint32(magic) == magicNano:
		f.order, f.unitNS = binary.LittleEndian, 1
	case binary.BigEndian.Uint32(magic) == magicNano:
		f.order, f.unitNS = binary.BigEndian, 1
	default:
		return nil, &FormatError{r.name, fmt.Sprintf("no capture file begins with the bytes % x", magic)}
	}
	b, err := r.peek(classicHeader)
	if err != nil {
		return nil, r.damage(noEOF(err))
	}
	if major := f.order.Uint16(b[4:]); major != 2 {
		return nil, &FormatError{r.name, fmt.Sprintf("pcap version %d.%d is not 2.x", major, f.order.Uint16(b[6:]))}
	}
	iface := Interface{
		Snaplen: f.order.Uint32(b[16:]),
		// The upper half tells about frame check sequences (section 4, FCS len).
		Link: LinkType(f.order.Uint32(b[20:]) & 0xffff),
	}
	if !iface.Link.known() {
		return nil, &LinkTypeError{Name: r.name, Type: iface.Link}
	}
	r.interfaces = []Interface{iface}
	r.offset = classicHeader
	return f, r.skip(classicHeader)
}

func (f *classic) next(r *Reader, p *Packet) error {
	b, err := r.peek(classicRecord)
	if err != nil {
		return err
	}
	seconds, fraction := f.order.Uint32(b), f.order.Uint32(b[4:])
	captured, wire := int64(f.order.Uint32(b[8:])), f.order.Uint32(b[12:])
	iface := &r.interfaces[0]
	if tooLong(captured, iface.Snaplen) {
		return fmt.Errorf("a packet of %d bytes cannot be", captured)
	}
	p.TimeNS = int64(seconds)*1e9 + int64(fraction)*f.unitNS
	p.WireLen = max(int(wire), int(captured)) // some writers leave the second one 0
	p.Interface = 0
	if err := r.take(classicRecord, captured, iface.Link); err != nil {
		return err
	}
	r.offset += classicRecord + captured
	return nil
}
