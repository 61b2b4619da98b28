// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// Page is docs/kernels.md.
func Page(records []Record) string {
	p := page{records: records}
	p.line(`# Kernels

<!-- Generated from internal/lab/kernels/data by go test ./internal/lab/kernels -run TestPage -update. Do not edit. -->

What each kernel lets xfrmscope see. Nothing here is inferred from a version: every cell is what the lab's tests saw in a
virtual machine with Debian's kernel of that series, emulated by QEMU, in one run, or in a later one for tests that had failed
and were mended; which tests it had is in the last table. ` + "`make test-matrix`" + ` and ` + "`make test-arm64`" + ` run them again, ` + "`make kernels-page`" + ` makes this page of it. ` + "`xfrmscope doctor`" + ` tells
the same of a machine at hand.
`)
	p.runs()
	p.features()
	p.hooks()
	p.bins()
	p.causes()
	p.programs()
	p.tests()
	return p.text.String()
}

// page is written from top to bottom. Reasons that do not fit into a cell are numbered, and told below the table.
type page struct {
	text    strings.Builder
	records []Record
	reasons []string
}

func (p *page) line(format string, args ...any) {
	if len(args) == 0 {
		p.text.WriteString(format + "\n")
		return
	}
	fmt.Fprintf(&p.text, format+"\n", args...)
}

// because is the mark of a reason.
func (p *page) because(reason string) string {
	i := slices.Index(p.reasons, reason)
	if i < 0 {
		i = len(p.reasons)
		p.reasons = append(p.reasons, reason)
	}
	return fmt.Sprintf("[%d]", i+1)
}

// table writes a row for each name, its cells by record, and the reasons that the cells refer to.
func (p *page) table(head string, names []string, cell func(name string, r Record) string) {
	p.reasons = nil
	cells := "| " + head + " |"
	for _, r := range p.records {
		cells += " " + r.Name + " |"
	}
	p.line("%s", cells)
	p.line("%s", "|---|"+strings.Repeat("---|", len(p.records)))
	for _, name := range names {
		cells := "| " + name + " |"
		for _, r := range p.records {
			cells += " " + cell(name, r) + " |"
		}
		p.line("%s", cells)
	}
	p.line("")
	for i, reason := range p.reasons {
		p.line("[%d] `%s`  ", i+1, reason)
	}
	if len(p.reasons) > 0 {
		p.line("")
	}
}

func (p *page) runs() {
	p.line("| kernel | release | run on | tests passed | declined | failed |\n|---|---|---|---|---|---|")
	for _, r := range p.records {
		count := map[string]int{}
		for _, t := range r.Tests {
			count[t.Outcome]++
		}
		p.line("| %s | %s | %s | %d | %d | %d |", r.Name, r.Release, r.Date, count[Passed], count[Declined], count[Failed])
	}
	p.line("")
}

func (p *page) features() {
	p.line(`## What the kernel offers

As ` + "`xfrmscope doctor`" + ` answers there; the version behind a name is the first that has it.
`)
	names := union(p.records, func(r Record) (out []string) {
		for _, f := range r.Features {
			out = append(out, f.Name)
		}
		return out
	})
	p.table("feature", names, func(name string, r Record) string {
		i := slices.IndexFunc(r.Features, func(f Feature) bool { return f.Name == name })
		switch {
		case i < 0:
			return "not run"
		case r.Features[i].Costs != "":
			return r.Features[i].State + " " + p.because(r.Features[i].Costs)
		}
		return r.Features[i].State
	})
}

func (p *page) hooks() {
	p.line(`## Hooks

How each hook is attached when everything is asked for at once, on a veth device with Ethernet headers (` + "`sm0`" + `) and on an
xfrm interface without (` + "`sx0`" + `). Some functions are hooked more than once: *latency* and *copy* mark the hooks of
` + "`--latency`" + ` and ` + "`capture`" + `. A dash is a hook that this kernel does not have; the reason is below the table, and what its
absence costs is what the report says then.
`)
	names := union(p.records, func(r Record) (out []string) {
		for _, h := range r.Hooks {
			out = append(out, h.Name)
		}
		return out
	})
	for i := range names {
		names[i] = "`" + names[i] + "`" // names of functions begin with what Markdown takes for emphasis
	}
	p.table("hook", names, func(name string, r Record) string {
		i := slices.IndexFunc(r.Hooks, func(h ledger.Hook) bool { return "`"+h.Name+"`" == name })
		if i < 0 {
			return "not run"
		}
		h := r.Hooks[i]
		if !h.Attached {
			return "– " + p.because(h.Why+". It costs: "+h.Costs)
		}
		way, rest, more := strings.Cut(h.Why, " (")
		if more {
			way += " " + p.because(strings.TrimSuffix(rest, ")"))
		}
		if h.Costs != "" {
			way += " " + p.because("not seen: "+h.Costs)
		}
		return way
	})
}

