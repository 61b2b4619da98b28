// SPDX-License-Identifier: Apache-2.0

package xfrm

import "fmt"

const (
	attrHeader   = 4
	attrTypeMask = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// attributes walks over netlink attributes without copying them: the netlink library's decoder copies
// each payload to the heap, and here payloads are keys.
type attributes struct {
	rest []byte
	typ  uint16
	data []byte
	err  error
}

// next moves to the next attribute. It returns false at the end and at the first malformed header,
// which err then describes.
func (a *attributes) next() bool {
	if a.err != nil || len(a.rest) == 0 {
		return false
	}
	if len(a.rest) < attrHeader {
		a.err = fmt.Errorf("%w: %d bytes are no attribute header", ErrMalformed, len(a.rest))
		return false
	}
	size := int(u16(a.rest))
	a.typ = u16(a.rest[2:]) & attrTypeMask
	if size < attrHeader || size > len(a.rest) {
		a.err = fmt.Errorf("%w: attribute %d says %d bytes, there are %d", ErrMalformed, a.typ, size, len(a.rest))
		return false
	}
	a.data = a.rest[attrHeader:size]
	a.rest = a.rest[min((size+3)&^3, len(a.rest)):]
	return true
}

// need says whether the attribute at hand has at least n bytes, and notes an error if not. Newer
// kernels may have grown it, so more is no error.
func (a *attributes) need(n int) bool {
	if len(a.data) >= n {
		return true
	}
	a.err = fmt.Errorf("%w: attribute %d has %d bytes of %d", ErrMalformed, a.typ, len(a.data), n)
	return false
}
