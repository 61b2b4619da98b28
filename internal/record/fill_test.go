// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"time"
)

// filler makes up values of any type, so that the tests reach every field there is and will be.
type filler struct{ *rand.Rand }

func newFiller(seed uint64) filler { return filler{rand.New(rand.NewPCG(seed, 1))} }

// fill gives v a value. With full, nothing that can hold something stays nil or empty.
func (f filler) fill(v reflect.Value, full bool) {
	switch v.Type() {
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(f.addr()))
		return
	case reflect.TypeFor[netip.AddrPort]():
		v.Set(reflect.ValueOf(netip.AddrPortFrom(f.addr(), uint16(f.Uint32()))))
		return
	case reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.PrefixFrom(f.addr(), f.IntN(33))))
		return
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(f.Int64N(1<<32), f.Int64N(1e9)).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(full || f.IntN(2) == 0)
	case reflect.String:
		v.SetString(f.text())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := int64(f.Uint64()) >> (65 - v.Type().Bits())
		if f.IntN(4) > 0 {
			n = f.Int64N(100) + 1
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(f.Uint64()>>(64-v.Type().Bits()) | 1)
	case reflect.Float64:
		v.SetFloat(f.NormFloat64())
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i), full)
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i), full)
		}
	case reflect.Pointer:
		if v.SetZero(); full || f.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), full)
		}
	case reflect.Slice:
		if v.SetZero(); full || f.IntN(4) > 0 {
			n := f.IntN(4)
			if full {
				n++
			}
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				f.fill(v.Index(i), full)
			}
		}
	case reflect.Map:
		if v.SetZero(); full || f.IntN(4) > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for n := f.IntN(4); n >= 0; n-- {
				if !full && n == 0 {
					break
				}
				key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				f.fill(key, full)
				f.fill(elem, full)
				v.SetMapIndex(key, elem)
			}
		}
	default:
		panic(fmt.Sprintf("no way to fill a %s", v.Type()))
	}
}

// mutate changes some of what is in v, and leaves most of it.
func (f filler) mutate(v reflect.Value) {
	switch {
	case f.IntN(12) == 0:
		f.fill(v, false)
	case v.Kind() == reflect.Struct && v.NumField() > 0 && v.Type().Field(0).IsExported():
		for i := range v.NumField() {
			if f.IntN(3) == 0 {
				f.mutate(v.Field(i))
			}
		}
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			f.mutate(v.Index(i))
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		f.mutate(v.Elem())
	case v.Kind() == reflect.Slice && !v.IsNil():
		f.mutateSlice(v)
	}
}

// mutateSlice changes elements, and lets some come, go, change places or stand twice.
func (f filler) mutateSlice(v reflect.Value) {
	for i := range v.Len() {
		if f.IntN(3) == 0 {
			f.mutate(v.Index(i))
		}
	}
	n := v.Len()
	switch {
	case n > 0 && f.IntN(4) == 0:
		i := f.IntN(n)
		v.Set(reflect.AppendSlice(v.Slice3(0, i, i), v.Slice(i+1, n)))
	case f.IntN(4) == 0:
		fresh := reflect.New(v.Type().Elem()).Elem()
		f.fill(fresh, false)
		i := f.IntN(n + 1)
		v.Set(reflect.AppendSlice(reflect.Append(v.Slice3(0, i, i), fresh), v.Slice(i, n)))
	case n > 1 && f.IntN(4) == 0:
		reflect.Swapper(v.Interface())(f.IntN(n), f.IntN(n))
	case n > 1 && f.IntN(6) == 0:
		v.Index(0).Set(v.Index(n - 1))
	}
}

func (f filler) addr() netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(f.Uint32())
	}
	switch f.IntN(4) {
	case 0:
		return netip.AddrFrom16(b)
	case 1:
		return netip.AddrFrom16(b).WithZone("eth0")
	default:
		return netip.AddrFrom4([4]byte(b[:4]))
	}
}

func (f filler) text() string {
	return []string{"a", "XfrmInError", "in", "=", "-", "", "\"quoted\\", "tab\tand\nline", "ünï", "</script>", "\u2028"}[f.IntN(11)] +
		[]string{"", "", fmt.Sprint(f.IntN(100))}[f.IntN(3)]
}
