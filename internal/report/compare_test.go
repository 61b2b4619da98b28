// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	ends "xfrmscope/internal/compare"
	"xfrmscope/internal/report"
)

// TestComparison prints the comparisons that the tests of compare keep, and writes them as JSON again.
func TestComparison(t *testing.T) {
	for _, name := range []string{"places", "busy", "capture", "apart"} {
		t.Run(name, func(t *testing.T) {
			js, err := os.ReadFile(filepath.Join("..", "compare", "testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var d ends.Document
			if err := json.Unmarshal(js, &d); err != nil {
				t.Fatal(err)
			}
			var text, again bytes.Buffer
			if err := report.WriteComparison(&text, &d); err != nil {
				t.Fatal(err)
			}
			if err := report.WriteComparisonJSON(&again, &d); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(js), again.String()); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			path := filepath.Join("testdata", "compare-"+name+".txt")
			if *update {
				if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}
