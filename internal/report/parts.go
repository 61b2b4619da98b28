// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// Parts of a report for a screen that shows one thing at a time, in lines of at most width columns
// (commands excepted: they are there to be copied).

// SALines is one SA: its traits, and its ledger as a sum that can be checked by eye.
func (d Document) SALines(sa *ledger.SA, width int) []string {
	return lines(width, func(p *printer) { p.sa(&d, sa) })
}

// FindingLines is one finding with its evidence and what to do.
func FindingLines(f *verdict.Finding, width int) []string {
	return lines(width, func(p *printer) {
		p.wrap("  ", "  ", f.Summary)
		p.line("")
		p.evidence(f)
		p.remedy(f)
	})
}

func lines(width int, write func(*printer)) []string {
	var b bytes.Buffer
	write(&printer{w: &b, width: width}) // a buffer never fails
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// Group writes a number with its thousands apart.
func Group(n int64) string { return group(n) }

// Micros writes a time of so many microseconds in the unit that suits it.
func Micros(us int64) string { return micros(us) }

// Clean replaces what could steer a terminal in a name that others chose.
func Clean(s string) string { return clean(s) }
