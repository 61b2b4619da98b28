// SPDX-License-Identifier: Apache-2.0

package record

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct{ I int8 }

type sample struct {
	B      bool
	I      int8
	U      uint64
	F      float64
	S      string
	T      time.Time
	P      *inner
	L      []int
	M      map[string][]uint64
	N      map[int]map[string]bool
	A      [2]string
	Number *uint8
}

func TestChanges(t *testing.T) {
	c, err := codecOf(reflect.TypeFor[sample]())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for name, tc := range map[string]struct {
		from, to sample
		want     string
	}{
		"nothing":            {want: ""},
		"a difference":       {sample{U: 1000, I: 5}, sample{U: 1017, I: -5}, `{"I":-10,"U":17}`},
		"fallen":             {sample{U: 5}, sample{U: 3}, `{"U":-2}`},
		"beyond 63 bits":     {sample{}, sample{U: math.MaxUint64}, `{"U":-1}`},
		"words":              {sample{}, sample{B: true, F: 0.5, S: "a\"b", T: at}, `{"B":true,"F":0.5,"S":"a\"b","T":"2026-01-02T03:04:05.000000006Z"}`},
		"no number":          {sample{}, sample{F: math.Inf(-1)}, `{"F":"-Inf"}`},
		"empty is not nil":   {sample{}, sample{L: []int{}, M: map[string][]uint64{}}, `{"L":[0,{}],"M":[{}]}`},
		"nil is not empty":   {sample{L: []int{}, M: map[string][]uint64{}}, sample{}, `{"L":null,"M":null}`},
		"longer":             {sample{L: []int{1}}, sample{L: []int{1, 0, 7}}, `{"L":[3,{"2":7}]}`},
		"shorter":            {sample{L: []int{1, 2}}, sample{L: []int{2}}, `{"L":[1,{"0":1}]}`},
		"a pointer":          {sample{}, sample{P: &inner{}, Number: new(uint8)}, `{"P":{},"Number":0}`},
		"no pointer":         {sample{P: &inner{I: 1}}, sample{}, `{"P":null}`},
		"a key without list": {sample{}, sample{M: map[string][]uint64{"a": nil, "b": {4}}}, `{"M":[{"a":null,"b":[1,{"0":4}]}]}`},
		"a key gone":         {sample{N: map[int]map[string]bool{-1: nil, 2: nil}}, sample{N: map[int]map[string]bool{2: nil}}, `{"N":[{},["-1"]]}`},
		"an array":           {sample{}, sample{A: [2]string{"", "x"}}, `{"A":{"1":"x"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			old, now := tc.from, tc.to
			got, _ := c.diff([]byte{}, reflect.ValueOf(&old).Elem(), reflect.ValueOf(&now).Elem())
			if string(got) != tc.want {
				t.Errorf("change %s, want %s", got, tc.want)
			}
			if !reflect.DeepEqual(old, tc.to) {
				t.Errorf("the old value became %+v, want %+v", old, tc.to)
			}
			if tc.want == "" {
				return
			}
			read := tc.from
			if err := c.apply(newCursor(got, heldMax), reflect.ValueOf(&read).Elem()); err != nil || !reflect.DeepEqual(read, tc.to) {
				t.Errorf("applied it gives %+v (%v), want %+v", read, err, tc.to)
			}
		})
	}
}

// TestUnknownAndWrong: fields of a later version are passed over, nonsense is refused.
func TestUnknownAndWrong(t *testing.T) {
	c, err := codecOf(reflect.TypeFor[sample]())
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	later := `{"I":1,"Later":{"a":[1,2,{"b":null}],"c":"\"}"},"L":[1,{"0":3},"more"],"M":[{},[],0]}`
	if err := c.apply(newCursor([]byte(later), heldMax), reflect.ValueOf(&s).Elem()); err != nil || s.I != 1 || s.L[0] != 3 {
		t.Errorf("%+v: %v", s, err)
	}
	for _, text := range []string{
		``, `{`, `{"I"`, `{"I":}`, `{"I":1`, `{"I":1.5}`, `{"I":128}`, `{"I":1,"I":1}`, `{"U":"1"}`, `{"B":0}`, `{"S":"`, `{"S":"\`, `{"T":"noon"}`,
		`{"L":[-1,{}]}`, `{"L":[99999999999,{}]}`, `{"L":[1,{"1":1}]}`, `{"L":[2,{"1":1,"0":1}]}`, `{"L":[1,{"x":1}]}`, `{"L":[1,[0,1],{}]}`,
		`{"L":[1,[-1,2],{}]}`, `{"L":[2,[-1,1],{}]}`, `{"L":[1,[-2,1],{}]}`, `{"N":[{"x":null}]}`, `{"A":{"2":"x"}}`, `{"F":"1"}`,
		`{"Later":` + strings.Repeat(`[`, 1000) + strings.Repeat(`]`, 1000) + `}`,
	} {
		var s sample
		if err := c.apply(newCursor([]byte(text), heldMax), reflect.ValueOf(&s).Elem()); err == nil {
			t.Errorf("%.60s is taken for %+v", text, s)
		}
	}
}

func TestNoPlaceFor(t *testing.T) {
	for name, typ := range map[string]reflect.Type{
		"unexported": reflect.TypeFor[struct{ hidden int }](),
		"a channel":  reflect.TypeFor[struct{ C chan int }](),
		"two nils":   reflect.TypeFor[*[]int](),
		"float keys": reflect.TypeFor[map[float64]int](),
		"any":        reflect.TypeFor[[]any](),
	} {
		if _, err := codecOf(typ); err == nil {
			t.Errorf("%s: a type that would lose something is accepted", name)
		}
	}
}
