// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestPlain writes the frames of a gateway where much happens, and holds the lines' form and sums against
// the ledger.
func TestPlain(t *testing.T) {
	s := troubled()
	var b bytes.Buffer
	p := NewPlain(&b)
	f := s.frame()
	if err := p.Write(&f); err != nil {
		t.Fatal(err)
	}
	g := f
	g.Findings = nil
	if err := p.Write(&g); err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(plainColumns)
	rows := 0
	for l := range strings.Lines(b.String()) {
		if strings.HasPrefix(l, "#") {
			continue
		}
		rows++
		fields := strings.Fields(l)
		if len(fields) != len(names) {
			t.Errorf("%d fields for %d columns: %q", len(fields), len(names), l)
		}
	}
	if want := 2 * len(f.Report.SAs); rows != want {
		t.Errorf("%d lines, want %d", rows, want)
	}
	golden(t, "plain.txt", b.String())
}

// TestPlainNames keeps a name one field, whatever is in it.
func TestPlainNames(t *testing.T) {
	s := lengthy()
	var b bytes.Buffer
	f := s.frame()
	f.Report.SAs[0].Connection = "two words\x1b[2J\nand a line"
	if err := NewPlain(&b).Write(&f); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("a name steers the terminal: %q", b.String())
	}
	for l := range strings.Lines(b.String()) {
		if n := len(strings.Fields(l)); !strings.HasPrefix(l, "#") && n != len(strings.Fields(plainColumns)) {
			t.Errorf("%d fields: %q", n, l)
		}
	}
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestPlainFails hands on that the pipe is gone.
func TestPlainFails(t *testing.T) {
	f := quiet().frame()
	if err := NewPlain(full{}).Write(&f); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
}

// TestSummary keeps the last word.
func TestSummary(t *testing.T) {
	s := troubled()
	s.world.Self.EventsLost = 4
	var b bytes.Buffer
	f := s.frame()
	if err := Summary(&b, &f); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.txt", b.String())
}
