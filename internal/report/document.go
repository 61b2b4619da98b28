// SPDX-License-Identifier: Apache-2.0

// Package report writes what the ledger and the verdicts say: for a person at a terminal, and as JSON
// for programs. It judges nothing itself.
package report

import (
	"encoding/json"
	"io"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// Document is a ledger with its findings: the one object that every --json report is.
type Document struct {
	ledger.Report
	Findings []verdict.Finding `json:"findings"`
	Unjudged map[string]int64  `json:"unjudged"` // drops that no verdict covers, by the kernel's counter
}

// New judges a ledger and binds both.
func New(r ledger.Report) Document {
	return Document{Report: r, Findings: verdict.Judge(r), Unjudged: verdict.Unjudged(r)}
}

// ExitCode is 1 where a finding asks for action, else 0.
func (d Document) ExitCode() int { return verdict.ExitCode(d.Findings) }

// WriteJSON writes the document, indented, with keys and lists in a fixed order.
func (d Document) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(d)
}
