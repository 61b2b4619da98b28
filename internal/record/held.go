// SPDX-License-Identifier: Apache-2.0

package record

import "reflect"

// sizeOf is about how many bytes of memory a value takes, with all that it refers to.
func sizeOf(v reflect.Value) int64 { return int64(v.Type().Size()) + behind(v) }

// behind is what a value refers to.
func behind(v reflect.Value) (n int64) {
	switch v.Kind() {
	case reflect.String:
		return int64(v.Len())
	case reflect.Pointer:
		if v.IsNil() {
			return 0
		}
		return sizeOf(v.Elem())
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice {
			n = int64(v.Cap()) * int64(v.Type().Elem().Size())
		}
		if flat(v.Type().Elem()) {
			return n
		}
		for i := range v.Len() {
			n += behind(v.Index(i))
		}
	case reflect.Struct:
		// Times and addresses refer to what they share.
		if reflect.PointerTo(v.Type()).Implements(textReader) {
			return 0
		}
		for i := range v.NumField() {
			n += behind(v.Field(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			n += mapEntry + sizeOf(it.Key()) + sizeOf(it.Value())
		}
	}
	return n
}

// flat says that values of a kind refer to nothing.
func flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Struct, reflect.Array:
		return false
	}
	return true
}
