// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding/json"
	"io"
	"strings"
	"time"

	"xfrmscope/internal/report"
)

// Outcome is a check from end to end: what was run, what was expected, and how both came out.
type Outcome struct {
	Passed       bool     `json:"passed"`      // the command succeeded and every expectation holds
	ExitStatus   int      `json:"exit_status"` // what xfrmscope ends with
	Command      *Command `json:"command,omitempty"`
	Expectations []Result `json:"expectations"`
}

// Command is how the command under observation ended.
type Command struct {
	Args       []string `json:"args"`
	ExitStatus int      `json:"exit_status"`      // 128 and more: ended by a signal
	Signal     string   `json:"signal,omitempty"` // its name
	DurationS  float64  `json:"duration_s"`
}

// Conclude binds the results. The command's status wins where it failed: a test that fails by itself is
// not hidden behind a figure that went wrong because of it.
func Conclude(command *Command, results []Result) Outcome {
	o := Outcome{Passed: Passed(results), Command: command, Expectations: results}
	switch {
	case command != nil && command.ExitStatus != 0:
		o.Passed, o.ExitStatus = false, command.ExitStatus
	case !o.Passed:
		o.ExitStatus = 1
	}
	return o
}

// String is the command as a user would type it, for names and messages.
func (c *Command) String() string {
	parts := make([]string, len(c.Args))
	for i, a := range c.Args {
		if a == "" || strings.ContainsAny(a, " \t\n\"'\\$`*?;&|<>(){}[]#~!") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		parts[i] = a
	}
	return strings.Join(parts, " ")
}

// ended says how the command ended.
func (c *Command) ended() string {
	if c.Signal != "" {
		return "ended by " + c.Signal
	}
	return "exit status " + itoa(c.ExitStatus)
}

// Document is a report with the outcome of a check: what check --json prints.
type Document struct {
	report.Document
	Check Outcome `json:"check"`
}

// WriteJSON writes the document, indented, with keys and lists in a fixed order.
func (d Document) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

// Suite is an outcome with what the formats for CI systems say beside it.
type Suite struct {
	Outcome
	Host  string
	Start time.Time
	Took  time.Duration
}

// point is one thing that passed or failed: the command, or an expectation.
type point struct {
	name    string
	ok      bool
	reason  string
	figures []string
	class   string
	took    float64
}

// points lists the command first, then the expectations.
func (o Outcome) points() []point {
	var out []point
	if c := o.Command; c != nil {
		p := point{name: c.String(), ok: c.ExitStatus == 0, class: "command", took: c.DurationS}
		if !p.ok {
			p.reason = "the command failed: " + c.ended()
		}
		out = append(out, p)
	}
	for _, r := range o.Expectations {
		p := point{name: r.Expr, ok: r.Passed, reason: r.Reason, class: "expectation"}
		if r.Passed && r.SAs > 0 {
			p.figures = append(p.figures, "holds for each of "+plural(r.SAs, "SA"))
		}
		for _, f := range r.Figures {
			p.figures = append(p.figures, f.String())
		}
		if r.LeftOut > 0 {
			p.figures = append(p.figures, "and "+itoa(r.LeftOut)+" more")
		}
		if !p.ok && p.reason == "" {
			p.reason = "does not hold"
		}
		out = append(out, p)
	}
	return out
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return itoa(n) + " " + what + "s"
}

// message is a failed point in one line.
func (p point) message() string {
	if len(p.figures) == 0 {
		return p.reason
	}
	return p.reason + ": " + strings.Join(p.figures, ", ")
}
