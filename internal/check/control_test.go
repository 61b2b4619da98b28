// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode"

	"xfrmscope/internal/check"
)

// TestNoControlCharacters: what was run and what was expected may hold anything, and no terminal is told to do it.
func TestNoControlCharacters(t *testing.T) {
	const evil = "\x1b[2J \u009b31m \x07 \x7f \u0090q"
	s := check.Suite{Outcome: check.Conclude(&check.Command{Args: []string{"true", evil}}, []check.Result{
		{Expr: "true // " + evil, Reason: evil, Figures: []check.Figure{{Name: "name", Value: evil}}},
	})}
	for name, write := range map[string]func(io.Writer) error{
		"text": s.WriteText, "TAP": s.WriteTAP,
		"JUnit": func(w io.Writer) error { return s.WriteJUnit(w, [][2]string{{"name", evil}}) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(b.String(), func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); i >= 0 {
			t.Errorf("%s holds %q", name, b.String()[i:min(i+8, b.Len())])
		}
	}
}
