// SPDX-License-Identifier: Apache-2.0

// Package schematest holds JSON against the published schemas in docs.
package schematest

import (
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"xfrmscope/docs"
)

// Strict compiles the schema docs/NAME, made strict: it promises its readers that fields may be added, but
// here every field must be in it. others are files in docs that it refers to, by the name that it calls
// them.
func Strict(t testing.TB, name string, others ...map[string]string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	add := func(id, name string) {
		f, err := docs.Schemas.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		doc, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tighten(doc)
		if err := c.AddResource(id, doc); err != nil {
			t.Fatal(err)
		}
	}
	add(name, name)
	for _, m := range others {
		for id, name := range m {
			add(id, name)
		}
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tighten forbids what is not listed, in every object that lists its fields.
func tighten(node any) {
	switch n := node.(type) {
	case map[string]any:
		if _, lists := n["required"]; lists {
			n["additionalProperties"] = false
		}
		for _, child := range n {
			tighten(child)
		}
	case []any:
		for _, child := range n {
			tighten(child)
		}
	}
}

// Published compiles the strict schemas of everything that a command prints as JSON, by the command's name, or
// "report" for the one that several commands share.
func Published(t testing.TB) map[string]*jsonschema.Schema {
	t.Helper()
	out := map[string]*jsonschema.Schema{"report": Strict(t, "schema.json")}
	for _, name := range []string{"trace", "drops", "capture", "probe-mtu"} {
		out[name] = Strict(t, name+".schema.json")
	}
	for _, name := range []string{"compare", "doctor"} {
		out[name] = Strict(t, name+".schema.json", map[string]string{"urn:xfrmscope:report:1": "schema.json"})
	}
	return out
}
