// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// The elements of a JUnit report that both Jenkins and GitLab read, in the order that Jenkins' schema
// wants them.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr,omitempty"`
		Hostname   string          `xml:"hostname,attr,omitempty"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes the outcome as a JUnit report of one suite. The properties say what was observed and
// what with.
func (s Suite) WriteJUnit(w io.Writer, properties [][2]string) error {
	suite := junitSuite{Name: "xfrmscope check", Hostname: printable(s.Host), Time: seconds(s.Took.Seconds())}
	if !s.Start.IsZero() {
		// The schemas want an ISO 8601 time without zone; it is UTC.
		suite.Timestamp = s.Start.UTC().Format("2006-01-02T15:04:05")
	}
	for _, p := range properties {
		suite.Properties = append(suite.Properties, junitProperty{p[0], printable(p[1])})
	}
	for _, p := range s.points() {
		c := junitCase{Name: oneLine(p.name), Class: "xfrmscope." + p.class, Time: seconds(p.took)}
		figures := printable(strings.Join(p.figures, "\n"))
		if p.ok {
			c.Out = figures
		} else {
			suite.Failures++
			c.Failure = &junitFailure{Message: printable(p.message()), Type: p.class, Text: figures}
		}
		suite.Cases = append(suite.Cases, c)
	}
	suite.Tests = len(suite.Cases)
	all := junitSuites{Name: suite.Name, Tests: suite.Tests, Failures: suite.Failures, Time: suite.Time, Suites: []junitSuite{suite}}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

// Properties are what a JUnit report says about a run.
func Properties(d Document, version string) [][2]string {
	out := [][2]string{
		{"xfrmscope.version", version},
		{"source.kind", d.Source.Kind},
		{"source.duration_s", seconds(d.Source.DurationS)},
		{"sas", itoa(len(d.SAs))},
		{"self.events_lost", fmt.Sprint(d.Self.EventsLost)},
	}
	for _, p := range [][2]string{{"source.name", d.Source.Name}, {"source.kernel", d.Source.Kernel}, {"source.netns", d.Source.Netns}} {
		if p[1] != "" {
			out = append(out, p)
		}
	}
	if !d.Source.Start.IsZero() {
		out = append(out, [2]string{"source.start", d.Source.Start.Format(time.RFC3339)})
	}
	return out
}
