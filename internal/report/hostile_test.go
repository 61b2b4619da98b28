// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"io"
	"math"
	"reflect"
	"testing"
	"time"
	"unicode"

	"xfrmscope/internal/ledger"
)

// hostile would clear a terminal, name its window and write from right to left, if it got there.
const hostile = "\x1b[2J\x1b]0;owned\a\u009b31m\u202egpj\r\n<owned>"

// fill puts hostile text and a number wherever a value has any, cut to its type, and one element in each list.
func fill(v reflect.Value, n int64) { filler{n}.fill(v, 0) }

type filler struct{ number int64 }

func (f filler) fill(v reflect.Value, depth int) {
	if depth > 12 || v.Type() == reflect.TypeFor[time.Time]() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(v.Index(0), depth+1)
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key, depth+1)
		f.fill(value, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				f.fill(v.Field(i), depth+1)
			}
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.Set(reflect.ValueOf(f.number).Convert(v.Type()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.Set(reflect.ValueOf(f.number).Convert(v.Type()))
	case reflect.Float64:
		v.SetFloat(float64(f.number))
	case reflect.Bool:
		v.SetBool(true)
	}
}

// forms are the ways to write a report that are for people.
func forms(d Document, s *Series) map[string]func(io.Writer) error {
	return map[string]func(io.Writer) error{
		"text":     d.WriteText,
		"markdown": d.WriteMarkdown,
		"html":     func(w io.Writer) error { return d.WriteHTML(w, s) },
	}
}

// TestNamesSteerNoTerminal: whatever a recording calls things, a report of it is text.
func TestNamesSteerNoTerminal(t *testing.T) {
	var r ledger.Report
	fill(reflect.ValueOf(&r).Elem(), 1)
	for name, write := range forms(New(r), nil) {
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

// TestNumbersStopNoReport: whatever a recording counts, and whenever that was, a report of it ends, and is no longer
// than others.
func TestNumbersStopNoReport(t *testing.T) {
	for _, n := range []int64{-1, 0, 1, math.MaxUint32, 1 << 62, math.MaxInt64, math.MinInt64} {
		l, series := ledger.New(ledger.Source{Kind: ledger.KindRecording}), (*Series)(nil)
		for i, at := range []time.Time{{}, time.Date(2026, 11, 20, 3, 10, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} {
			var s ledger.Snapshot
			fill(reflect.ValueOf(&s).Elem(), int64(i%2)*n)
			s.At = at
			l.Observe(s)
			if sas := l.Report().SAs; series == nil && len(sas) > 0 {
				series = NewSeries([]ledger.SAKey{keyOf(&sas[0])})
			}
			if series != nil {
				series.Add(at, l.Report().SAs)
			}
		}
		for name, write := range forms(New(l.Report()), series) {
			var b bytes.Buffer
			if err := write(&b); err != nil || b.Len() > 1<<20 {
				t.Errorf("%d, %s: %d bytes, %v", n, name, b.Len(), err)
			}
		}
	}
	var r ledger.Report
	fill(reflect.ValueOf(&r).Elem(), math.MaxInt64)
	for name, write := range forms(New(r), nil) {
		var b bytes.Buffer
		if err := write(&b); err != nil || b.Len() > 1<<20 {
			t.Errorf("%s: %d bytes, %v", name, b.Len(), err)
		}
	}
}
