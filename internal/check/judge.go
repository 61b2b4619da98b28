// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
	"xfrmscope/internal/verdict"
)

// Defaults is what is expected of a report where nothing is said: no finding that asks for action, and a
// ledger that adds up, except of a capture, which ends at the wire.
func Defaults(d report.Document) []*Expectation {
	var out []*Expectation
	for _, source := range []string{"findings.none", "unattributed == 0"} {
		if source != "findings.none" && d.Source.Kind == ledger.KindCapture {
			continue
		}
		e, err := Compile(source, "default")
		if err != nil {
			panic(err) // a test compiles them
		}
		out = append(out, e)
	}
	return out
}

// Result is how one expectation came out.
type Result struct {
	Expr    string   `json:"expr"`
	Passed  bool     `json:"passed"`
	Reason  string   `json:"reason,omitempty"` // why not
	SAs     int      `json:"sas,omitempty"`    // for so many it was judged, where it names sa
	Figures []Figure `json:"figures"`          // what it looked at
	LeftOut int      `json:"figures_left_out,omitempty"`
}

// Figure is a value that an expectation looked at. Where it looked at several of one name, Min, Max and
// Count stand for them, or Values for those that are no numbers.
type Figure struct {
	Name   string   `json:"name"`
	SA     string   `json:"sa,omitempty"`
	Value  any      `json:"value,omitempty"`
	Min    *float64 `json:"min,omitempty"`
	Max    *float64 `json:"max,omitempty"`
	Values []any    `json:"values,omitempty"`
	Count  int      `json:"count,omitempty"`
}

// aFinding is the name of a figure that is a finding.
const aFinding = "finding"

const (
	failingMax = 3  // SAs that a failed expectation names with their figures
	figuresMax = 32 // figures that a result holds
	valuesMax  = 8  // different values of one figure
)

// Facts are what a report is judged with.
type Facts struct {
	Report report.Document
	// Function says why it cannot be told what a kernel function of that name dropped: the kernel has
	// none. nil: the report is another machine's.
	Function func(string) error
}

// Judge holds the report against each expectation.
func Judge(f Facts, expected []*Expectation) ([]Result, error) {
	env, err := values(f.Report, f.Function)
	if err != nil {
		return nil, fmt.Errorf("read the report: %w", err)
	}
	out := make([]Result, 0, len(expected))
	for _, e := range expected {
		r := e.judge(f.Report, env)
		if n := len(r.Figures); n > figuresMax {
			r.Figures, r.LeftOut = r.Figures[:figuresMax], n-figuresMax
		}
		if r.Figures == nil {
			r.Figures = []Figure{}
		}
		out = append(out, r)
	}
	return out, nil
}

// Passed says whether all of them hold.
func Passed(results []Result) bool {
	return !slices.ContainsFunc(results, func(r Result) bool { return !r.Passed })
}

// unseen is the error of an expectation that needs what was not observed.
type unseen struct{ figure, why string }

func (u *unseen) Error() string { return fmt.Sprintf("%s was not observed: %s", u.figure, u.why) }

// misfit is the error of one that needs what does not apply.
type misfit struct{ figure string }

func (m *misfit) Error() string {
	return m.figure + " does not apply to this SA's direction: filter by .direction, or use inbound, outbound or sa"
}

func (e *Expectation) judge(d report.Document, env object) Result {
	r := Result{Expr: e.Source}
	if !e.forEach {
		l, holds, err := e.run(d, env, nil)
		r.Figures = l.figures("")
		r.Passed, r.Reason = holds, reasonOf(err)
		return r
	}
	all := &look{}
	type fault struct {
		sa  string
		err error
		l   *look
	}
	var faults []fault
	for i, x := range env["sas"].(list) {
		// Decided beforehand: what an evaluation comes across depends on what it finds false before.
		if !e.about(x.(object)) {
			continue
		}
		env[nameSA] = x
		l, holds, err := e.run(d, env, &d.SAs[i])
		r.SAs++
		all.add(l)
		if !holds {
			faults = append(faults, fault{saName(&d.SAs[i]), err, l})
		}
	}
	delete(env, nameSA)
	switch {
	case r.SAs == 0:
		r.Reason = "there is no SA that this can be judged for"
		return r
	case len(faults) == 0:
		r.Passed, r.Figures = true, all.figures("")
		return r
	}
	var reasons []string
	for i, f := range faults {
		if i == failingMax {
			break
		}
		r.Figures = append(r.Figures, f.l.figures(f.sa)...)
		text := f.sa
		if f.err != nil {
			text += ": " + reasonOf(f.err)
		}
		reasons = append(reasons, text)
	}
	r.Reason = fmt.Sprintf("does not hold for %d of %d SAs: %s", len(faults), r.SAs, strings.Join(reasons, "; "))
	if n := len(faults) - failingMax; n > 0 {
		r.Reason += fmt.Sprintf("; and %d more", n)
	}
	return r
}

// about says whether every figure that the expression names of sa applies to this one.
func (e *Expectation) about(sa object) bool {
	for _, path := range e.needs {
		var v any = sa
		for _, key := range path {
			in, ok := v.(object)
			if !ok {
				break
			}
			v = in[key]
		}
		if v == (alien{}) {
			return false
		}
	}
	return true
}

// run evaluates the expression once.
func (e *Expectation) run(d report.Document, env object, sa *ledger.SA) (l *look, holds bool, err error) {
	l = &look{report: &d, sa: sa}
	e.look = l
	defer func() { e.look = nil }()
	v, err := vm.Run(e.program, env)
	if err != nil {
		return l, false, err
	}
	holds, ok := v.(bool)
	if !ok {
		return l, false, fmt.Errorf("it gives %v, which is neither true nor false", v)
	}
	return l, holds, nil
}

