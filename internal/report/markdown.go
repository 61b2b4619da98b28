// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// WriteMarkdown writes the report for a ticket: findings, the ledger as tables, and the rest as text.
func (d Document) WriteMarkdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	m := &markdown{b}
	m.line("# xfrmscope: %s", escape(strings.Join(titleOf(&d), ", ")))
	m.line("")
	for _, f := range facts(&d) {
		m.line("- %s", escape(f))
	}
	for _, n := range d.Notes {
		m.line("- **note:** %s", escape(n))
	}
	m.findings(&d)
	m.ledger(&d)
	for _, s := range sections(&d) {
		m.line("")
		m.line("## %s", s.Title)
		m.fence(s.Text)
	}
	return b.Flush()
}

// markdown writes lines; its writer remembers the first error.
type markdown struct{ w *bufio.Writer }

func (m *markdown) line(format string, args ...any) { fmt.Fprintf(m.w, format+"\n", args...) }

func (m *markdown) findings(d *Document) {
	m.line("")
	m.line("## Findings")
	m.line("")
	if len(d.Findings) == 0 {
		m.line("No findings.")
	} else {
		m.line("| | finding | confidence | what |")
		m.line("|---|---|---:|---|")
	}
	for i := range d.Findings {
		if i == findingsMax {
			m.line("")
			m.line("… and %d more findings; the JSON report has them all.", len(d.Findings)-i)
			break
		}
		f := &d.Findings[i]
		m.line("| %s | `%s` | %.0f %% | %s |", f.Severity, f.ID, 100*f.Confidence, escape(f.Summary))
	}
	shown := map[verdict.ID]int{}
	for i := range d.Findings {
		if shown[d.Findings[i].ID]++; shown[d.Findings[i].ID] <= fullPerKind {
			m.finding(&d.Findings[i])
		}
	}
	if open := sectionText(func(p *printer) { p.open(d) }); strings.TrimSpace(open) != "" {
		m.fence(open)
	}
}

func (m *markdown) finding(f *verdict.Finding) {
	m.line("")
	m.line("### %s: %s", f.ID, f.Severity)
	m.line("")
	m.line("%s", escape(f.Summary))
	if len(f.Evidence) > 0 {
		m.line("")
		m.line("| evidence | value | counted by | |")
		m.line("|---|---:|---|---|")
		for _, e := range f.Evidence {
			m.line("| %s | %s %s | %s | %s |", code(e.Counter), group(e.Value), escape(unit(e)), escape(e.Source), escape(e.Note))
		}
	}
	if len(f.Consequences) > 0 {
		ids := make([]string, len(f.Consequences))
		for i, id := range f.Consequences {
			ids[i] = code(string(id))
		}
		m.line("")
		m.line("Explains also: %s", strings.Join(ids, ", "))
	}
	for _, r := range f.Remedy {
		m.line("")
		m.line("**%s:** %s", escape(r.For), escape(r.Text))
		if len(r.Commands) > 0 {
			m.fence(strings.Join(r.Commands, "\n"))
		}
	}
}

func (m *markdown) ledger(d *Document) {
	m.line("")
	m.line("## Ledger, in packets")
	if len(d.SAs) == 0 {
		m.line("")
		m.line("No SAs seen.")
	}
	var healthy []*ledger.SA
	sums := 0
	for i := range d.SAs {
		sa := &d.SAs[i]
		if !suffers(sa) {
			healthy = append(healthy, sa)
			continue
		}
		if sums++; sums > sumsMax {
			continue
		}
		s := sumOf(d, sa)
		m.line("")
		m.line("### SA %s", escape(s.Name))
		m.line("")
		m.line("%s", escape(s.Traits))
		m.line("")
		m.line("| | | packets | |")
		m.line("|:-:|---|---:|---|")
		for _, x := range s.Steps {
			m.line("| %s | %s | %s | %s |", escape(x.Sign), x.Name, x.Value, escape(x.Remark))
		}
	}
	if sums > sumsMax {
		m.line("")
		m.line("… and %d more SAs that lost or dropped packets; the JSON report has them all.", sums-sumsMax)
	}
	for i, sa := range healthy {
		switch i {
		case 0:
			m.line("")
			m.line("### Healthy")
			m.line("")
		case healthyMax:
			m.line("- … and %d more healthy SAs; the JSON report lists them all", len(healthy)-i)
			return
		}
		m.line("- %s", escape(saName(sa)+": "+healthyLine(sa)))
	}
}

// fence writes text as it stands. The fence is longer than any that the text holds.
func (m *markdown) fence(text string) {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	m.line("")
	m.line("%s", fence)
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		m.line("%s", clean(strings.TrimRight(line, "\n")))
	}
	m.line("%s", fence)
}

// escape keeps names from other machines from becoming markup, HTML or another cell of a table.
func escape(s string) string {
	var b strings.Builder
	for _, r := range clean(s) {
		if strings.ContainsRune("\\`*_{}[]<>#|~!&$", r) {
			switch r {
			case '<':
				b.WriteString("&lt;")
				continue
			case '>':
				b.WriteString("&gt;")
				continue
			case '&':
				b.WriteString("&amp;")
				continue
			}
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	out := b.String()
	// A sign at the beginning of a line or a cell would begin a list.
	if out == "-" || out == "+" || out == "=" {
		return "\\" + out
	}
	return out
}

// code writes a name in code's type.
func code(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(clean(s), "`", "'"), "|", "\\|")
	return "`" + s + "`"
}
