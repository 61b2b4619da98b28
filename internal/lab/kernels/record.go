// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"xfrmscope/internal/ledger"
)

// Record is what was seen on one kernel.
type Record struct {
	Name     string        `json:"name"`    // as scripts/vm/kernel is told: 5.10, 7, 6.12-arm64
	Release  string        `json:"release"` // uname -r
	Date     string        `json:"date"`    // of the run, UTC
	Features []Feature     `json:"features"`
	Programs []Program     `json:"programs"`
	Hooks    []ledger.Hook `json:"hooks"`
	Bins     []Bin         `json:"bins"`
	Causes   []Cause       `json:"causes"`
	Tests    []Test        `json:"tests"`
}

// Feature is an answer of `xfrmscope doctor --json`.
type Feature struct {
	Name  string `json:"name"`
	State string `json:"state"` // yes, no, unknown
	Why   string `json:"why,omitempty"`
	Costs string `json:"costs,omitempty"`
}

// Program is a compiled program, loaded by itself.
type Program struct {
	Object   string `json:"object"`
	Name     string `json:"name"`
	Declined string `json:"declined,omitempty"` // why it does not load here
	Ways     []Way  `json:"ways,omitempty"`
}

// Way is a manner of attaching that was tried.
type Way struct {
	Name     string `json:"name"`
	Declined string `json:"declined,omitempty"` // why it is not possible here; empty: it held
}

// Bin is one of the ledger's, over all reports of the run.
type Bin struct {
	Direction ledger.Direction `json:"direction"`
	Name      string           `json:"name"`
	Observed  bool             `json:"observed"`            // in every report that had its hooks
	FilledBy  []string         `json:"filled_by,omitempty"` // tests in which it was not empty
}

// Cause is one of xfrm's for dropping a packet.
type Cause struct {
	Name   string   `json:"name"`
	SeenBy []string `json:"seen_by"`
}

// Outcomes of a test.
const (
	Passed   = "ok"
	Failed   = "FAIL"
	Declined = "declined" // it said that this kernel cannot do it, and why
)

// Test is one test function that ran there.
type Test struct {
	Package string `json:"package"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	Why     string `json:"why,omitempty"`
}

//go:embed data/*.json
var data embed.FS

// Records are those that are committed, the oldest kernel first.
func Records() ([]Record, error) {
	paths, err := fs.Glob(data, "data/*.json")
	if err != nil {
		return nil, err
	}
	var out []Record
	for _, path := range paths {
		raw, err := fs.ReadFile(data, path)
		if err != nil {
			return nil, err
		}
		r, err := Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if path != "data/"+r.Name+".json" {
			return nil, fmt.Errorf("%s holds the record of %s", path, r.Name)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Record) int { return compare(a.Name, b.Name) })
	return out, nil
}

// Parse reads a record and refuses what it does not know.
func Parse(raw []byte) (r Record, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("read a kernel's record: %w", err)
	}
	return r, nil
}

// Write is the form in which a record is committed.
func (r Record) Write() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("write a kernel's record: %w", err)
	}
	return b.Bytes(), nil
}

// Of finds the record of the series that a release (uname -r) belongs to.
func Of(records []Record, release string) (Record, bool) {
	for _, r := range records {
		if seriesOf(r.Release) == seriesOf(release) && archOf(r.Release) == archOf(release) {
			return r, true
		}
	}
	return Record{}, false
}

// seriesOf is what kernels are told apart by: major and minor number, and from 7 on the major one alone,
// since "7" stands for the newest of them.
func seriesOf(release string) string {
	major, rest, _ := strings.Cut(release, ".")
	if n, err := strconv.Atoi(major); err == nil && n >= 7 {
		return major
	}
	minor := strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if len(minor) == 0 {
		return major
	}
	return major + "." + minor[0]
}

func archOf(release string) string { return release[strings.LastIndex(release, "-")+1:] }

// compare orders names of kernels: amd64 first, then by version.
func compare(a, b string) int {
	va, archA, _ := strings.Cut(a, "-")
	vb, archB, _ := strings.Cut(b, "-")
	if c := strings.Compare(archA, archB); c != 0 {
		return c
	}
	return slices.Compare(numbers(va), numbers(vb))
}

func numbers(version string) (out []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return out
		}
		out = append(out, n)
	}
	return out
}
