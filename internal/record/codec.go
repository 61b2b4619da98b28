// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"sync"
)

// codec writes how one value differs from an earlier one of the same type, and makes the later one out of
// the earlier one again. It is built from the type, so that no field can be forgotten. docs/recording.md
// holds the grammar of what it writes.
type codec interface {
	// diff appends what has to be said to make old equal to now, and makes it so; the two share no memory
	// afterwards. It returns b as it was, and false, where nothing has to be said.
	diff(b []byte, old, now reflect.Value) ([]byte, bool)
	// same appends the change that changes nothing.
	same(b []byte) []byte
	// apply reads a change and applies it to dst, which holds the old value. What dst refers to is
	// replaced and never written to: others may hold it.
	apply(c *cursor, dst reflect.Value) error
}

var (
	textAppender = reflect.TypeFor[encoding.TextAppender]()
	textReader   = reflect.TypeFor[encoding.TextUnmarshaler]()

	codecs sync.Map // of codec by reflect.Type
)

// codecOf builds the codec of a type, once.
func codecOf(t reflect.Type) (codec, error) {
	if c, ok := codecs.Load(t); ok {
		return c.(codec), nil
	}
	c, err := build(t)
	if err != nil {
		return nil, err
	}
	codecs.Store(t, c)
	return c, nil
}

func build(t reflect.Type) (codec, error) {
	p := reflect.PointerTo(t)
	if p.Implements(textReader) {
		if !p.Implements(textAppender) && !p.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
			return nil, fmt.Errorf("record a %s: it reads text and writes none", t)
		}
		return textCodec{t, p.Implements(textAppender)}, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return boolCodec{}, nil
	case reflect.String:
		return stringCodec{}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intCodec{}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return uintCodec{}, nil
	case reflect.Float64:
		return floatCodec{}, nil
	case reflect.Struct:
		return buildStruct(t)
	case reflect.Pointer:
		return buildPointer(t)
	case reflect.Slice:
		return buildSlice(t)
	case reflect.Array:
		return buildArray(t)
	case reflect.Map:
		return buildMap(t)
	default:
		return nil, fmt.Errorf("record a %s: values of this kind have no place in a recording", t)
	}
}

type boolCodec struct{}

func (boolCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	if old.Bool() == now.Bool() {
		return b, false
	}
	old.SetBool(now.Bool())
	return strconv.AppendBool(b, now.Bool()), true
}

func (boolCodec) same(b []byte) []byte { return append(b, "false"...) }

func (boolCodec) apply(c *cursor, dst reflect.Value) error {
	v, err := c.bool()
	dst.SetBool(v)
	return err
}

type stringCodec struct{}

func (stringCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	if old.String() == now.String() {
		return b, false
	}
	old.SetString(now.String())
	return appendString(b, now.String()), true
}

func (stringCodec) same(b []byte) []byte { return append(b, `""`...) }

func (stringCodec) apply(c *cursor, dst reflect.Value) error {
	s, err := c.string()
	if err == nil && !c.afford(1, max(1, len(s))) {
		return c.fault("more text than a snapshot has")
	}
	dst.SetString(s)
	return err
}

// intCodec writes differences: counters of many SAs that rise alike then look alike, which compresses.
type intCodec struct{}

func (intCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	d := now.Int() - old.Int()
	if d == 0 {
		return b, false
	}
	old.SetInt(now.Int())
	return strconv.AppendInt(b, d, 10), true
}

func (intCodec) same(b []byte) []byte { return append(b, '0') }

func (intCodec) apply(c *cursor, dst reflect.Value) error {
	d, err := c.int()
	if err != nil {
		return err
	}
	n := dst.Int() + d
	if dst.OverflowInt(n) {
		return c.fault("%d is too much for a %s", n, dst.Type())
	}
	dst.SetInt(n)
	return nil
}

// uintCodec reckons modulo 2^64: a number that falls has a negative difference.
type uintCodec struct{}

func (uintCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	d := int64(now.Uint() - old.Uint())
	if d == 0 {
		return b, false
	}
	old.SetUint(now.Uint())
	return strconv.AppendInt(b, d, 10), true
}

func (uintCodec) same(b []byte) []byte { return append(b, '0') }

func (uintCodec) apply(c *cursor, dst reflect.Value) error {
	d, err := c.int()
	if err != nil {
		return err
	}
	n := dst.Uint() + uint64(d)
	if dst.OverflowUint(n) {
		return c.fault("%d is too much for a %s", n, dst.Type())
	}
	dst.SetUint(n)
	return nil
}

type floatCodec struct{}

func (floatCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	f := now.Float()
	if math.Float64bits(old.Float()) == math.Float64bits(f) {
		return b, false
	}
	old.SetFloat(f)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return appendString(b, strconv.FormatFloat(f, 'g', -1, 64)), true
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64), true
}

func (floatCodec) same(b []byte) []byte { return append(b, '0') }

func (floatCodec) apply(c *cursor, dst reflect.Value) error {
	f, err := c.float()
	dst.SetFloat(f)
	return err
}

// textCodec writes what has a text of its own: addresses, SPIs, times.
type textCodec struct {
	of      reflect.Type
	appends bool
}

func (t textCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	if old.Equal(now) {
		return b, false
	}
	text, ok := t.text(now)
	if !ok {
		return b, false
	}
	old.Set(now)
	return appendString(b, text), true
}

// text gives a value's text. A value without one that can be read again, such as a time beyond the year 9999,
// is not recorded.
func (t textCodec) text(v reflect.Value) (string, bool) {
	var scratch [64]byte
	var text []byte
	var err error
	if !v.CanAddr() {
		return "", false
	}
	if t.appends {
		text, err = v.Addr().Interface().(encoding.TextAppender).AppendText(scratch[:0])
	} else {
		text, err = v.Addr().Interface().(encoding.TextMarshaler).MarshalText()
	}
	if err != nil || reflect.New(t.of).Interface().(encoding.TextUnmarshaler).UnmarshalText(text) != nil {
		return "", false
	}
	return string(text), true
}

func (t textCodec) same(b []byte) []byte {
	text, _ := t.text(reflect.New(t.of).Elem())
	return appendString(b, text)
}

func (textCodec) apply(c *cursor, dst reflect.Value) error {
	s, err := c.string()
	if err != nil {
		return err
	}
	if err := dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
		return c.fault("read %s: %w", dst.Type(), err)
	}
	return nil
}