func (p *page) bins() {
	p.line(`## Bins of the ledger

In how many of the scenarios that ran and passed there a bin was not empty. A scenario knows what was done to its packets and
holds the report to it; none passes with a packet unattributed, unless it hides packets from every hook on purpose. 0 is a bin
that was observed and that no scenario filled; a dash is one that no report could tell. [ledger.md](ledger.md) says what the bins are.
`)
	names := union(p.records, func(r Record) (out []string) {
		for _, b := range r.Bins {
			out = append(out, b.title())
		}
		return out
	})
	p.table("bin", names, func(name string, r Record) string {
		for _, b := range r.Bins {
			switch {
			case b.title() != name:
			case !b.Observed:
				return "–"
			default:
				return fmt.Sprint(len(b.FilledBy))
			}
		}
		return "not run"
	})
}

func (b Bin) title() string { return string(b.Direction) + " `" + b.Name + "`" }

func (p *page) causes() {
	p.line(`## Causes of xfrm's drops

In how many scenarios each cause was seen that an SA's packets were dropped for.
`)
	names := union(p.records, func(r Record) (out []string) {
		for _, c := range r.Causes {
			out = append(out, "`"+c.Name+"`")
		}
		return out
	})
	p.table("cause", names, func(name string, r Record) string {
		for _, c := range r.Causes {
			if "`"+c.Name+"`" == name {
				return fmt.Sprint(len(c.SeenBy))
			}
		}
		return "0"
	})
}

func (p *page) programs() {
	p.line(`## Programs

Each compiled program loaded alone, which is to say verified, and attached in every way that there is for its kind. Where a
program is declined another serves its hook, or the table of hooks has the price.
`)
	names := union(p.records, func(r Record) (out []string) {
		for _, x := range r.Programs {
			out = append(out, x.Object+"/"+x.Name)
		}
		slices.Sort(out)
		return out
	})
	p.table("program", names, func(name string, r Record) string {
		for _, x := range r.Programs {
			if x.Object+"/"+x.Name == name {
				return p.ways(x)
			}
		}
		return "not run"
	})
}

func (p *page) ways(x Program) string {
	if x.Declined != "" {
		return "– " + p.because(strings.TrimPrefix(x.Declined, "program "+x.Name+": "))
	}
	var held []string
	for _, w := range x.Ways {
		if w.Declined == "" {
			held = append(held, w.Name)
		} else {
			held = append(held, "no "+w.Name+" "+p.because(w.Declined))
		}
	}
	return strings.Join(held, ", ")
}

func (p *page) tests() {
	p.line(`## Tests

What ran on each kernel. A test that a kernel cannot have says so, and why.
`)
	names := union(p.records, func(r Record) (out []string) {
		for _, t := range r.Tests {
			out = append(out, t.Package+" "+t.Name)
		}
		return out
	})
	slices.Sort(names)
	p.table("test", names, func(name string, r Record) string {
		for _, t := range r.Tests {
			if t.Package+" "+t.Name != name {
				continue
			}
			if t.Why != "" {
				return t.Outcome + " " + p.because(t.Why)
			}
			return t.Outcome
		}
		return "not run"
	})
}

// union is what any record names, in the order of the record that names most.
func union(records []Record, of func(Record) []string) (out []string) {
	lists := [][]string{}
	for _, r := range records {
		lists = append(lists, of(r))
	}
	slices.SortStableFunc(lists, func(a, b []string) int { return cmp.Compare(len(b), len(a)) })
	for _, list := range lists {
		for _, name := range list {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}
