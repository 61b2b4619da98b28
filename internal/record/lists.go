// SPDX-License-Identifier: Apache-2.0

package record

import (
	"reflect"
	"strconv"
)

// sliceCodec writes null for nil, else [length,{"index":change,…}]. Elements that were not there before
// began as zero. Where elements changed their places, [length,runs,{…}] says where each came from: runs are
// [old index, number, …], the old index -1 for elements that are new.
type sliceCodec struct {
	elem codec
	size int
	id   *identity // nil: elements are told apart by their place
}

func buildSlice(t reflect.Type) (codec, error) {
	c, err := codecOf(t.Elem())
	if err != nil {
		return nil, err
	}
	return sliceCodec{c, max(1, int(t.Elem().Size())), identities[t.Elem()]}, nil
}

func (s sliceCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	switch {
	case now.IsNil() && old.IsNil():
		return b, false
	case now.IsNil():
		old.SetZero()
		return append(b, "null"...), true
	}
	n := now.Len()
	origin := s.origin(old, now)
	changed := old.IsNil() || old.Len() != n || origin != nil
	if changed {
		next := reflect.MakeSlice(old.Type(), n, n)
		if origin == nil {
			reflect.Copy(next, old)
		}
		for i, from := range origin {
			if from >= 0 {
				next.Index(i).Set(old.Index(from))
			}
		}
		old.Set(next)
	}
	begin := len(b)
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, ',')
	if origin != nil {
		b = appendRuns(b, origin)
		b = append(b, ',')
	}
	b, some := diffElements(b, s.elem, old, now)
	if !some {
		if !changed {
			return b[:begin], false
		}
		b = append(b, '{', '}')
	}
	return append(b, ']'), true
}

func (sliceCodec) same(b []byte) []byte { return append(b, "null"...) }

// origin says which old element each new one was, -1 for none; nil: all that are there stand where they
// stood.
func (s sliceCodec) origin(old, now reflect.Value) []int {
	if s.id == nil {
		return nil
	}
	n, m := now.Len(), old.Len()
	moved := -1
	for i := range min(n, m) {
		if !s.id.same(old.Index(i), now.Index(i)) {
			moved = i
			break
		}
	}
	if moved < 0 {
		return nil
	}
	at := make(map[any]int, m)
	for i := m - 1; i >= 0; i-- {
		at[s.id.of(old.Index(i))] = i
	}
	out := make([]int, n)
	for i := range n {
		key := s.id.of(now.Index(i))
		from, known := at[key]
		if !known {
			out[i] = -1
			continue
		}
		out[i] = from
		delete(at, key) // a second one with this key is new
	}
	return out
}

func appendRuns(b []byte, origin []int) []byte {
	b = append(b, '[')
	for i := 0; i < len(origin); {
		n := 1
		for i+n < len(origin) && (origin[i] < 0 && origin[i+n] < 0 || origin[i] >= 0 && origin[i+n] == origin[i]+n) {
			n++
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(origin[i]), 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, int64(n), 10)
		i += n
	}
	return append(b, ']')
}

func (s sliceCodec) apply(c *cursor, dst reflect.Value) error {
	if c.null() {
		dst.SetZero()
		return nil
	}
	old := dst.Slice(0, dst.Len())
	return c.array(func(i int) error {
		switch {
		case i == 0:
			v, err := c.int()
			if err != nil {
				return err
			}
			if v < 0 || v > int64(old.Len()) && !c.afford(v-int64(old.Len()), s.size) {
				return c.fault("a list of %d elements", v)
			}
			next := reflect.MakeSlice(dst.Type(), int(v), int(v))
			reflect.Copy(next, old)
			dst.Set(next)
			return nil
		case i == 1 && c.peek() == '[':
			return applyRuns(c, dst, old)
		case i <= 2 && c.peek() == '{':
			return applyElements(c, s.elem, dst)
		default:
			return c.skip() // of a later version
		}
	})
}

// applyRuns puts elements where they belong.
func applyRuns(c *cursor, next, old reflect.Value) error {
	next.Clear()
	at, from := 0, int64(0)
	err := c.array(func(i int) error {
		v, err := c.int()
		if err != nil {
			return err
		}
		if i%2 == 0 {
			from = v
			return nil
		}
		if v < 0 || v > int64(next.Len()-at) || from < -1 || from >= 0 && v > int64(old.Len())-from {
			return c.fault("elements %d from %d of a list of %d", v, from, old.Len())
		}
		if from >= 0 {
			reflect.Copy(next.Slice(at, at+int(v)), old.Slice(int(from), int(from+v)))
		}
		at += int(v)
		return nil
	})
	if err == nil && at != next.Len() {
		return c.fault("%d elements have a place, of %d", at, next.Len())
	}
	return err
}
