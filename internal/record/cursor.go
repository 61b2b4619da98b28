// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// cursor reads one record, which is JSON, from its beginning to its end. It trusts nothing.
type cursor struct {
	b     []byte
	pos   int
	depth int
	spare int64 // bytes of memory that may yet be made of this record
}

// A record of n bytes may make at most spareBase + spareFactor*n bytes of memory: a new element of a list
// takes a dozen bytes and stands for at most some hundreds. Zeros and spaces pack well, so a small file may hold long
// records: heldMax bounds what a snapshot may take, however it was made.
const (
	spareBase   = 1 << 20
	spareFactor = 256
	depthMax    = 64
)

// heldMax is room for half a million SAs. It is a variable for the test.
var heldMax int64 = 1 << 30

// newCursor begins to read a record, that may make so much memory at most.
func newCursor(b []byte, room int64) *cursor {
	return &cursor{b: b, spare: min(room, spareBase+spareFactor*int64(len(b)))}
}

// fault says what is wrong and where.
func (c *cursor) fault(format string, args ...any) error {
	return fmt.Errorf("at byte %d of the record: %w", c.pos, fmt.Errorf(format, args...))
}

// afford says whether n elements of a size may be made.
func (c *cursor) afford(n int64, size int) bool {
	if n > c.spare/int64(size) {
		return false
	}
	c.spare -= n * int64(size)
	return true
}

// peek is the next byte that is no white space, 0 at the end.
func (c *cursor) peek() byte {
	for c.pos < len(c.b) {
		switch b := c.b[c.pos]; b {
		case ' ', '\t', '\r', '\n':
			c.pos++
		default:
			return b
		}
	}
	return 0
}

func (c *cursor) expect(want byte) error {
	if got := c.peek(); got != want {
		return c.fault("want %q, found %q", want, got)
	}
	c.pos++
	return nil
}

// word takes a literal if it stands there.
func (c *cursor) word(w string) bool {
	if c.peek() != w[0] || !bytes.HasPrefix(c.b[c.pos:], []byte(w)) {
		return false
	}
	c.pos += len(w)
	return true
}

func (c *cursor) null() bool { return c.word("null") }

func (c *cursor) bool() (bool, error) {
	switch {
	case c.word("true"):
		return true, nil
	case c.word("false"):
		return false, nil
	}
	return false, c.fault("want true or false")
}

// number is the text of a number.
func (c *cursor) number() string {
	c.peek()
	begin := c.pos
	for c.pos < len(c.b) && bytes.IndexByte([]byte("+-.0123456789eE"), c.b[c.pos]) >= 0 {
		c.pos++
	}
	return string(c.b[begin:c.pos])
}

func (c *cursor) int() (int64, error) {
	c.peek()
	begin := c.pos
	n, err := strconv.ParseInt(c.number(), 10, 64)
	if err != nil {
		c.pos = begin
		return 0, c.fault("want a whole number: %w", err)
	}
	return n, nil
}

// float reads a number, or the name of one that JSON cannot write.
func (c *cursor) float() (float64, error) {
	if c.peek() == '"' {
		s, err := c.string()
		if err != nil {
			return 0, err
		}
		if s != "NaN" && s != "+Inf" && s != "-Inf" {
			return 0, c.fault("want a number, found %q", s)
		}
		return strconv.ParseFloat(s, 64)
	}
	f, err := strconv.ParseFloat(c.number(), 64)
	if err != nil {
		return 0, c.fault("want a number: %w", err)
	}
	return f, nil
}

// string reads a string.
func (c *cursor) string() (string, error) {
	if err := c.expect('"'); err != nil {
		return "", err
	}
	for i := c.pos; i < len(c.b); i++ {
		switch b := c.b[i]; {
		case b == '"':
			s := string(c.b[c.pos:i])
			c.pos = i + 1
			return s, nil
		case b == '\\' || b < ' ' || b >= utf8.RuneSelf:
			return c.quoted()
		}
	}
	return "", c.fault("a string does not end")
}

// quoted reads a string with escapes, behind its opening quote.
func (c *cursor) quoted() (string, error) {
	for i := c.pos; i < len(c.b); i++ {
		switch c.b[i] {
		case '\\':
			i++
		case '"':
			var s string
			if err := json.Unmarshal(c.b[c.pos-1:i+1], &s); err != nil {
				return "", c.fault("read string: %w", err)
			}
			c.pos = i + 1
			return s, nil
		}
	}
	return "", c.fault("a string does not end")
}

// object hands fn each member's name, with its value next.
func (c *cursor) object(fn func(name string) error) error {
	return c.members('{', '}', func(int) error {
		name, err := c.string()
		if err != nil {
			return err
		}
		if err := c.expect(':'); err != nil {
			return err
		}
		return fn(name)
	})
}

// array calls fn for each element, with its value next.
func (c *cursor) array(fn func(i int) error) error { return c.members('[', ']', fn) }

func (c *cursor) members(open, end byte, fn func(i int) error) error {
	if c.depth++; c.depth > depthMax {
		return c.fault("nested too deeply")
	}
	defer func() { c.depth-- }()
	if err := c.expect(open); err != nil {
		return err
	}
	if c.peek() == end {
		c.pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := fn(i); err != nil {
			return err
		}
		switch got := c.peek(); got {
		case ',':
			c.pos++
		case end:
			c.pos++
			return nil
		default:
			return c.fault("want ',' or %q, found %q", end, got)
		}
	}
}

// skip passes over one value.
func (c *cursor) skip() error {
	switch b := c.peek(); {
	case b == '{':
		return c.object(func(string) error { return c.skip() })
	case b == '[':
		return c.array(func(int) error { return c.skip() })
	case b == '"':
		_, err := c.string()
		return err
	case b == 't' || b == 'f':
		_, err := c.bool()
		return err
	case c.null():
		return nil
	default:
		_, err := c.float()
		return err
	}
}

// raw passes over one value and hands it out as it stands.
func (c *cursor) raw() ([]byte, error) {
	c.peek()
	begin := c.pos
	if err := c.skip(); err != nil {
		return nil, err
	}
	return c.b[begin:c.pos], nil
}

// end makes sure that nothing follows.
func (c *cursor) end() error {
	if c.peek() != 0 || c.pos != len(c.b) {
		return c.fault("more than one value")
	}
	return nil
}

// appendString writes a string as JSON. Bytes that are not UTF-8 become U+FFFD, as in a report.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic("record: JSON cannot write a string: " + err.Error()) // it can write any
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
