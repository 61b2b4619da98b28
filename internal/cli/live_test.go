// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestReadyFileIsNoLink: where others may write, they do not choose what is written to.
func TestReadyFileIsNoLink(t *testing.T) {
	dir := t.TempDir()
	ours, link, ready := filepath.Join(dir, "ours"), filepath.Join(dir, "link"), filepath.Join(dir, "ready")
	if err := os.WriteFile(ours, []byte("ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(ours, link); err != nil {
		t.Fatal(err)
	}
	if err := (&liveOptions{readyFile: link}).ready(); err == nil {
		t.Error("a link was followed")
	}
	for range 2 { // one that is there will do
		if err := (&liveOptions{readyFile: ready}).ready(); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]string{ours: "ours", ready: ""} {
		if text, err := os.ReadFile(path); string(text) != want || err != nil {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
}
