// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden views anew")

// views are the screens that are kept, by name: where each begins and the keys that lead to it.
var views = []struct {
	name string
	from func() *stage
	keys []string
}{
	{"empty", deserted, nil},
	{"one", quiet, nil},
	{"three", troubled, nil},
	{"three-sorted", troubled, []string{"right", "right", "right", "S"}},
	{"three-tunnels", troubled, []string{"t"}},
	{"three-filter", troubled, []string{"/", "o", "u", "t"}},
	{"three-paused", troubled, []string{"p"}},
	{"crowd", func() *stage { return crowded(500) }, []string{"pgdown", "down"}},
	{"crowd-filter", func() *stage { return crowded(500) }, []string{"/", "r", "e", "q", "i", "d", "=", "7", "7", "enter"}},
	{"long", lengthy, nil},
	{"long-sa", lengthy, []string{"enter"}},
	{"long-tunnels", lengthy, []string{"t"}},
	{"sa-ended", troubled, []string{"home", "down", "enter"}},
	{"sa-in", troubled, []string{"home", "enter"}},
	{"sa-in-below", troubled, []string{"home", "enter", "pgdown"}},
	{"sa-in-end", troubled, []string{"home", "enter", "end"}},
	{"sa-out", troubled, []string{"end", "enter"}},
	{"sa-out-end", troubled, []string{"end", "enter", "end"}},
	{"findings", troubled, []string{"f", "down"}},
	{"findings-none", quiet, []string{"f"}},
	{"finding", troubled, []string{"f", "enter"}},
	{"cost", troubled, []string{"c"}},
	{"cost-unmeasured", quiet, []string{"c"}},
	{"help", troubled, []string{"?"}},
	{"help-end", troubled, []string{"?", "end"}},
}

// TestGolden compares every screen at two sizes, as text and with its colours.
func TestGolden(t *testing.T) {
	for _, v := range views {
		for _, size := range [][2]int{{80, 24}, {120, 40}} {
			name := fmt.Sprintf("%s-%dx%d", v.name, size[0], size[1])
			t.Run(name, func(t *testing.T) {
				s := v.from()
				s.size(size[0], size[1])
				s.press(v.keys...)
				content := s.model.View().Content
				checkSize(t, content, size[0], size[1])
				golden(t, name+".txt", trimmed(ansi.Strip(content)))
				if size[0] == 80 {
					golden(t, name+".ansi", strings.ReplaceAll(content, "\x1b", "␛")+"\n")
				}
			})
		}
	}
}

func trimmed(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// checkSize demands that a view fills the terminal's lines and overflows nothing.
func checkSize(t *testing.T, content string, width, height int) {
	t.Helper()
	lines := strings.Split(content, "\n")
	if len(lines) != height {
		t.Errorf("%d lines on a screen of %d", len(lines), height)
	}
	for i, l := range lines {
		if w := ansi.StringWidth(l); w > width {
			t.Errorf("line %d is %d columns wide on a screen of %d: %q", i+1, w, width, ansi.Strip(l))
		}
		// What others chose must not steer the terminal.
		if plain := ansi.Strip(l); strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' }) {
			t.Errorf("line %d has control characters: %q", i+1, plain)
		}
	}
}

// TestEverySize draws every screen at sizes from absurd to huge.
func TestEverySize(t *testing.T) {
	for _, from := range []func() *stage{deserted, troubled, lengthy, func() *stage { return crowded(50) }} {
		for _, v := range [][]string{nil, {"t"}, {"enter"}, {"end", "enter"}, {"f"}, {"f", "enter"}, {"c"}, {"?"}, {"/", "x"}, {"p"}} {
			s := from()
			s.press(v...)
			for _, width := range []int{1, 2, 7, 20, 39, 40, 60, 79, 80, 81, 100, 133, 250} {
				for _, height := range []int{1, 2, 3, 5, 8, 12, 24, 25, 50} {
					s.size(width, height)
					checkSize(t, s.model.View().Content, width, height)
				}
			}
		}
	}
}

// TestWithoutColour holds the bytes that reach a terminal under NO_COLOR against those with colours.
func TestWithoutColour(t *testing.T) {
	s := troubled()
	content := s.model.View().Content
	through := func(p colorprofile.Profile) string {
		var b bytes.Buffer
		w := &colorprofile.Writer{Forward: &b, Profile: p}
		if _, err := w.WriteString(content); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := through(colorprofile.ANSI); !strings.Contains(got, "\x1b[31") && !strings.Contains(got, ";31m") {
		t.Error("there is no red in a view with findings")
	}
	got := through(colorprofile.ASCII)
	for _, code := range []string{"3", "4", "9", "10"} {
		for digit := range 8 {
			for _, form := range []string{"\x1b[%s%dm", ";%s%dm", "\x1b[%s%d;", ";%s%d;"} {
				if seq := fmt.Sprintf(form, code, digit); seq != "\x1b[4m" && strings.Contains(got, seq) {
					t.Errorf("a colour came through: %q", seq)
				}
			}
		}
	}
	if ansi.Strip(got) != ansi.Strip(content) {
		t.Error("without colours the text differs")
	}
	if !strings.Contains(got, "\x1b[7m") {
		t.Error("without colours the selected row cannot be told")
	}
	if dumb := through(colorprofile.NoTTY); strings.Contains(dumb, "\x1b") {
		t.Error("a sequence reaches what is no terminal")
	}
}

// TestASCII draws every screen for a terminal that knows nothing else.
func TestASCII(t *testing.T) {
	for _, v := range views {
		s := v.from()
		s.model.opts.ASCII, s.model.glyphs = true, asciiGlyphs
		s.press(v.keys...)
		content := s.model.View().Content
		checkSize(t, content, 80, 24)
		for i, l := range strings.Split(content, "\n") {
			if strings.ContainsFunc(l, func(r rune) bool { return r > 126 }) {
				t.Errorf("%s, line %d: %q", v.name, i+1, ansi.Strip(l))
			}
		}
	}
}
