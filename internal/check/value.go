// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding"
	"fmt"
	"reflect"
	"time"

	"xfrmscope/internal/ledger"
)

// object and list are what structs, maps and slices become for an expression. A nil value is a figure
// that was not observed.
type (
	object = map[string]any
	list   = []any
)

// alien is a figure that does not apply: an outbound SA has no lost_on_path.
type alien struct{}

// counters is a map whose missing keys were counted as none.
type counters map[string]any

// valueOf turns a part of a report into what an expression sees: the values of its JSON. Empty
// optional fields keep their zero, so that an absent reqid compares as 0; an absent pointer is not known.
func valueOf(v reflect.Value) (any, error) {
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return nil, nil
		}
		return valueOf(v.Elem())
	}
	if b, ok := v.Interface().(ledger.Bins); ok {
		return binsValue(b)
	}
	if at, ok := v.Interface().(time.Time); ok && at.IsZero() {
		return nil, nil
	}
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := text.MarshalText()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", v.Type(), err)
		}
		return string(b), nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return structValue(v)
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.IsNil() {
			return nil, nil
		}
		out := make(list, v.Len())
		for i := range out {
			var err error
			if out[i], err = valueOf(v.Index(i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case reflect.Map:
		return mapValue(v)
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.String:
		return v.String(), nil
	case reflect.Float32, reflect.Float64:
		return v.Float(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return int(v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int(v.Uint()), nil
	}
	return nil, fmt.Errorf("read %s: no JSON is made of it", v.Type())
}

func structValue(v reflect.Value) (any, error) {
	out := object{}
	for _, f := range fieldsOf(v.Type()) {
		member := v.FieldByIndex(f.index)
		if f.omit && member.Kind() == reflect.Slice && member.IsNil() {
			out[f.name] = list{}
			continue
		}
		x, err := valueOf(member)
		if err != nil {
			return nil, err
		}
		out[f.name] = x
	}
	return out, nil
}

func mapValue(v reflect.Value) (any, error) {
	if v.IsNil() {
		return nil, nil
	}
	numbers := v.Type().Elem().Kind() == reflect.Int64
	out := object{}
	for _, key := range v.MapKeys() {
		x, err := valueOf(v.MapIndex(key))
		if err != nil {
			return nil, err
		}
		out[fmt.Sprint(key.Interface())] = x
	}
	if numbers {
		return counters(out), nil
	}
	return out, nil
}

// binsValue has the bins of both directions; those of the other one do not apply.
func binsValue(b ledger.Bins) (any, error) {
	out := object{}
	for _, side := range []any{ledger.Inbound{}, ledger.Outbound{}} {
		for _, f := range fieldsOf(reflect.TypeOf(side)) {
			out[f.name] = alien{}
		}
	}
	var own reflect.Value
	switch {
	case b.In != nil:
		own = reflect.ValueOf(*b.In)
	case b.Out != nil:
		own = reflect.ValueOf(*b.Out)
	default:
		return out, nil
	}
	bins, err := structValue(own)
	if err != nil {
		return nil, err
	}
	for name, n := range bins.(object) {
		out[name] = n
	}
	return out, nil
}
