// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"xfrmscope/internal/report"
	"xfrmscope/internal/verdict"
)

// Functions that stand behind what an expression says. Those with a sign that no user can type come
// from the rewriting below.
const (
	fnObserved = "observed"
	fnNone     = "§none"
	fnHas      = "§has"
	fnFigure   = "§figure"
	fnMember   = "§member"
)

// Expectation is an expression that is ready to be judged. It is not for use by two goroutines at once.
type Expectation struct {
	Source  string
	Where   string     // where it was written: --expect or file:line
	forEach bool       // names sa: judged for each SA
	needs   [][]string // paths below sa that have to apply to an SA for the expectation to be about it
	program *vm.Program
	look    *look // of the evaluation under way
}

// Compile reads an expression. An error names the position and, for a wrong name, the nearest right one.
func Compile(source, where string) (*Expectation, error) {
	e := &Expectation{Source: strings.TrimSpace(source), Where: where}
	env := environment()
	cfg := conf.New(env)
	expr.AsBool()(cfg)
	e.functions(cfg)
	// It would read fields past all that is checked here.
	delete(cfg.Builtins, "get")
	cfg.Disabled["get"] = true
	tree, err := parser.ParseWithConfig(e.Source, cfg)
	if err != nil {
		return nil, e.explain(err, env)
	}
	s := &sugar{}
	ast.Walk(&tree.Node, s)
	if s.err != nil {
		return nil, e.explain(s.err.Bind(tree.Source), env)
	}
	if _, err := checker.Check(tree, cfg); err != nil {
		return nil, e.explain(err, env)
	}
	names := &naming{of: map[ast.Node]string{}}
	ast.Walk(&tree.Node, names)
	w := &wrapping{env: env, names: names.of, callees: names.callees}
	ast.Walk(&tree.Node, w)
	e.forEach, e.needs = w.sa, w.needs
	if e.program, err = compiler.Compile(tree, cfg); err != nil {
		return nil, e.explain(err, env)
	}
	return e, nil
}

// functions declares what the rewritten expression calls.
func (e *Expectation) functions(cfg *conf.Config) {
	declare := func(name string, fn func(...any) (any, error), signature any) {
		expr.Function(name, fn, signature)(cfg)
	}
	declare(fnObserved, func(p ...any) (any, error) { return p[0] != nil, nil }, new(func(any) bool))
	declare(fnNone, func(p ...any) (any, error) { return e.look.none(p[0]) }, new(func(any) bool))
	declare(fnHas, func(p ...any) (any, error) { return e.look.has(p[0], p[1]) }, new(func(any, string) bool))
	declare(fnFigure, func(p ...any) (any, error) { return e.look.figure(p[0], p[1].(string), p[2].(bool)) }, new(func(any, string, bool) any))
	declare(fnMember, func(p ...any) (any, error) { return e.look.member(p[0], p[1], p[2].(string), p[3].(bool)) },
		new(func(any, any, string, bool) any))
}

// sugar turns the words that read well into calls and keys.
type sugar struct{ err *file.Error }

func (s *sugar) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "$env" {
			s.fail(n, "unknown name $env")
		}
	case *ast.CallNode:
		member, ok := n.Callee.(*ast.MemberNode)
		if ok && property(member, "findings") == "has" {
			if len(n.Arguments) != 1 {
				s.fail(n, `findings.has takes one identifier, as in findings.has("path-loss")`)
				return
			}
			if id, ok := n.Arguments[0].(*ast.StringNode); ok {
				s.checkID(id)
			}
			ast.Patch(node, call(fnHas, member.Node, n.Arguments[0]))
		} else if c, ok := n.Callee.(*ast.CallNode); ok && callee(c) == fnNone && len(n.Arguments) == 0 {
			ast.Patch(node, c) // findings.none() is findings.none
		}
	case *ast.MemberNode:
		if property(n, "findings") == "none" {
			ast.Patch(node, call(fnNone, n.Node))
		}
		// The list of drops has no keys; by function it has.
		if id, ok := n.Node.(*ast.IdentifierNode); ok && id.Value == "drops" {
			if _, ok := n.Property.(*ast.StringNode); ok {
				id.Value = nameByFunc
			}
		}
	}
}

func (s *sugar) checkID(id *ast.StringNode) {
	var ids []string
	for _, k := range verdict.Catalogue() {
		ids = append(ids, string(k.ID))
	}
	if !slices.Contains(ids, id.Value) {
		s.fail(id, fmt.Sprintf("no finding is called %q%s", id.Value, didYouMean(id.Value, ids)))
	}
}