// reasonOf says why an expectation failed, beyond that its figures are what they are.
func reasonOf(err error) string {
	var u *unseen
	var m *misfit
	var at *file.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &u):
		return u.Error()
	case errors.As(err, &m):
		return m.Error()
	case errors.As(err, &at):
		return "cannot be judged: " + at.Message
	}
	return "cannot be judged: " + err.Error()
}

// saName names an SA in one line.
func saName(sa *ledger.SA) string { return fmt.Sprintf("%s %s to %s", sa.SPI, sa.Direction, sa.Dst) }

// look is what one evaluation has looked at.
type look struct {
	report *report.Document
	sa     *ledger.SA // nil: no quantifier
	seen   []sight
}

type sight struct {
	name  string
	value any
}

func (l *look) add(other *look) { l.seen = append(l.seen, other.seen...) }

// figure passes a value on that was observed.
func (l *look) figure(v any, name string, permitted bool) (any, error) {
	switch x := v.(type) {
	case nil:
		if permitted {
			return nil, nil
		}
		return nil, &unseen{name, lacks(l.report, l.sa, name)}
	case alien:
		return nil, &misfit{name}
	case int, float64, bool, string:
		l.seen = append(l.seen, sight{name, v})
	case list:
		l.seen = append(l.seen, sight{"len(" + name + ")", len(x)})
	}
	return v, nil
}

// member asks an object or a list for one of its values.
func (l *look) member(from, key any, name string, permitted bool) (any, error) {
	switch x := from.(type) {
	case nil:
		return l.figure(nil, name, permitted)
	case object:
		return l.figure(x[fmt.Sprint(key)], name, permitted)
	case counters:
		if v, ok := x[fmt.Sprint(key)]; ok {
			return l.figure(v, name, permitted)
		}
		return l.figure(0, name, permitted)
	case *byFunction:
		n, why := x.get(fmt.Sprint(key))
		if n == nil && !permitted {
			return nil, &unseen{name, why}
		}
		return l.figure(n, name, permitted)
	case list:
		i, ok := key.(int)
		if ok && i < 0 {
			i += len(x)
		}
		if !ok || i < 0 || i >= len(x) {
			return nil, fmt.Errorf("%s: there is no element %v of %d", name, key, len(x))
		}
		return l.figure(x[i], name, permitted)
	}
	return nil, fmt.Errorf("%s: %v has no members", name, from)
}

// none says whether no finding asks for action.
func (l *look) none(any) (bool, error) {
	for _, f := range l.report.Findings {
		if f.Severity != verdict.Info {
			l.seen = append(l.seen, sight{aFinding, fmt.Sprintf("%s %s: %s", f.Severity, f.ID, f.Summary)})
		}
	}
	return verdict.ExitCode(l.report.Findings) == 0, nil
}

// has says whether there is a finding of that kind, be it one that another explains.
func (l *look) has(_, id any) (bool, error) {
	for _, f := range l.report.Findings {
		for _, g := range append([]verdict.Finding{f}, f.Explains...) {
			if string(g.ID) == id {
				l.seen = append(l.seen, sight{aFinding, fmt.Sprintf("%s %s: %s", g.Severity, g.ID, g.Summary)})
				return true, nil
			}
		}
	}
	return false, nil
}

// figures draws up what was looked at, a line a name, in the order of first sight.
func (l *look) figures(sa string) []Figure {
	at := map[string]int{}
	var out []Figure
	var values [][]any
	for _, s := range l.seen {
		i, known := at[s.name]
		if !known || s.name == aFinding { // each finding is a line of its own
			i = len(out)
			at[s.name] = i
			out, values = append(out, Figure{Name: s.name, SA: sa}), append(values, nil)
		}
		values[i] = append(values[i], s.value)
	}
	for i := range out {
		out[i].sum(values[i])
	}
	return out
}

// sum makes one figure of all values of a name.
func (f *Figure) sum(values []any) {
	var distinct []any
	var numbers []float64
	for _, v := range values {
		switch n := v.(type) {
		case int:
			numbers = append(numbers, float64(n))
		case float64:
			numbers = append(numbers, n)
		}
		if !slices.Contains(distinct, v) && len(distinct) < valuesMax {
			distinct = append(distinct, v)
		}
	}
	switch {
	case len(distinct) == 1:
		f.Value = distinct[0]
	case len(numbers) == len(values):
		f.Min, f.Max = new(slices.Min(numbers)), new(slices.Max(numbers))
	default:
		f.Values = distinct
	}
	if len(values) > 1 {
		f.Count = len(values)
	}
}

// String writes a figure as name and value.
func (f Figure) String() string {
	var text string
	switch {
	case f.Min != nil:
		text = fmt.Sprintf("%s = %g to %g", f.Name, *f.Min, *f.Max)
	case f.Values != nil:
		var parts []string
		for _, v := range f.Values {
			parts = append(parts, fmt.Sprint(v))
		}
		text = f.Name + " = " + strings.Join(parts, ", ")
	case f.Name == aFinding:
		return fmt.Sprintf("finding %v", f.Value)
	default:
		text = fmt.Sprintf("%s = %v", f.Name, f.Value)
	}
	if f.Count > 1 && f.Value == nil {
		text += fmt.Sprintf(" (%d values)", f.Count)
	}
	if f.SA != "" {
		text += " [" + f.SA + "]"
	}
	return text
}
