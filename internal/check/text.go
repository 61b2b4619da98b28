// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// oneLine keeps what is meant to be a line one, and terminals from being told things.
func oneLine(s string) string { return printable(strings.Join(strings.Fields(s), " ")) }

// WriteText writes each point with the figures that it looked at, and a last line that sums up.
func (s Suite) WriteText(w io.Writer) error {
	var b strings.Builder
	failed := 0
	points := s.points()
	for _, p := range points {
		word := "ok  "
		if !p.ok {
			word = "FAIL"
			failed++
		}
		name := p.name
		if p.class == "command" {
			name = "command " + name
		}
		fmt.Fprintf(&b, "%s  %s\n", word, oneLine(name))
		if !p.ok {
			fmt.Fprintf(&b, "      %s\n", oneLine(p.reason))
		}
		for _, f := range p.figures {
			fmt.Fprintf(&b, "      %s\n", oneLine(f))
		}
	}
	if failed == 0 {
		fmt.Fprintf(&b, "check passed: %d of %d\n", len(points), len(points))
	} else {
		fmt.Fprintf(&b, "check failed: %d of %d\n", failed, len(points))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteTAP writes the Test Anything Protocol, version 14 (testanything.org).
func (s Suite) WriteTAP(w io.Writer) error {
	var b strings.Builder
	points := s.points()
	fmt.Fprintf(&b, "TAP version 14\n1..%d\n", len(points))
	for i, p := range points {
		if !p.ok {
			b.WriteString("not ")
		}
		name := p.name
		if p.class == "command" {
			name = "command: " + name
		}
		// A number sign would begin a directive.
		name = strings.NewReplacer(`\`, `\\`, "#", `\#`).Replace(oneLine(name))
		fmt.Fprintf(&b, "ok %d - %s\n", i+1, name)
		if p.ok && len(p.figures) == 0 {
			continue
		}
		b.WriteString("  ---\n")
		if !p.ok {
			fmt.Fprintf(&b, "  message: %s\n  severity: fail\n", yamlString(p.reason))
		}
		if len(p.figures) > 0 {
			b.WriteString("  figures:\n")
			for _, f := range p.figures {
				fmt.Fprintf(&b, "    - %s\n", yamlString(f))
			}
		}
		b.WriteString("  ...\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// yamlString writes a string as YAML 1.2's single-quoted style, which escapes nothing but the quote.
func yamlString(s string) string {
	return "'" + strings.ReplaceAll(oneLine(s), "'", "''") + "'"
}

// printable drops what YAML or XML 1.0 may not hold, and the control characters that terminals obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n', r == '\r':
			return r
		case r < 0x20, r >= 0x7f && r < 0xa0, r == 0xfffe, r == 0xffff:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// WriteGitHub writes an annotation for each point that failed, as GitHub Actions reads them from a
// step's output (workflow commands).
func (s Suite) WriteGitHub(w io.Writer) error {
	var b strings.Builder
	for _, p := range s.points() {
		if !p.ok {
			fmt.Fprintf(&b, "::error title=%s::%s\n", githubProperty("xfrmscope: "+p.name), githubData(p.message()))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// The two escapings are those of the runner: a property ends at a comma or a colon too.
func githubData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func githubProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}
