// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"encoding/binary"
	"fmt"
	"io"

	"xfrmscope/internal/printable"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng section 4). The section header's number reads the
// same in both byte orders.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6

	orderMagic = 0x1a2b3c4d
)

const (
	blockHead = 8 // type and length
	blockTail = 4 // the length again
	// maxDescription bounds interface descriptions, the only blocks whose options are read.
	maxDescription = 32 << 10
	// maxInterfaces bounds the memory that a file of nothing but interfaces could take.
	maxInterfaces = 1 << 16
	// maxName is more than any system gives a device.
	maxName = 256
)

// ng is the pcapng format: sections of blocks, each with byte order and interfaces of its own.
type ng struct {
	order   binary.ByteOrder
	section int // index of the section's first interface in Reader.interfaces
}

func newNG(r *Reader) (format, error) {
	f := &ng{order: binary.LittleEndian}
	// Read up to the first packet's block: damage to the section and its interfaces shows here.
	if _, _, err := f.describe(r); err != nil && err != io.EOF {
		return nil, r.damage(noEOF(err))
	}
	return f, nil
}

// describe reads blocks up to the next one with a packet, which it leaves unread.
func (f *ng) describe(r *Reader) (typ uint32, length int64, err error) {
	for {
		if typ, length, err = f.head(r); err != nil {
			return 0, 0, err
		}
		switch typ {
		case blockEnhanced, blockSimple, blockPacket:
			return typ, length, nil
		case blockSection:
			f.section = len(r.interfaces)
			err = f.pass(r, length)
		case blockInterface:
			err = f.iface(r, length)
		default:
			err = f.pass(r, length)
		}
		if err != nil {
			return 0, 0, err
		}
		r.offset += length
	}
}

// head looks at the next block's type and length. A section header also sets the byte order.
func (f *ng) head(r *Reader) (typ uint32, length int64, err error) {
	b, err := r.peek(blockHead)
	if err != nil {
		return 0, 0, err
	}
	if binary.BigEndian.Uint32(b) == blockSection {
		if b, err = r.peek(28); err != nil {
			return 0, 0, err
		}
		switch uint32(orderMagic) {
		case binary.LittleEndian.Uint32(b[8:]):
			f.order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[8:]):
			f.order = binary.BigEndian
		default:
			return 0, 0, fmt.Errorf("section header with byte order mark % x", b[8:12])
		}
		if major := f.order.Uint16(b[12:]); major != 1 {
			return 0, 0, fmt.Errorf("pcapng version %d.%d is not 1.x", major, f.order.Uint16(b[14:]))
		}
	}
	typ, length = f.order.Uint32(b), int64(f.order.Uint32(b[4:]))
	if length < shortest(typ) || length%4 != 0 {
		return 0, 0, fmt.Errorf("block of type 0x%x with a length of %d bytes", typ, length)
	}
	return typ, length, nil
}

// shortest is the length of a block without options and content.
func shortest(typ uint32) int64 {
	switch typ {
	case blockSection:
		return 28
	case blockInterface:
		return 20
	case blockEnhanced, blockPacket:
		return 32
	case blockSimple:
		return 16
	}
	return blockHead + blockTail
}

// pass skips a whole block.
func (f *ng) pass(r *Reader, length int64) error {
	if err := r.skip(length - blockTail); err != nil {
		return err
	}
	return f.tail(r, length)
}

// tail reads the copy of the length at a block's end. If it differs, the block's borders are wrong and
// nothing in or behind it can be trusted.
func (f *ng) tail(r *Reader, length int64) error {
	b, err := r.peek(blockTail)
	if err != nil {
		return noEOF(err)
	}
	if again := int64(f.order.Uint32(b)); again != length {
		return fmt.Errorf("block of %d bytes that says at its end it had %d", length, again)
	}
	return r.skip(blockTail)
}

// iface reads an interface description (section 4.2).
func (f *ng) iface(r *Reader, length int64) error {
	if length > maxDescription {
		return fmt.Errorf("interface description of %d bytes", length)
	}
	if len(r.interfaces) >= maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	b, err := r.peek(int(length))
	if err != nil {
		return noEOF(err)
	}
	iface := Interface{
		Link:    LinkType(f.order.Uint16(b[8:])),
		Snaplen: f.order.Uint32(b[12:]),
		clock:   microseconds,
	}
	for opts := b[16 : length-blockTail]; len(opts) >= 4; {
		code, size := f.order.Uint16(opts), int(f.order.Uint16(opts[2:]))
		if code == 0 { // opt_endofopt
			break
		}
		if size > len(opts)-4 {
			return fmt.Errorf("option %d of an interface description is longer than the description", code)
		}
		value := opts[4 : 4+size]
		switch {
		case code == 2: // if_name
			iface.Name = printable.Name(string(value[:min(len(value), maxName)]))
		case code == 9 && size >= 1: // if_tsresol
			if err := iface.clock.resolution(value[0]); err != nil {
				return err
			}
		case code == 14 && size >= 8: // if_tsoffset
			iface.clock.offset = int64(f.order.Uint64(value))
		}
		opts = opts[min(4+(size+3)&^3, len(opts)):]
	}
	r.interfaces = append(r.interfaces, iface)
	if err := r.skip(length - blockTail); err != nil {
		return err
	}
	return f.tail(r, length)
}

func (f *ng) next(r *Reader, p *Packet) error {
	typ, length, err := f.describe(r)
	if err != nil {
		return err
	}
	fixed := int64(28)
	if typ == blockSimple {
		fixed = 12
	}
	b, err := r.peek(int(fixed))
	if err != nil {
		return noEOF(err)
	}
	var number, wire uint32
	var ticks uint64
	captured := int64(-1)
	switch typ {
	case blockEnhanced, blockPacket: // sections 4.3 and, for the obsolete one, its appendix
		number = f.order.Uint32(b[8:])
		if typ == blockPacket { // the other half counts drops
			number = uint32(f.order.Uint16(b[8:]))
		}
		ticks = uint64(f.order.Uint32(b[12:]))<<32 | uint64(f.order.Uint32(b[16:]))
		captured, wire = int64(f.order.Uint32(b[20:])), f.order.Uint32(b[24:])
	case blockSimple: // section 4.4: the first interface, no time
		wire = f.order.Uint32(b[8:])
	}
	if int64(number) >= int64(len(r.interfaces)-f.section) {
		return fmt.Errorf("packet of interface %d in a section with %d interfaces", number, len(r.interfaces)-f.section)
	}
	p.Interface = f.section + int(number)
	iface := &r.interfaces[p.Interface]
	if typ == blockSimple {
		captured = int64(wire)
		if iface.Snaplen != 0 {
			captured = min(captured, int64(iface.Snaplen))
		}
		p.TimeNS = 0
	} else {
		p.TimeNS = iface.clock.nanoseconds(ticks)
	}
	if captured > length-fixed-blockTail || tooLong(captured, iface.Snaplen) {
		return fmt.Errorf("packet of %d bytes in a block of %d", captured, length)
	}
	p.WireLen = max(int(wire), int(captured))
	if err := r.take(fixed, captured, iface.Link); err != nil {
		return err
	}
	// Padding and options.
	if err := r.skip(length - fixed - captured - blockTail); err != nil {
		return err
	}
	if err := f.tail(r, length); err != nil {
		return err
	}
	r.offset += length
	return nil
}
