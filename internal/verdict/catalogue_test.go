// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"xfrmscope/internal/verdict"
	"xfrmscope/internal/verdict/verdicttest"
)

// sections reads the second-level headings of the catalogue that are identifiers, and how much text
// stands under each.
func sections(t *testing.T) map[string]int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "verdicts", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no catalogue in docs/verdicts: %v", err)
	}
	heading := regexp.MustCompile(`^## ([a-z]+(?:-[a-z0-9]+)*)$`)
	out := map[string]int{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		current := ""
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if m := heading.FindStringSubmatch(line); m != nil {
				current = m[1]
				if _, twice := out[current]; twice {
					t.Errorf("%s is described twice", current)
				}
				out[current] = 0
				continue
			}
			if strings.HasPrefix(line, "## ") {
				current = ""
			}
			if current != "" {
				out[current] += len(line)
			}
		}
	}
	return out
}

// TestCatalogue: every kind of finding has a section, and every section a kind.
func TestCatalogue(t *testing.T) {
	documented := sections(t)
	for _, k := range verdict.Catalogue() {
		text, ok := documented[string(k.ID)]
		if !ok {
			t.Errorf("%s has no section in docs/verdicts", k.ID)
		}
		if text < 200 {
			t.Errorf("the section of %s says next to nothing", k.ID)
		}
		if k.Title == "" {
			t.Errorf("%s has no title", k.ID)
		}
		delete(documented, string(k.ID))
	}
	for id := range documented {
		t.Errorf("docs/verdicts describes %s, which does not exist", id)
	}
}

// TestEveryKindHasAScenario: a finding that no test provokes is a finding that nobody has seen.
func TestEveryKindHasAScenario(t *testing.T) {
	var provoked []verdict.ID
	for _, s := range verdicttest.Scenarios() {
		provoked = append(provoked, s.Want...)
	}
	for _, k := range verdict.Catalogue() {
		if !slices.Contains(provoked, k.ID) {
			t.Errorf("no scenario provokes %s", k.ID)
		}
	}
}
