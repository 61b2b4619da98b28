// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding"
	"reflect"
	"strings"
	"sync"

	"github.com/expr-lang/expr/types"

	"xfrmscope/internal/ledger"
)

var (
	textType = reflect.TypeFor[encoding.TextMarshaler]()
	binsType = reflect.TypeFor[ledger.Bins]()
)

// field is one key of the JSON object that a struct becomes.
type field struct {
	name  string
	index []int
	omit  bool // left out where empty
}

// known are the fields of types that were asked for before: a report may have thousands of each.
var known sync.Map

// fieldsOf lists the keys of a struct's JSON, those of embedded structs among them.
func fieldsOf(t reflect.Type) []field {
	if out, ok := known.Load(t); ok {
		return out.([]field)
	}
	out := readFields(t)
	known.Store(t, out)
	return out
}

func readFields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, rest, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous && tag == "":
			for _, inner := range readFields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
		case !f.IsExported(), name == "-", name == "":
		default:
			out = append(out, field{name: name, index: f.Index, omit: strings.Contains(rest, "omit")})
		}
	}
	return out
}

// typeOf is what the type checker is told of a Go type: the shape of its JSON. A type inside itself is
// not followed.
func typeOf(t reflect.Type, within ...reflect.Type) types.Type {
	for _, outer := range within {
		if outer == t {
			return types.Any
		}
	}
	switch {
	case t == binsType:
		m := types.Map{}
		for _, side := range []reflect.Type{reflect.TypeFor[ledger.Inbound](), reflect.TypeFor[ledger.Outbound]()} {
			for _, f := range fieldsOf(side) {
				m[f.name] = types.Int
			}
		}
		return m
	case t.Implements(textType):
		return types.String
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeOf(t.Elem(), within...)
	case reflect.Struct:
		m := types.Map{}
		for _, f := range fieldsOf(t) {
			m[f.name] = typeOf(t.FieldByIndex(f.index).Type, append(within, t)...)
		}
		return m
	case reflect.Slice, reflect.Array:
		return types.Array(typeOf(t.Elem(), within...))
	case reflect.Map:
		return types.Map{types.Extra: typeOf(t.Elem(), within...)}
	case reflect.Bool:
		return types.Bool
	case reflect.String:
		return types.String
	case reflect.Float32, reflect.Float64:
		return types.Float64
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return types.Int
	}
	return types.Any
}
