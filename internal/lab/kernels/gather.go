// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// Gather makes a record of what scripts/vm/test printed and of the notes that the tests left there. Notes of
// a test that failed count for nothing.
func Gather(name, date string, output io.Reader, notes []Note) (Record, error) {
	r := Record{Name: name, Date: date, Features: []Feature{}, Programs: []Program{}, Hooks: []ledger.Hook{}}
	var err error
	if r.Release, r.Tests, err = readOutput(output); err != nil {
		return r, err
	}
	passed := map[string]bool{}
	for _, t := range r.Tests {
		passed[t.Name] = t.Outcome == Passed
	}
	seen := newSight()
	for _, n := range notes {
		top, _, _ := strings.Cut(n.Test, "/")
		switch {
		case !passed[top]:
		case n.Features != nil:
			r.Features = append(r.Features, n.Features...)
		case n.Program != nil:
			r.Programs = append(r.Programs, *n.Program)
		case n.Hooks != nil:
			r.Hooks = append(r.Hooks, n.Hooks...)
		default:
			if err := seen.add(top, n.Report); err != nil {
				return r, fmt.Errorf("%s: %w", n.Test, err)
			}
		}
	}
	r.Bins, r.Causes = seen.bins(), seen.causes()
	return r, nil
}

var (
	// What scripts/vm/test prints behind each test.
	endPattern = regexp.MustCompile(`^(ok  |FAIL) (\S+) (\S+) [0-9.]+s on (\S+)`)
	// What go test -v prints of one that does not run, and what the test said before.
	skipPattern = regexp.MustCompile(`^\s*--- SKIP: (\S+) `)
	sayPattern  = regexp.MustCompile(`^\s+\w+\.go:\d+: (.*)`)
)

// readOutput finds the tests in the output, by package and name, and the kernel that they ran on.
func readOutput(output io.Reader) (release string, tests []Test, err error) {
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 16<<20) // a failing test prints whole reports
	said, why, whole := "", []string{}, false
	for lines.Scan() {
		line := lines.Text()
		if m := sayPattern.FindStringSubmatch(line); m != nil {
			said = m[1]
		} else if m := skipPattern.FindStringSubmatch(line); m != nil {
			_, sub, isSub := strings.Cut(m[1], "/")
			if isSub {
				why = append(why, sub+": "+said)
			} else {
				why, whole = append(why, said), true
			}
		} else if m := endPattern.FindStringSubmatch(line); m != nil {
			t := Test{Package: m[2], Name: m[3], Outcome: strings.TrimSpace(m[1]), Why: strings.Join(why, "; ")}
			if whole && t.Outcome == Passed {
				t.Outcome = Declined
			}
			if release != "" && release != m[4] {
				return "", nil, fmt.Errorf("the tests ran on two kernels, %s and %s", release, m[4])
			}
			release, tests = m[4], append(tests, t)
			said, why, whole = "", []string{}, false
		}
	}
	if err := lines.Err(); err != nil {
		return "", nil, fmt.Errorf("read the tests' output: %w", err)
	}
	if len(tests) == 0 {
		return "", nil, errors.New("read the tests' output: no test ended")
	}
	slices.SortFunc(tests, func(a, b Test) int {
		return strings.Compare(a.Package+" "+a.Name, b.Package+" "+b.Name)
	})
	return release, tests, nil
}

// sight is which bins and causes were seen in which tests.
type sight struct {
	observed map[binKey]bool
	filled   map[binKey]map[string]bool
	reasons  map[string]map[string]bool
}

type binKey struct {
	direction ledger.Direction
	name      string
}

func newSight() *sight {
	return &sight{map[binKey]bool{}, map[binKey]map[string]bool{}, map[string]map[string]bool{}}
}

// add takes a report. Its SAs are read by the schema and not by the ledger's types: a bin that is not
// observed is null, and stays out.
func (s *sight) add(test string, report []byte) error {
	var d struct {
		SAs []struct {
			Direction ledger.Direction  `json:"direction"`
			Xfrm      map[string]int64  `json:"xfrm"`
			Ledger    map[string]*int64 `json:"ledger"`
		} `json:"sas"`
	}
	if err := json.Unmarshal(report, &d); err != nil {
		return fmt.Errorf("read a report: %w", err)
	}
	for _, sa := range d.SAs {
		for name, n := range sa.Ledger {
			if n == nil {
				continue
			}
			key := binKey{sa.Direction, name}
			s.observed[key] = true
			if *n != 0 {
				mark(s.filled, key, test)
			}
		}
		for cause, n := range sa.Xfrm {
			if n != 0 {
				mark(s.reasons, cause, test)
			}
		}
	}
	return nil
}

func mark[K comparable](m map[K]map[string]bool, key K, test string) {
	if m[key] == nil {
		m[key] = map[string]bool{}
	}
	m[key][test] = true
}

// bins lists all that the ledger has, whether they were seen or not.
func (s *sight) bins() (out []Bin) {
	for _, d := range []struct {
		direction ledger.Direction
		bins      reflect.Type
	}{{ledger.In, reflect.TypeFor[ledger.Inbound]()}, {ledger.Out, reflect.TypeFor[ledger.Outbound]()}} {
		for i := range d.bins.NumField() {
			key := binKey{d.direction, d.bins.Field(i).Tag.Get("json")}
			out = append(out, Bin{d.direction, key.name, s.observed[key], slices.Sorted(maps.Keys(s.filled[key]))})
		}
	}
	return out
}

func (s *sight) causes() []Cause {
	out := []Cause{}
	for _, name := range slices.Sorted(maps.Keys(s.reasons)) {
		out = append(out, Cause{name, slices.Sorted(maps.Keys(s.reasons[name]))})
	}
	return out
}
