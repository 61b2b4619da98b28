// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// Note is one thing that a test saw. Exactly one of the fields beside Test is set.
type Note struct {
	Test     string          `json:"test"`
	Features []Feature       `json:"features,omitempty"`
	Program  *Program        `json:"program,omitempty"`
	Hooks    []ledger.Hook   `json:"hooks,omitempty"`
	Report   json.RawMessage `json:"report,omitempty"` // of `xfrmscope diagnose --json`
}

// tester is the part of testing.TB that Leave uses.
type tester interface {
	Helper()
	Name() string
	Fatal(args ...any)
}

// directory is where notes go; unset: nobody asks for them.
const directory = "XFRMSCOPE_NOTES"

// Leave keeps a note of what a test saw, if somebody asked for notes.
func Leave(t tester, n Note) {
	t.Helper()
	dir := os.Getenv(directory)
	if dir == "" {
		return
	}
	n.Test = t.Name()
	if err := leave(dir, n); err != nil {
		t.Fatal(err)
	}
}

func leave(dir string, n Note) error {
	data, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("leave a note: %w", err)
	}
	f, err := os.CreateTemp(dir, "*.json")
	if err != nil {
		return fmt.Errorf("leave a note: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// ReadNotes reads what the tests left in a folder, in the order of the tests' names.
func ReadNotes(dir string) ([]Note, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []Note
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read a test's note: %w", err)
		}
		var n Note
		if err := json.Unmarshal(data, &n); err != nil {
			return nil, fmt.Errorf("read the note %s: %w", path, err)
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Note) int { return strings.Compare(a.Test, b.Test) })
	return out, nil
}
