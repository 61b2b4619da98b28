// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr/types"

	"xfrmscope/internal/report"
)

// shortForms describe the names that are no keys of the report, in the order of the documentation.
var shortForms = [][3]string{
	{nameLoss, "int", "packets lost, of all SAs and of none: lost_on_path, lost_in_host, xfrm_dropped, policy_dropped, inner_dropped, xfrm_out_dropped, encrypt_failed, lost_in_host_egress, and what xfrm dropped that belongs to no SA; without replay_duplicate, because the packet itself had arrived"},
	{nameDuration, "float", "seconds that were observed: source.duration_s"},
	{nameStat, "map", "kernel.xfrm_stat: what each counter of /proc/net/xfrm_stat rose by"},
	{nameByFunc, "map", `packets dropped, by kernel function; drops["f"] is drops_by_function["f"]`},
	{nameSA, "object", "each SA in turn: an expression that names it is judged for every SA"},
	{nameInbound, "list", "the SAs that are not outbound"},
	{nameOutbound, "list", "the outbound SAs"},
	{"findings.none", "bool", "no finding of severity warning or critical"},
	{`findings.has("id")`, "bool", "there is a finding of this identifier, be it one that another explains"},
	{"observed(x)", "bool", "x was observed: see above"},
}

// Reference lists everything that an expression can name, as Markdown: docs/check.md has it word for word.
func Reference() string {
	var b strings.Builder
	env := environment()
	b.WriteString("### Short forms\n\n| name | type | is |\n|---|---|---|\n")
	for _, s := range shortForms {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s[0], s[1], s[2])
	}
	b.WriteString("\nThe bins of the [ledger](ledger.md), by themselves the sum over all SAs (of `unattributed` the sum of\n" +
		"amounts), and below `sa` or an element of `sas` those of one SA:\n\n")
	b.WriteString(paragraph(bins()))
	b.WriteString("\nThe causes for which xfrm drops packets, likewise, and the kernel function that they count under in `drops`:\n\n")
	b.WriteString("| function | causes |\n|---|---|\n")
	by := map[string][]string{}
	for _, c := range causes() {
		by[functionOf(c)] = append(by[functionOf(c)], "`"+c+"`")
	}
	for _, f := range slices.Sorted(maps.Keys(by)) {
		name := "`" + f + "`"
		if f == "" {
			name = "none"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, strings.Join(by[f], ", "))
	}
	b.WriteString("\nThe counters of `xfrm_stat`:\n\n")
	b.WriteString(paragraph(statNames()))
	b.WriteString("\n### Keys of the report\n\nAt the top, with what each is:\n\n| name | type |\n|---|---|\n")
	objects := map[string]reflect.Type{}
	for _, f := range fieldsOf(reflect.TypeFor[report.Document]()) {
		t := reflect.TypeFor[report.Document]().FieldByIndex(f.index).Type
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.name, typeName(t))
		collect(f.name, t, objects)
	}
	b.WriteString("\nBelow it; `[]` stands for an element of a list, `[…]` for a key of a map:\n\n| object | keys |\n|---|---|\n")
	for _, path := range slices.Sorted(maps.Keys(objects)) {
		var keys []string
		if t := objects[path]; t == binsType {
			keys = []string{"the bins above"}
		} else {
			for _, f := range fieldsOf(t) {
				keys = append(keys, fmt.Sprintf("`%s` %s", f.name, typeName(t.FieldByIndex(f.index).Type)))
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", path, strings.Join(keys, ", "))
	}
	missing(env)
	return b.String()
}

// missing panics where the reference would not name what the environment has: a test calls it.
func missing(env types.Map) {
	told := slices.Concat(bins(), causes())
	for _, f := range fieldsOf(reflect.TypeFor[report.Document]()) {
		told = append(told, f.name)
	}
	for _, s := range shortForms {
		told = append(told, s[0])
	}
	for name := range env {
		if !slices.Contains(told, name) {
			panic("the reference does not tell of " + name)
		}
	}
}

func paragraph(names []string) string {
	var b strings.Builder
	column := 0
	for i, name := range names {
		text := "`" + name + "`"
		if i < len(names)-1 {
			text += ","
		}
		if column > 0 && column+1+len(text) > 100 {
			b.WriteString("\n")
			column = 0
		} else if column > 0 {
			b.WriteString(" ")
			column++
		}
		b.WriteString(text)
		column += len(text)
	}
	return b.String() + "\n"
}

// typeName is a type in the words of an expression's author.
func typeName(t reflect.Type) string {
	switch {
	case t == binsType:
		return "object"
	case t.Implements(textType):
		return "string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Struct:
		return "object"
	case reflect.Slice, reflect.Array:
		return "list"
	case reflect.Map:
		return "map"
	case reflect.Bool:
		return "bool"
	case reflect.String:
		return "string"
	case reflect.Float32, reflect.Float64:
		return "float"
	default:
		return "int"
	}
}

// collect finds the objects below a path. One that is inside itself is not followed.
func collect(path string, t reflect.Type, into map[string]reflect.Type) {
	switch {
	case t == binsType:
		into[path] = t
		return
	case t.Implements(textType):
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		collect(path, t.Elem(), into)
	case reflect.Slice, reflect.Array:
		collect(path+"[]", t.Elem(), into)
	case reflect.Map:
		collect(path+"[…]", t.Elem(), into)
	case reflect.Struct:
		for outer, at := range into {
			if at == t && strings.HasPrefix(path, outer) {
				return
			}
		}
		into[path] = t
		for _, f := range fieldsOf(t) {
			collect(path+"."+f.name, t.FieldByIndex(f.index).Type, into)
		}
	}
}
