// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHelp reads every help text as somebody would who meets it for the first time: it has to say what
// the command is for, show how it is called, and give each number its unit.
func TestHelp(t *testing.T) {
	for _, c := range commands(newRoot()) {
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || c.Long == "" {
				t.Error("no description")
			}
			if strings.HasSuffix(c.Short, ".") {
				t.Errorf("the short description ends with a full stop: %q", c.Short)
			}
			for line := range strings.Lines(c.Long + "\n" + c.Example) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > 120 {
					t.Errorf("a line of %d characters: %q", n, line)
				}
			}
			if c.Runnable() {
				examples(t, c)
				if c.HasParent() && !c.HasSubCommands() && !strings.Contains(c.Long, "\nExit status: ") {
					t.Error("does not say what its exit status means")
				}
			}
			c.LocalFlags().VisitAll(func(f *pflag.Flag) { flag(t, f) })
		})
	}
}

// commands lists the commands that xfrmscope has of its own.
func commands(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" {
			out = append(out, commands(sub)...)
		}
	}
	return out
}

// examples checks that there are some and that they can be typed.
func examples(t *testing.T, c *cobra.Command) {
	t.Helper()
	n := 0
	for line := range strings.Lines(c.Example) {
		words := strings.Fields(line)
		at := slices.Index(words, "xfrmscope")
		if at < 0 {
			continue
		}
		words = words[at:]
		n++
		if end := slices.IndexFunc(words, func(w string) bool { return w == "|" || w == "--" || w == "&" || w == ">" || w == "#" }); end > 0 {
			words = words[:end]
		}
		found, rest, err := newRoot().Find(words[1:])
		if err != nil || !strings.HasPrefix(found.CommandPath(), c.CommandPath()) {
			t.Errorf("example %q is of another command (%v)", strings.TrimSpace(line), err)
			continue
		}
		if err := found.ParseFlags(unquoted(rest)); err != nil {
			t.Errorf("example %q: %v", strings.TrimSpace(line), err)
		}
	}
	if n < 2 {
		t.Errorf("%d examples, want two or more", n)
	}
}

// unquoted takes the shell's quotes away, and joins what they held together.
func unquoted(words []string) []string {
	var out []string
	quote := ""
	for _, w := range words {
		open := quote
		for _, q := range []string{"'", `"`} {
			if strings.Count(w, q)%2 == 1 {
				if quote == q {
					quote = ""
				} else if quote == "" {
					quote = q
				}
			}
		}
		w = strings.Trim(w, `'"`)
		if open != "" {
			out[len(out)-1] += " " + w
		} else {
			out = append(out, w)
		}
	}
	return out
}

// units are the words by which a help text says what a number counts.
var units = regexp.MustCompile(`(?i)\b(\d+ ?(s|m|h|ms|us|ns)\b|second|minute|byte|KiB|MiB|packet|event|SAs?\b|port|percent|%|number|line|file|drop|row|times|tunnel|probe|flow|column|digit|bits?\b|entr|log2|frame|sample|point)`)

func flag(t *testing.T, f *pflag.Flag) {
	t.Helper()
	if f.Usage == "" {
		t.Errorf("--%s: no description", f.Name)
	}
	switch f.Value.Type() {
	case "bool", "string", "stringSlice", "stringArray", "mode", "time":
		return
	}
	// A duration's default shows its unit, and no value is taken without one.
	if f.Value.Type() == "duration" && f.DefValue != "0s" {
		return
	}
	if !units.MatchString(f.Usage) {
		t.Errorf("--%s (%s): no unit in %q", f.Name, f.Value.Type(), f.Usage)
	}
}
