// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"xfrmscope/internal/check"
	"xfrmscope/internal/lab/schematest"
	"xfrmscope/internal/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

// outcomes are the goldens: one that passed, one that failed in every way, one whose command was killed.
func outcomes(t *testing.T) map[string]check.Document {
	t.Helper()
	build := func(d report.Document, c *check.Command, sources ...string) check.Document {
		expected := check.Defaults(d)
		for i, s := range sources {
			if i == 0 {
				expected = nil
			}
			e, err := check.Compile(s, "test")
			if err != nil {
				t.Fatal(err)
			}
			expected = append(expected, e)
		}
		r, err := check.Judge(check.Facts{Report: d}, expected)
		if err != nil {
			t.Fatal(err)
		}
		return check.Document{Document: d, Check: check.Conclude(c, r)}
	}
	d := faulty()
	return map[string]check.Document{
		"passed": build(d, nil, "unattributed == 0", "sa.replay_late < 10", "observed(loss) and loss < 100"),
		"failed": build(d, &check.Command{Args: []string{"sh", "-c", "echo '<&>' # 100%, \x01"}, DurationS: 1.25},
			"findings.none", `sa.lost_on_path == 0 /* # at all: 0%, none */`, `any(sas, .spi matches "^0xdead")`, "sa.reqid == 4711", `host.links[0].name == "\n::error::"`),
		"killed":  build(d, &check.Command{Args: []string{"/test/traffic"}, ExitStatus: 143, Signal: "SIGTERM", DurationS: 0.5}, "loss == 25"),
		"default": build(blind(), nil),
	}
}

func TestFormats(t *testing.T) {
	for name, d := range outcomes(t) {
		s := check.Suite{Outcome: d.Check, Host: "gw", Start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: 2500 * time.Millisecond}
		for ext, write := range map[string]func(io.Writer) error{
			"txt": s.WriteText, "tap": s.WriteTAP, "github": s.WriteGitHub,
			"xml": func(w io.Writer) error { return s.WriteJUnit(w, check.Properties(d, "1.0")) },
			"json": func(w io.Writer) error {
				return (check.Document{Document: report.Document{}, Check: d.Check}).WriteJSON(w)
			},
		} {
			t.Run(name+"."+ext, func(t *testing.T) {
				var got bytes.Buffer
				if err := write(&got); err != nil {
					t.Fatal(err)
				}
				switch ext {
				case "xml":
					checkJUnit(t, got.Bytes(), d.Check)
				case "tap":
					checkTAP(t, got.String(), d.Check)
				case "github":
					checkGitHub(t, got.String(), d.Check)
				case "json":
					// Only the check's own part is kept: the rest is the report's.
					i := bytes.Index(got.Bytes(), []byte(`  "check": {`))
					got = *bytes.NewBuffer(got.Bytes()[i:])
				}
				compare(t, name+"."+ext, got.Bytes())
			})
		}
	}
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read golden file (go test -update writes it): %v", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func points(c check.Outcome) (all, failed int) {
	all = len(c.Expectations)
	for _, r := range c.Expectations {
		if !r.Passed {
			failed++
		}
	}
	if c.Command != nil {
		all++
		if c.Command.ExitStatus != 0 {
			failed++
		}
	}
	return all, failed
}

// TestSchema holds the whole document to the published schema, in which nothing may be missing.
func TestSchema(t *testing.T) {
	schema := schematest.Strict(t, "schema.json")
	for name, d := range outcomes(t) {
		var b bytes.Buffer
		if err := d.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(&b)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// What the schema requires is really required.
		delete(v.(map[string]any)["check"].(map[string]any), "passed")
		if schema.Validate(v) == nil {
			t.Errorf("%s: a check that does not say whether it passed is valid", name)
		}
	}
}

// element is XML as it stands, for a check against the schemas of Jenkins (junit-10.xsd) and of GitLab's
// reader: which elements may stand where, and which attributes they must have.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []element  `xml:",any"`
	Text     string     `xml:",chardata"`
}

// junitRule says what an element must and may have; children come in this order.
type junitRule struct{ required, optional, children []string }

var junitRules = map[string]junitRule{
	"testsuites": {nil, []string{"name", "tests", "failures", "errors", "time", "disabled"}, []string{"testsuite"}},
	"testsuite": {[]string{"name", "tests", "failures", "errors"}, []string{"time", "disabled", "skipped", "timestamp", "hostname", "id", "package"},
		[]string{"properties", "testcase", "system-out", "system-err"}},
	"properties": {nil, nil, []string{"property"}},
	"property":   {[]string{"name", "value"}, nil, nil},
	"testcase":   {[]string{"name", "classname"}, []string{"time", "assertions", "status"}, []string{"skipped", "error", "failure", "system-out", "system-err"}},
	"failure":    {nil, []string{"message", "type"}, nil},
	"system-out": {nil, nil, nil},
}

