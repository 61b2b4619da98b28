// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"xfrmscope/internal/lab/schematest"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
	"xfrmscope/internal/verdict"
	"xfrmscope/internal/verdict/verdicttest"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	return schematest.Strict(t, "schema.json")
}

func validate(t *testing.T, s *jsonschema.Schema, d report.Document) {
	t.Helper()
	var js bytes.Buffer
	if err := d.WriteJSON(&js); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(&js)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Errorf("%v", err)
	}
}

// TestSchema holds every golden report and every scenario of the verdicts to the published schema.
func TestSchema(t *testing.T) {
	s := schema(t)
	for name, build := range goldens {
		t.Run(name, func(t *testing.T) { validate(t, s, report.New(build())) })
	}
	for _, sc := range verdicttest.Scenarios() {
		t.Run(sc.Name, func(t *testing.T) { validate(t, s, report.New(sc.Report())) })
	}
	t.Run("empty", func(t *testing.T) {
		validate(t, s, report.New(ledger.New(ledger.Source{Kind: ledger.KindLive}).Report()))
	})
}

// TestSchemaBites makes sure that the schema refuses what it should: a field renamed, a bin left out,
// a finding without evidence.
func TestSchemaBites(t *testing.T) {
	s := schema(t)
	for name, spoil := range map[string]func(map[string]any){
		"renamed": func(d map[string]any) {
			sa := d["sas"].([]any)[0].(map[string]any)
			sa["spis"] = sa["spi"]
			delete(sa, "spi")
		},
		"bin left out": func(d map[string]any) {
			delete(d["sas"].([]any)[0].(map[string]any)["ledger"].(map[string]any), "unattributed")
		},
		"no evidence":  func(d map[string]any) { d["findings"].([]any)[0].(map[string]any)["evidence"] = []any{} },
		"unheard of":   func(d map[string]any) { d["self"].(map[string]any)["mood"] = "good" },
		"other schema": func(d map[string]any) { d["schema"] = "xfrmscope/2" },
	} {
		t.Run(name, func(t *testing.T) {
			var js bytes.Buffer
			if err := report.New(goldens["faults"]()).WriteJSON(&js); err != nil {
				t.Fatal(err)
			}
			var d map[string]any
			if err := json.Unmarshal(js.Bytes(), &d); err != nil {
				t.Fatal(err)
			}
			spoil(d)
			if s.Validate(d) == nil {
				t.Error("the schema accepts it")
			}
		})
	}
}

// TestSchemaKnowsEveryKind keeps the list of identifiers in the schema equal to the catalogue.
func TestSchemaKnowsEveryKind(t *testing.T) {
	s := schema(t)
	var known []string
	for _, v := range s.Properties["findings"].Items2020.Ref.Properties["id"].Ref.Enum.Values {
		known = append(known, v.(string))
	}
	var want []string
	for _, k := range verdict.Catalogue() {
		want = append(want, string(k.ID))
	}
	slices.Sort(known)
	slices.Sort(want)
	if !slices.Equal(known, want) {
		t.Errorf("schema knows %v, the catalogue %v", known, want)
	}
}
