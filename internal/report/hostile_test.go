// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"io"
	"reflect"
	"testing"
	"time"
	"unicode"

	"xfrmscope/internal/ledger"
)

// hostile would clear a terminal, name its window and write from right to left, if it got there.
const hostile = "\x1b[2J\x1b]0;owned\a\u009b31m\u202egpj\r\n<owned>"

// fill puts hostile text wherever a report has any, and one element in each list.
func fill(v reflect.Value, depth int) {
	if depth > 12 || v.Type() == reflect.TypeFor[time.Time]() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(value, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// TestNamesSteerNoTerminal: whatever a recording calls things, a report of it is text.
func TestNamesSteerNoTerminal(t *testing.T) {
	var r ledger.Report
	fill(reflect.ValueOf(&r).Elem(), 0)
	d := New(r)
	for name, write := range map[string]func(io.Writer) error{
		"text":     func(w io.Writer) error { return d.WriteText(w, Options{}) },
		"markdown": d.WriteMarkdown,
		"html":     func(w io.Writer) error { return d.WriteHTML(w, nil) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Contains(b.Bytes(), []byte("owned")) {
			t.Errorf("%s: no name is in it, so nothing is proven", name)
		}
		if name == "html" {
			if bytes.Contains(b.Bytes(), []byte("<owned>")) {
				t.Error("html: a name became an element")
			}
			continue // browsers do not mind the rest
		}
		for i, c := range b.String() {
			if c != '\n' && c != '\t' && !unicode.IsPrint(c) {
				t.Errorf("%s: %U at byte %d: %q", name, c, i, b.String()[max(0, i-60):min(b.Len(), i+20)])
				break
			}
		}
	}
}
