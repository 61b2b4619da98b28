// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"xfrmscope/internal/private"
	"xfrmscope/internal/record"
)

// TestFileIsPrivate: a new one, and one that is written anew; what is refused stays as it is.
func TestFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("old"), []byte("a longer text than what comes"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("old", path("link")); err != nil {
		t.Fatal(err)
	}
	if _, err := record.NewFile(path("old"), false); !errors.Is(err, record.ErrExists) {
		t.Errorf("one that is there: %v", err)
	}
	if _, err := record.NewFile(path("link"), true); !errors.Is(err, private.ErrLink) {
		t.Errorf("a link: %v", err)
	}
	if text, err := os.ReadFile(path("old")); string(text) != "a longer text than what comes" || err != nil {
		t.Errorf("what was refused holds %q, %v", text, err)
	}
	for _, name := range []string{"new", "old"} {
		f, err := record.NewFile(path(name), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("text")); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(path(name))
		if err != nil || info.Mode() != 0o600 || info.Size() != 4 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
