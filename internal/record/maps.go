// SPDX-License-Identifier: Apache-2.0

package record

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
)

// mapCodec writes null for nil, else [{"key":change,…}] and, where keys went, [{…},["gone",…]]. A value
// whose key was not there before began as zero.
type mapCodec struct {
	elem  codec
	whole bool // keys are whole numbers
}

func buildMap(t reflect.Type) (codec, error) {
	c, err := codecOf(t.Elem())
	if err != nil {
		return nil, err
	}
	switch t.Key().Kind() {
	case reflect.String:
		return mapCodec{c, false}, nil
	case reflect.Int:
		return mapCodec{c, true}, nil
	default:
		return nil, fmt.Errorf("record a %s: keys are strings or whole numbers", t)
	}
}

func (m mapCodec) diff(b []byte, old, now reflect.Value) ([]byte, bool) {
	switch {
	case now.IsNil() && old.IsNil():
		return b, false
	case now.IsNil():
		old.SetZero()
		return append(b, "null"...), true
	}
	changed := old.IsNil()
	if changed {
		old.Set(reflect.MakeMap(old.Type()))
	}
	touched, gone := m.compare(old, now)
	if len(touched)+len(gone) == 0 && !changed {
		return b, false
	}
	begin := len(b)
	b = append(b, '[', '{')
	some := false
	was, is := reflect.New(old.Type().Elem()).Elem(), reflect.New(old.Type().Elem()).Elem()
	for _, k := range touched {
		before := len(b)
		if some {
			b = append(b, ',')
		}
		b = append(m.appendKey(b, k), ':')
		known := old.MapIndex(k)
		was.SetZero()
		if known.IsValid() {
			was.Set(known)
		}
		is.Set(now.MapIndex(k))
		var differs bool
		if b, differs = m.elem.diff(b, was, is); !differs {
			if known.IsValid() {
				b = b[:before]
				continue
			}
			b = m.elem.same(b)
		}
		some = true
		old.SetMapIndex(k, was)
	}
	if !some && len(gone) == 0 && !changed {
		return b[:begin], false
	}
	b = append(b, '}')
	if len(gone) > 0 {
		b = append(b, ',', '[')
		for i, k := range gone {
			if i > 0 {
				b = append(b, ',')
			}
			b = m.appendKey(b, k)
			old.SetMapIndex(k, reflect.Value{})
		}
		b = append(b, ']')
	}
	return append(b, ']'), true
}

// compare lists the keys whose values may have changed, and those that are gone, in order.
func (m mapCodec) compare(old, now reflect.Value) (touched, gone []reflect.Value) {
	stayed := 0
	for it := now.MapRange(); it.Next(); {
		was := old.MapIndex(it.Key())
		if was.IsValid() {
			stayed++
		}
		if !was.IsValid() || !was.Comparable() || !was.Equal(it.Value()) {
			touched = append(touched, it.Key())
		}
	}
	if old.Len() > stayed {
		for it := old.MapRange(); it.Next(); {
			if !now.MapIndex(it.Key()).IsValid() {
				gone = append(gone, it.Key())
			}
		}
	}
	slices.SortFunc(touched, m.order)
	slices.SortFunc(gone, m.order)
	return touched, gone
}

func (m mapCodec) order(a, b reflect.Value) int {
	if m.whole {
		return cmp.Compare(a.Int(), b.Int())
	}
	return cmp.Compare(a.String(), b.String())
}

func (m mapCodec) appendKey(b []byte, k reflect.Value) []byte {
	if m.whole {
		b = append(b, '"')
		b = strconv.AppendInt(b, k.Int(), 10)
		return append(b, '"')
	}
	return appendString(b, k.String())
}

func (mapCodec) same(b []byte) []byte { return append(b, "null"...) }

func (m mapCodec) apply(c *cursor, dst reflect.Value) error {
	if c.null() {
		dst.SetZero()
		return nil
	}
	next := reflect.MakeMapWithSize(dst.Type(), dst.Len())
	for it := dst.MapRange(); it.Next(); {
		next.SetMapIndex(it.Key(), it.Value())
	}
	dst.Set(next)
	return c.array(func(i int) error {
		switch i {
		case 0:
			return c.object(func(name string) error {
				k, err := m.key(c, dst.Type().Key(), name)
				if err != nil {
					return err
				}
				v := reflect.New(dst.Type().Elem()).Elem()
				if was := next.MapIndex(k); was.IsValid() {
					v.Set(was)
				} else if !c.afford(1, len(name)+int(v.Type().Size())+mapEntry) {
					return c.fault("more entries than a snapshot has")
				}
				if err := m.elem.apply(c, v); err != nil {
					return err
				}
				next.SetMapIndex(k, v)
				return nil
			})
		case 1:
			return c.array(func(int) error {
				name, err := c.string()
				if err != nil {
					return err
				}
				k, err := m.key(c, dst.Type().Key(), name)
				next.SetMapIndex(k, reflect.Value{})
				return err
			})
		default:
			return c.skip() // of a later version
		}
	})
}

// mapEntry is about what a map takes for an entry besides key and value.
const mapEntry = 32

// key makes a map's key of what stands for it.
func (m mapCodec) key(c *cursor, t reflect.Type, name string) (reflect.Value, error) {
	k := reflect.New(t).Elem()
	if !m.whole {
		k.SetString(name)
		return k, nil
	}
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil {
		return k, c.fault("key %q is not a whole number", name)
	}
	k.SetInt(n)
	return k, nil
}
