// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/record"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Len()
}

func (s *syncBuffer) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}

func TestMaxSize(t *testing.T) {
	const limit = 8 << 10
	var b bytes.Buffer
	w, err := record.Create(&b, record.Header{}, record.Options{MaxSize: limit})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for f := newFiller(1); err == nil; n++ {
		err = w.Snapshot(ledger.Snapshot{XfrmStat: map[string]uint64{"a": f.Uint64(), "b": f.Uint64()}})
	}
	if !errors.Is(err, record.ErrFull) {
		t.Fatal(err)
	}
	if err := w.Close(record.EndFull); err != nil {
		t.Fatal(err)
	}
	if b.Len() > limit || b.Len() < limit-2048 {
		t.Errorf("%d bytes of %d", b.Len(), limit)
	}
	got, err := read(t, b.Bytes())
	if err != nil || len(got) != n-1 {
		t.Errorf("%d snapshots of %d: %v", len(got), n-1, err)
	}
}

// fullDisk is a file on a disk that has room for so many bytes.
type fullDisk struct {
	*os.File
	room int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) <= d.room {
		d.room -= len(p)
		return d.File.Write(p)
	}
	n, err := d.File.Write(p[:d.room])
	d.room = 0
	return n, errors.Join(syscall.ENOSPC, err)
}

func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "full")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := record.Create(&fullDisk{f, 4000}, record.Header{}, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for fill := newFiller(2); err == nil; n++ {
		err = w.Snapshot(ledger.Snapshot{XfrmStat: map[string]uint64{"a": fill.Uint64()}})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := w.Close(record.EndError); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("closing says %v", err)
	}
	out, err := record.Replay(path, record.ReplayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var damage *record.DamageError
	if out.Snapshots != n-1 || !errors.As(out.Damage, &damage) || !damage.Cut {
		t.Errorf("%d snapshots of %d, damage %v", out.Snapshots, n-1, out.Damage)
	}
}