func (s *sugar) fail(n ast.Node, message string) {
	if s.err == nil {
		s.err = &file.Error{Location: n.Location(), Message: message}
	}
}

// property is the key that a member node asks of a name; empty: it is another node.
func property(n *ast.MemberNode, of string) string {
	id, ok := n.Node.(*ast.IdentifierNode)
	if !ok || id.Value != of {
		return ""
	}
	if key, ok := n.Property.(*ast.StringNode); ok {
		return key.Value
	}
	return ""
}

func call(name string, args ...ast.Node) *ast.CallNode {
	return &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args}
}

func callee(n *ast.CallNode) string {
	if id, ok := n.Callee.(*ast.IdentifierNode); ok {
		return id.Value
	}
	return ""
}

// naming notes what each figure is called in the expression, before it is rewritten.
type naming struct {
	of      map[ast.Node]string
	callees map[ast.Node]bool
}

func (n *naming) Visit(node *ast.Node) {
	switch x := (*node).(type) {
	case *ast.IdentifierNode, *ast.MemberNode:
		name := strings.ReplaceAll(x.String(), nameByFunc+"[", "drops[")
		n.of[x] = strings.TrimPrefix(strings.ReplaceAll(name, nameByFunc+".", "drops."), "#")
	case *ast.CallNode:
		if n.callees == nil {
			n.callees = map[ast.Node]bool{}
		}
		n.callees[x.Callee] = true
	}
}

// wrapping puts a look at each figure between it and the expression, so that what was not observed is
// noticed and what was is told.
type wrapping struct {
	env     types.Map
	names   map[ast.Node]string
	callees map[ast.Node]bool
	sa      bool
	needs   [][]string
}

func (w *wrapping) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if w.env[n.Value] == nil || w.callees[n] {
			return
		}
		w.sa = w.sa || n.Value == nameSA
		ast.Patch(node, call(fnFigure, n, &ast.StringNode{Value: w.names[n]}, &ast.BoolNode{Value: false}))
	case *ast.MemberNode:
		if path := strings.Split(w.names[n], "."); path[0] == nameSA && len(path) > 1 {
			w.needs = append(w.needs, path[1:])
		}
		ast.Patch(node, call(fnMember, n.Node, n.Property, &ast.StringNode{Value: w.names[n]}, &ast.BoolNode{Value: false}))
	case *ast.ChainNode:
		ast.Patch(node, n.Node)
	case *ast.CallNode:
		if callee(n) == fnObserved && len(n.Arguments) == 1 {
			permit(n.Arguments[0])
		}
	case *ast.BinaryNode:
		if n.Operator == "??" {
			permit(n.Left)
		}
	}
}

// permit lets a figure be one that was not observed.
func permit(node ast.Node) {
	n, ok := node.(*ast.CallNode)
	if !ok {
		return
	}
	switch callee(n) {
	case fnFigure:
		n.Arguments[2] = &ast.BoolNode{Value: true}
	case fnMember:
		n.Arguments[3] = &ast.BoolNode{Value: true}
		permit(n.Arguments[0])
	}
}

// explain turns an error of the expression library into one with the place and a suggestion.
func (e *Expectation) explain(err error, env types.Map) error {
	var at *file.Error
	if !errors.As(err, &at) {
		return fmt.Errorf("%s: %q: %w", e.Where, e.Source, err)
	}
	message := at.Message
	if name, ok := strings.CutPrefix(message, "unknown name "); ok {
		message += didYouMean(name, append(slices.Collect(maps.Keys(env)), fnObserved, "len", "all", "any", "none", "filter", "sum", "count"))
	} else if name, ok := strings.CutPrefix(message, "unknown field "); ok {
		message += didYouMean(name, fieldNames())
	}
	return fmt.Errorf("%s: %s (line %d, column %d)%s", e.Where, message, at.Line, at.Column+1, at.Snippet)
}

func didYouMean(name string, among []string) string {
	if near := nearest(name, among); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// fieldNames lists every key that an object in a report may have, beside the short forms.
func fieldNames() []string {
	seen := map[string]bool{}
	for _, name := range slices.Concat(bins(), causes(), statNames(), []string{nameLoss, "has", "none"}) {
		seen[name] = true
	}
	walked := map[reflect.Type]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			if walked[t] || t.Implements(textType) {
				return
			}
			walked[t] = true
			for _, f := range fieldsOf(t) {
				seen[f.name] = true
				walk(t.FieldByIndex(f.index).Type)
			}
		}
	}
	walk(reflect.TypeFor[report.Document]())
	return slices.Sorted(maps.Keys(seen))
}