func (e element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (e element) check(t *testing.T) {
	t.Helper()
	rule, known := junitRules[e.XMLName.Local]
	if !known {
		t.Errorf("element %s is in no schema", e.XMLName.Local)
		return
	}
	have := []string{}
	for _, a := range e.Attrs {
		have = append(have, a.Name.Local)
		if !slices.Contains(rule.required, a.Name.Local) && !slices.Contains(rule.optional, a.Name.Local) {
			t.Errorf("%s has no attribute %s", e.XMLName.Local, a.Name.Local)
		}
		switch a.Name.Local {
		case "tests", "failures", "errors", "skipped":
			if _, err := strconv.ParseUint(a.Value, 10, 32); err != nil {
				t.Errorf("%s: %v", a.Name.Local, err)
			}
		case "time":
			if _, err := strconv.ParseFloat(a.Value, 64); err != nil {
				t.Errorf("%s: %v", a.Name.Local, err)
			}
		case "timestamp":
			if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`).MatchString(a.Value) {
				t.Errorf("timestamp %q", a.Value)
			}
		}
	}
	for _, name := range rule.required {
		if !slices.Contains(have, name) {
			t.Errorf("%s lacks %s", e.XMLName.Local, name)
		}
	}
	at := 0
	for _, c := range e.Children {
		i := slices.Index(rule.children, c.XMLName.Local)
		if i < at {
			t.Errorf("%s: %s is not allowed, or out of order", e.XMLName.Local, c.XMLName.Local)
			continue
		}
		at = i
		c.check(t)
	}
}

func checkJUnit(t *testing.T, b []byte, c check.Outcome) {
	t.Helper()
	var root element
	d := xml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&root); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Token(); err != nil && !errors.Is(err, io.EOF) {
		// The newline at the end is all that may follow.
		t.Error(err)
	}
	root.check(t)
	all, failed := points(c)
	cases, failures := 0, 0
	for _, suite := range root.Children {
		for _, e := range suite.Children {
			if e.XMLName.Local != "testcase" {
				continue
			}
			cases++
			for _, child := range e.Children {
				if child.XMLName.Local == "failure" {
					failures++
					if child.attr("message") == "" {
						t.Errorf("a failure without message: %+v", e)
					}
				}
			}
		}
		if suite.attr("tests") != strconv.Itoa(all) || suite.attr("failures") != strconv.Itoa(failed) {
			t.Errorf("the suite says %s tests and %s failures, want %d and %d", suite.attr("tests"), suite.attr("failures"), all, failed)
		}
	}
	if cases != all || failures != failed {
		t.Errorf("%d cases with %d failures, want %d and %d", cases, failures, all, failed)
	}
}

// checkTAP reads TAP 14 as its grammar has it: version, plan, test points with an optional YAML block.
func checkTAP(t *testing.T, s string, c check.Outcome) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	all, failed := points(c)
	if lines[0] != "TAP version 14" || lines[1] != "1.."+strconv.Itoa(all) {
		t.Errorf("head: %q", lines[:2])
	}
	point := regexp.MustCompile(`^(not )?ok (\d+) - ((?:[^\\#]|\\.)+)$`)
	n, not, block := 0, 0, false
	for _, line := range lines[2:] {
		switch {
		case block:
			block = line != "  ..."
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("in a YAML block: %q", line)
			}
		case line == "  ---":
			block = true
		default:
			m := point.FindStringSubmatch(line)
			if m == nil {
				t.Errorf("no test point: %q", line)
				continue
			}
			n++
			if m[2] != strconv.Itoa(n) {
				t.Errorf("number %s, want %d", m[2], n)
			}
			if m[1] != "" {
				not++
			}
		}
	}
	if n != all || not != failed || block {
		t.Errorf("%d points, %d not ok, want %d and %d; open block: %v", n, not, all, failed, block)
	}
}

// checkGitHub undoes the runner's escapes and finds a command a line, nothing else.
func checkGitHub(t *testing.T, s string, c check.Outcome) {
	t.Helper()
	_, failed := points(c)
	lines := strings.Split(s, "\n")
	if len(lines)-1 != failed {
		t.Errorf("%d annotations, want %d:\n%s", len(lines)-1, failed, s)
	}
	command := regexp.MustCompile(`^::error title=([^:,\r\n]+)::([^\r\n]+)$`)
	for _, line := range lines[:len(lines)-1] {
		if !command.MatchString(line) {
			t.Errorf("no workflow command: %q", line)
		}
	}
}
