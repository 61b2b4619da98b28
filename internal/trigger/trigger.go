// SPDX-License-Identifier: Apache-2.0

// Package trigger decides when a finding that begins sets something off: which rule it meets, whether that is
// too soon after the last time, and what older files make room.
package trigger

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"xfrmscope/internal/verdict"
)

// Action is what a rule sets off.
type Action string

// The actions.
const (
	Capture Action = "capture"
	Record  Action = "record"
)

// Any is met by every finding that asks for action: those of severity critical and warning.
const Any = "any"

// Rule says which findings set off what.
type Rule struct {
	Findings []string // ids, or Any
	Action   Action
	Dir      string
}

// Parse reads FINDING[,FINDING]=ACTION:DIR.
func Parse(text string) (Rule, error) {
	findings, rest, ok := strings.Cut(text, "=")
	action, dir, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || findings == "" || dir == "" {
		return Rule{}, fmt.Errorf("%q: want FINDING[,FINDING]=capture:DIR or =record:DIR", text)
	}
	r := Rule{Findings: strings.Split(findings, ","), Action: Action(action), Dir: filepath.Clean(dir)}
	if r.Action != Capture && r.Action != Record {
		return Rule{}, fmt.Errorf("%q: %q is neither capture nor record", text, action)
	}
	for _, f := range r.Findings {
		known := f == Any || slices.ContainsFunc(verdict.Catalogue(), func(k verdict.Kind) bool { return string(k.ID) == f })
		if !known {
			return Rule{}, fmt.Errorf("%q: there is no finding %q; docs/verdicts lists them, and %q is every one that asks for action", text, f, Any)
		}
	}
	return r, nil
}

// meets says whether a finding sets the rule off.
func (r *Rule) meets(f *verdict.Finding) bool {
	return slices.Contains(r.Findings, string(f.ID)) || f.Severity != verdict.Info && slices.Contains(r.Findings, Any)
}

// Firing is a rule that was set off.
type Firing struct {
	Rule     Rule
	ID       verdict.ID // of the finding that did it
	Why      string     // the finding's summary
	Withheld bool       // it is too soon after the last time
}

// Watch compares findings with those of the look before. It is not safe for concurrent use.
type Watch struct {
	rules    []Rule
	cooldown time.Duration
	there    map[string]bool
	last     []time.Time // when each rule last went off
}

// NewWatch begins with no findings. After a rule went off it rests for the cool-down.
func NewWatch(rules []Rule, cooldown time.Duration) *Watch {
	return &Watch{rules: rules, cooldown: cooldown, there: map[string]bool{}, last: make([]time.Time, len(rules))}
}

// Look takes the findings of now and gives the rules that those which have just begun set off, each once.
func (w *Watch) Look(findings []verdict.Finding, now time.Time) []Firing {
	there := make(map[string]bool, len(findings))
	var begun []*verdict.Finding
	for i := range findings {
		key := keyOf(&findings[i])
		if there[key] = true; !w.there[key] {
			begun = append(begun, &findings[i])
		}
	}
	w.there = there
	var out []Firing
	for i := range w.rules {
		at := slices.IndexFunc(begun, w.rules[i].meets)
		if at < 0 {
			continue
		}
		f := Firing{Rule: w.rules[i], ID: begun[at].ID, Why: begun[at].Summary}
		if f.Withheld = !w.last[i].IsZero() && now.Sub(w.last[i]) < w.cooldown; !f.Withheld {
			w.last[i] = now
		}
		out = append(out, f)
	}
	return out
}

// keyOf tells findings apart by kind and subject, an SA's successor included: a rekey is no new fault.
func keyOf(f *verdict.Finding) string {
	s := f.Subject
	parts := []string{string(f.ID), string(s.Direction), fmt.Sprint(s.ReqID, s.IfID, s.Ifindex)}
	if s.Src != nil {
		parts = append(parts, "from "+s.Src.String())
	}
	if s.Dst != nil {
		parts = append(parts, "to "+s.Dst.String())
	}
	return strings.Join(parts, " ")
}

// MakeRoom removes the oldest files of a folder whose names match a pattern (filepath.Match) until fewer than keep are
// left. The folder's own name may hold anything.
func MakeRoom(dir, pattern string, keep int) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make room: %w", err)
	}
	type file struct {
		name string
		at   time.Time
	}
	var files []file
	for _, e := range entries {
		if match, err := filepath.Match(pattern, e.Name()); err != nil {
			return fmt.Errorf("make room in %s by %q: %w", dir, pattern, err)
		} else if !match {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or not one of ours
		}
		files = append(files, file{filepath.Join(dir, e.Name()), info.ModTime()})
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.name, b.name)) })
	var errs []error
	for len(files) >= max(keep, 1) {
		if err := os.Remove(files[0].name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("make room: %w", err))
		}
		files = files[1:]
	}
	return errors.Join(errs...)
}
