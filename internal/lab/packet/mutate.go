// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// Set8 overwrites a byte of a layer.
func (f *Frame) Set8(k Kind, offset int, v uint8) *Frame {
	f.Data[f.At(k)+offset] = v
	return f
}

// Set16 overwrites two bytes of a layer.
func (f *Frame) Set16(k Kind, offset int, v uint16) *Frame {
	binary.BigEndian.PutUint16(f.Data[f.At(k)+offset:], v)
	return f
}

// Set32 overwrites four bytes of a layer.
func (f *Frame) Set32(k Kind, offset int, v uint32) *Frame {
	binary.BigEndian.PutUint32(f.Data[f.At(k)+offset:], v)
	return f
}

// Cut ends the frame that many bytes into a layer; what the headers say of the length stays.
func (f *Frame) Cut(k Kind, offset int) *Frame {
	f.Data = f.Data[:f.At(k)+offset]
	return f
}

// EndAt ends the packet that many bytes into a layer: cuts it there, with IP lengths to match, and
// the UDP length too if the layer is inside UDP.
func (f *Frame) EndAt(k Kind, offset int) *Frame {
	f.Cut(k, offset)
	if at, ok := f.at[IPv4]; ok {
		binary.BigEndian.PutUint16(f.Data[at+2:], uint16(len(f.Data)-at))
	}
	if at, ok := f.at[IPv6]; ok {
		binary.BigEndian.PutUint16(f.Data[at+4:], uint16(len(f.Data)-at-40))
	}
	if at, ok := f.at[UDP]; ok && f.At(k) > at {
		binary.BigEndian.PutUint16(f.Data[at+4:], uint16(len(f.Data)-at))
	}
	return f
}

// Pad adds bytes that belong to no layer, as a link does with short frames.
func (f *Frame) Pad(n int) *Frame {
	f.Data = append(f.Data, make([]byte, n)...)
	return f
}

// Seq overwrites the ESP sequence number.
func (f *Frame) Seq(seq uint32) *Frame { return f.Set32(ESP, 4, seq) }

// SPI overwrites the SPI.
func (f *Frame) SPI(spi uint32) *Frame { return f.Set32(ESP, 0, spi) }

// Clone is a copy that can be mutated on its own.
func (f *Frame) Clone() *Frame {
	return &Frame{Data: append([]byte(nil), f.Data...), at: f.at}
}
