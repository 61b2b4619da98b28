// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// TestDocs holds docs/metrics.md to the help texts.
func TestDocs(t *testing.T) {
	const path = "../../docs/metrics.md"
	var b bytes.Buffer
	if err := WriteDocs(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), b.String()); diff != "" {
		t.Errorf("docs/metrics.md is not what the help texts say: run go test ./internal/export -run TestDocs -update\n%s", diff)
	}
}

var wellNamed = regexp.MustCompile(`^xfrmscope_[a-z0-9]+(_[a-z0-9]+)*$`)

// TestMetricsAreNamedAlike: names once each, counters end in _total, every metric says what it is.
func TestMetricsAreNamedAlike(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Metrics() {
		if seen[m.Name] {
			t.Errorf("%s is there twice", m.Name)
		}
		seen[m.Name] = true
		if !wellNamed.MatchString(m.Name) || m.Help == "" || m.Unit == "" {
			t.Errorf("%+v", m)
		}
		total := regexp.MustCompile(`_total$`).MatchString(m.Name)
		if total != (m.Kind == Counter) {
			t.Errorf("%s is a %s", m.Name, m.Kind)
		}
	}
}
