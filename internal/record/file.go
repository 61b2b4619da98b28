// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/private"
)

// File is where a recording goes. What is written to it is on its disk within a second or two, so that
// it outlives a crash of the machine as well; the writer does not wait for the disk.
type File struct {
	f       *os.File
	created bool
	begun   bool

	mu      sync.Mutex
	syncing bool
	synced  time.Time
	wait    sync.WaitGroup
	err     error // of the newest sync
}

// ErrExists says that a file of this name is there and is to be kept.
var ErrExists = errors.New("the file exists; --force overwrites it")

// syncEvery is how often a recording is written to its disk.
const syncEvery = time.Second

// NewFile opens a file for a recording, which only its owner may read. What is there is kept until the first write.
func NewFile(path string, force bool) (*File, error) {
	f, err := private.Create(path)
	created := err == nil
	if errors.Is(err, fs.ErrExist) {
		if !force {
			return nil, fmt.Errorf("%s: %w", path, ErrExists)
		}
		f, err = private.Replace(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	return &File{f: f, created: created}, nil
}

// Write appends to the recording.
func (f *File) Write(b []byte) (int, error) {
	if !f.begun {
		f.begun = true
		// What is no file, such as a pipe, has no length to take away.
		if info, err := f.f.Stat(); err == nil && info.Mode().IsRegular() {
			if err := f.f.Truncate(0); err != nil {
				return 0, err
			}
		}
	}
	n, err := f.f.Write(b)
	if err == nil {
		err = f.sync()
	}
	return n, err
}

// sync begins to write to the disk what it does not hold yet, and tells how that went the last time.
func (f *File) sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.syncing || time.Since(f.synced) < syncEvery {
		return f.err
	}
	f.syncing, f.synced = true, time.Now()
	f.wait.Go(func() {
		err := f.f.Sync()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.syncing, f.err = false, ignoreNoSync(err)
	})
	return nil
}

// Truncate takes back what a failed write left behind.
func (f *File) Truncate(size int64) error {
	if err := f.f.Truncate(size); err != nil {
		return err
	}
	_, err := f.f.Seek(size, 0)
	return err
}

// Close ends writing. A file that nothing was written to is gone again, unless it was there before.
func (f *File) Close() error {
	f.wait.Wait()
	err := f.err
	if f.begun && err == nil {
		err = ignoreNoSync(f.f.Sync())
	}
	err = errors.Join(err, f.f.Close())
	if f.created && !f.begun {
		err = errors.Join(err, os.Remove(f.f.Name()))
	}
	return err
}

// DefaultName is what a recording is called that nobody names: by host and time, in UTC.
func DefaultName(host string, at time.Time) string {
	if host == "" {
		host = "xfrmscope"
	}
	return filepath.Base(host) + "-" + at.UTC().Format("20060102T150405Z") + ".xsr"
}

// ignoreNoSync: pipes and some file systems cannot be synced, and are none the worse for it.
func ignoreNoSync(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}
