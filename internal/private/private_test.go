// SPDX-License-Identifier: Apache-2.0

package private

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNewFilesArePrivate whatever the umask is, which can only take more away.
func TestNewFilesArePrivate(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077} {
		before := unix.Umask(umask)
		defer unix.Umask(before)
		for name, make := range map[string]func(string) (*os.File, error){"Create": Create, "Replace": Replace} {
			path := filepath.Join(t.TempDir(), "file")
			f, err := make(path)
			must(t, err)
			must(t, f.Close())
			if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s under umask %03o: %v, %v", name, umask, info.Mode(), err)
			}
		}
	}
}

func TestCreateTakesNothingThatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.Symlink("nowhere", path))
	if _, err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a link that leads nowhere: %v", err)
	}
}

// TestReplaceFiles: one's own is made private before anything is written to it, and nothing else is touched.
func TestReplaceFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		mode fs.FileMode
	}{{"readable by all", 0o644}, {"writable by all", 0o666}, {"with a special bit", 0o640 | fs.ModeSetgid}, {"private", 0o600}, {"writable by nobody", 0o200}} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			must(t, os.WriteFile(path, []byte("old"), 0o600))
			must(t, os.Chmod(path, c.mode))
			f, err := Replace(path)
			must(t, err)
			must(t, f.Close())
			info, err := os.Stat(path)
			must(t, err)
			if text, err := os.ReadFile(path); info.Mode() != 0o600 || string(text) != "old" || err != nil {
				t.Errorf("%v, %q, %v", info.Mode(), text, err)
			}
		})
	}
}

func TestReplaceRefuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(path("file"), []byte("old"), 0o644))
	must(t, os.Symlink("file", path("link")))
	must(t, os.Symlink("nowhere", path("dangling")))
	cases := map[string]error{"link": ErrLink, "dangling": fs.ErrNotExist}
	if os.Geteuid() == 0 {
		must(t, os.WriteFile(path("foreign"), []byte("old"), 0o666))
		must(t, os.Chown(path("foreign"), 65534, 65534))
		cases["foreign"] = ErrForeign
	} else if os.Getenv("CI") == "true" {
		t.Fatal("files of another user need root, and CI has to give it")
	}
	for name, want := range cases {
		if f, err := Replace(path(name)); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v, want %v", name, f, err, want)
		}
	}
	for _, name := range []string{"file", "foreign"} {
		info, err := os.Stat(path(name))
		if name == "foreign" && errors.Is(err, fs.ErrNotExist) {
			continue // not root
		}
		must(t, err)
		if text, err := os.ReadFile(path(name)); string(text) != "old" || err != nil || info.Mode()&0o044 == 0 {
			t.Errorf("%s was changed: %q, %v, %v", name, text, info.Mode(), err)
		}
	}
	if _, err := os.Lstat(path("nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link that leads nowhere was followed: %v", err)
	}
}

// TestReplaceTakesPipes through a link too, as those of /dev/fd are.
func TestReplaceTakesPipes(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	must(t, unix.Mkfifo(pipe, 0o622))
	must(t, os.Chmod(pipe, 0o622))
	must(t, os.Symlink(pipe, link))
	read := make(chan string)
	go func() {
		f, err := os.Open(pipe)
		if err != nil {
			read <- err.Error()
			return
		}
		defer f.Close()
		text, _ := io.ReadAll(f)
		read <- string(text)
	}()
	f, err := Replace(link)
	must(t, err)
	if _, err := f.WriteString("through"); err != nil {
		t.Fatal(err)
	}
	must(t, f.Close())
	if got := <-read; got != "through" {
		t.Errorf("read %q", got)
	}
	if info, err := os.Stat(pipe); err != nil || info.Mode().Perm() != 0o622 {
		t.Errorf("the pipe was changed: %v, %v", info.Mode(), err)
	}
}
