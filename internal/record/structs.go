// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"reflect"
	"strconv"
)

// structCodec writes {"Field":change,…}, the fields that changed only.
type structCodec struct {
	fields []field
	byName map[string]int
}

type field struct {
	label string // "Name":
	codec codec
}

func buildStruct(t reflect.Type) (codec, error) {
	s := &structCodec{byName: map[string]int{}}
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			return nil, fmt.Errorf("record a %s: its field %s is not exported and would be lost", t, f.Name)
		}
		c, err := codecOf(f.Type)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		s.fields = append(s.fields, field{strconv.Quote(f.Name) + ":", c})
		s.byName[f.Name] = i
	}
	return s, nil
}

func (s *structCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	begin := len(b)
	b = append(b, '{')
	some := false
	for i := range s.fields {
		before := len(b)
		if some {
			b = append(b, ',')
		}
		b = append(b, s.fields[i].label...)
		var changed bool
		if b, changed = s.fields[i].codec.diff(b, old.Field(i), now.Field(i)); changed {
			some = true
		} else {
			b = b[:before]
		}
	}
	if !some {
		return b[:begin], false
	}
	return append(b, '}'), true
}

func (*structCodec) same(b []byte) []byte { return append(b, '{', '}') }

func (s *structCodec) apply(c *cursor, dst reflect.Value) error {
	seen := make([]bool, len(s.fields))
	return c.object(func(name string) error {
		i, known := s.byName[name]
		switch {
		case !known:
			return c.skip() // of a later version
		case seen[i]:
			return c.fault("field %s stands twice", name)
		}
		seen[i] = true
		return s.fields[i].codec.apply(c, dst.Field(i))
	})
}

// pointerCodec writes null for nil, else how that to which it points changed; what was nil began as zero.
type pointerCodec struct{ elem codec }

func buildPointer(t reflect.Type) (codec, error) {
	switch t.Elem().Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return nil, fmt.Errorf("record a %s: it could be nil in two ways", t)
	}
	c, err := codecOf(t.Elem())
	if err != nil {
		return nil, err
	}
	return pointerCodec{c}, nil
}

func (p pointerCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	switch {
	case now.IsNil() && old.IsNil():
		return b, false
	case now.IsNil():
		old.SetZero()
		return append(b, "null"...), true
	}
	fresh := old.IsNil()
	if fresh {
		old.Set(reflect.New(old.Type().Elem()))
	}
	b, changed := p.elem.diff(b, old.Elem(), now.Elem())
	if fresh && !changed {
		return p.elem.same(b), true
	}
	return b, changed
}

func (p pointerCodec) same(b []byte) []byte { return append(b, "null"...) }

func (p pointerCodec) apply(c *cursor, dst reflect.Value) error {
	if c.null() {
		dst.SetZero()
		return nil
	}
	next := reflect.New(dst.Type().Elem())
	if !dst.IsNil() {
		next.Elem().Set(dst.Elem())
	} else if !c.afford(1, max(1, int(next.Elem().Type().Size()))) {
		return c.fault("more values than a snapshot has")
	}
	dst.Set(next)
	return p.elem.apply(c, next.Elem())
}

// arrayCodec writes {"index":change,…}.
type arrayCodec struct{ elem codec }

func buildArray(t reflect.Type) (codec, error) {
	c, err := codecOf(t.Elem())
	if err != nil {
		return nil, err
	}
	return arrayCodec{c}, nil
}

func (a arrayCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	return diffElements(b, a.elem, old, now)
}

func (arrayCodec) same(b []byte) []byte { return append(b, '{', '}') }

func (a arrayCodec) apply(c *cursor, dst reflect.Value) error { return applyElements(c, a.elem, dst) }

// diffElements writes {"index":change,…} of two lists of one length.
func diffElements(b []byte, elem codec, old, now reflect.Value) ([]byte, bool) {
	begin := len(b)
	b = append(b, '{')
	some := false
	for i := range now.Len() {
		before := len(b)
		if some {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, '"', ':')
		var changed bool
		if b, changed = elem.diff(b, old.Index(i), now.Index(i)); changed {
			some = true
		} else {
			b = b[:before]
		}
	}
	if !some {
		return b[:begin], false
	}
	return append(b, '}'), true
}

// applyElements reads {"index":change,…}, with rising indices.
func applyElements(c *cursor, elem codec, dst reflect.Value) error {
	last := -1
	return c.object(func(name string) error {
		i, err := strconv.Atoi(name)
		if err != nil || i <= last || i >= dst.Len() {
			return c.fault("index %q of a list of %d after %d", name, dst.Len(), last)
		}
		last = i
		return elem.apply(c, dst.Index(i))
	})
}
