// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"xfrmscope/internal/lab/schematest"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files anew")

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	return schematest.Strict(t, "compare.schema.json", map[string]string{"urn:xfrmscope:report:1": "schema.json"})
}

// goldens are comparisons that are kept in full; the report's tests print them.
func goldens(t *testing.T) map[string]*Document {
	places := newSim()
	places.offset, places.drift = -90*time.Millisecond, 40e-6
	r := seeded()
	places.traffic(A, 3*time.Second, 9*time.Millisecond, 3000, r, mixed(r))
	places.traffic(B, 3*time.Second, 13*time.Millisecond, 2000, r, always(delivered))
	busy := newSim()
	busy.span = map[Label][2]time.Duration{A: {0, 20 * time.Second}, B: {10300 * time.Millisecond, 40 * time.Second}}
	busy.traffic(A, time.Second/2, 4*time.Millisecond, 9900, r, mixed(r))
	mixture := newSim()
	lossy(mixture)
	capture, err := New(mixture.captured(t, A), mixture.run()[B].side(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	apart := newSim()
	apart.span = map[Label][2]time.Duration{A: {0, 10 * time.Second}, B: {20 * time.Second, 40 * time.Second}}
	apart.traffic(A, time.Second/2, 4*time.Millisecond, 9900, r, always(delivered))
	return map[string]*Document{"places": places.compared(t), "busy": busy.compared(t), "capture": capture, "apart": apart.compared(t)}
}

// TestSchema holds comparisons to the published schema and to the ones that are kept.
func TestSchema(t *testing.T) {
	s := schema(t)
	for name, d := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			e := json.NewEncoder(&out)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(d); err != nil {
				t.Fatal(err)
			}
			js := out.Bytes()
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(js))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(doc); err != nil {
				t.Errorf("%v", err)
			}
			path := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(path, js, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(js)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// TestSchemaBites makes sure that the schema refuses what it should.
func TestSchemaBites(t *testing.T) {
	s := schema(t)
	for name, spoil := range map[string]func(map[string]any){
		"renamed": func(d map[string]any) {
			sa := d["sas"].([]any)[0].(map[string]any)
			sa["path"].(map[string]any)["losses"] = sa["path"].(map[string]any)["lost"]
		},
		"bin left out": func(d map[string]any) {
			delete(d["sas"].([]any)[0].(map[string]any)["receiver"].(map[string]any), "unattributed")
		},
		"a third end":  func(d map[string]any) { d["ends"] = append(d["ends"].([]any), d["ends"].([]any)[0]) },
		"other schema": func(d map[string]any) { d["schema"] = "xfrmscope/1" },
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", "places.json"))
			if err != nil {
				t.Fatal(err)
			}
			var d map[string]any
			if err := json.Unmarshal(b, &d); err != nil {
				t.Fatal(err)
			}
			spoil(d)
			if s.Validate(d) == nil {
				t.Error("the schema accepts it")
			}
		})
	}
}
