// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/kernels.md anew")

// TestPage holds docs/kernels.md to the records.
func TestPage(t *testing.T) {
	const path = "../../../docs/kernels.md"
	records, err := Records()
	if err != nil {
		t.Fatal(err)
	}
	page := Page(records)
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), page); diff != "" {
		t.Errorf("docs/kernels.md is not what the records say: run make kernels-page\n%s", diff)
	}
}

// TestRecords demands of each committed record that it is whole, written as Write does, and without a failure.
func TestRecords(t *testing.T) {
	records, err := Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		raw, err := r.Write()
		if err != nil {
			t.Fatal(err)
		}
		have, err := data.ReadFile("data/" + r.Name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(raw, have) {
			t.Errorf("the record of %s is not as gather writes it", r.Name)
		}
		if r.Release == "" || r.Date == "" || len(r.Features) == 0 || len(r.Programs) == 0 || len(r.Hooks) == 0 || len(r.Tests) == 0 {
			t.Errorf("the record of %s lacks something: release %q, date %q, %d features, %d programs, %d hooks, %d tests",
				r.Name, r.Release, r.Date, len(r.Features), len(r.Programs), len(r.Hooks), len(r.Tests))
		}
		for _, test := range r.Tests {
			if test.Outcome == Failed || test.Outcome == Declined && test.Why == "" {
				t.Errorf("%s: %+v", r.Name, test)
			}
		}
		for _, h := range r.Hooks {
			if h.Why == "" || !h.Attached && h.Costs == "" {
				t.Errorf("%s: %+v", r.Name, h)
			}
		}
	}
}
