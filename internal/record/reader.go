// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/klauspost/compress/zstd"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// Reader reads a recording from its beginning to its end.
type Reader struct {
	r      *bufio.Reader
	close  func() error
	zstd   *zstd.Decoder
	header Header

	good     int64  // bytes of the file that were read and are whole
	frame    []byte // scratch
	unpacked []byte // scratch
	text     []byte // records that were unpacked and not yet read
	begin    int    // of the next one in text
	last     ledger.Snapshot
	held     int64 // bytes that last takes, at most
	counted  int64 // what they were when they were last counted
	hooks    []ledger.Hook
	ended    bool
	failed   error
}

// Open opens a recording.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	r, err := NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	r.close = f.Close
	return r, nil
}

// NewReader begins to read a recording. Where not even its header is whole, there is nothing to read.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{r: bufio.NewReaderSize(from, 64<<10), close: func() error { return nil }}
	var err error
	if r.good, err = readPreamble(r.r); err != nil {
		return nil, err
	}
	if r.zstd, err = decompressor(); err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	line, err := r.line()
	if err == io.EOF {
		err = errors.New("it ends before its header")
	}
	if err != nil {
		r.zstd.Close()
		return nil, fmt.Errorf("read the header of the recording: %w", err)
	}
	_, err = r.record(line)
	if err == nil && r.header.Schema == "" {
		err = errors.New("its first record is no header")
	}
	if err != nil {
		r.zstd.Close()
		return nil, fmt.Errorf("read the header of the recording: %w", err)
	}
	return r, nil
}

// Next returns the next record, io.EOF after the last. A *DamageError says that there is more, or should be,
// which cannot be read; everything before it was.
func (r *Reader) Next() (Record, error) {
	for r.failed == nil {
		line, err := r.line()
		switch {
		case err == io.EOF && r.ended:
			r.failed = io.EOF
			continue
		case err == io.EOF:
			r.failed = &DamageError{r.good, true, errors.New("it has no end record: it is still being written, or xfrmscope was killed, the machine went down or the disk was full")}
			continue
		case err != nil:
			r.failed = err
			continue
		}
		rec, err := r.record(line)
		if err != nil {
			r.failed = &DamageError{r.good, false, err}
			continue
		}
		if rec.Snapshot != nil || rec.Event != nil || rec.End != nil {
			return rec, nil
		}
	}
	return Record{}, r.failed
}

// Close gives the file back.
func (r *Reader) Close() error {
	r.zstd.Close()
	return r.close()
}

// line returns the next record's text, which is good until the next call.
func (r *Reader) line() ([]byte, error) {
	searched := r.begin
	for {
		if i := bytes.IndexByte(r.text[searched:], '\n'); i >= 0 {
			line := r.text[r.begin : searched+i]
			r.begin = searched + i + 1
			return line, nil
		}
		searched = len(r.text)
		if r.begin > 0 {
			n := copy(r.text, r.text[r.begin:])
			r.text, searched, r.begin = r.text[:n], searched-r.begin, 0
		}
		if len(r.text) > recordMax {
			return nil, &DamageError{r.good, false, fmt.Errorf("a record is longer than %d bytes", recordMax)}
		}
		err := r.unpack()
		if err == io.EOF && len(r.text) > 0 {
			err = &DamageError{r.good, true, errors.New("its last record is not whole")}
		}
		if err != nil {
			return nil, err
		}
	}
}

// unpack appends the next frame's content to the text.
func (r *Reader) unpack() error {
	var err error
	r.frame, err = readFrame(r.r, r.frame)
	switch {
	case err == io.EOF:
		return io.EOF
	case err == io.ErrUnexpectedEOF:
		return &DamageError{r.good, true, errors.New("its last frame is not whole")}
	case err != nil:
		return &DamageError{r.good, false, err}
	}
	// Unpacked for itself, so that the limit is that of one frame.
	if r.unpacked, err = r.zstd.DecodeAll(r.frame, r.unpacked[:0]); err != nil {
		return &DamageError{r.good, false, fmt.Errorf("unpack a frame: %w", err)}
	}
	r.text = append(r.text, r.unpacked...)
	r.good += int64(len(r.frame))
	return nil
}

// record reads one record. What it does not know it passes over and returns as an empty one.
func (r *Reader) record(line []byte) (out Record, err error) {
	// What went since they were last counted is held as if it were still there. Counting takes time, so that much has to
	// have come.
	if r.held > heldMax/2 && r.held-r.counted > heldMax/8 {
		r.held = sizeOf(reflect.ValueOf(&r.last).Elem())
		r.counted = r.held
	}
	c := newCursor(line, heldMax-r.held)
	before := c.spare
	defer func() { r.held += before - c.spare }()
	err = c.object(func(kind string) error {
		if kind != "snapshot" {
			raw, err := c.raw()
			if err != nil {
				return err
			}
			if len(raw) > otherMax {
				return fmt.Errorf("read %s: it has %d bytes, at most %d are possible", kind, len(raw), otherMax)
			}
			if err := r.other(&out, kind, raw); err != nil {
				return fmt.Errorf("read %s: %w", kind, err)
			}
			return nil
		}
		codec, err := snapshotCodec()
		if err != nil {
			return err
		}
		if err := codec.apply(c, reflect.ValueOf(&r.last).Elem()); err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		snap := r.last
		out.Snapshot, out.Hooks = &snap, r.hooks
		return nil
	})
	if err == nil {
		err = c.end()
	}
	return out, err
}

// otherMax bounds the text of all that is no snapshot: a header, an event, a list of hooks.
const otherMax = 1 << 20

// other reads the records that are no snapshots.
func (r *Reader) other(out *Record, kind string, raw []byte) error {
	switch kind {
	case "header":
		return json.Unmarshal(raw, &r.header)
	case "hooks":
		r.hooks = nil
		return json.Unmarshal(raw, &r.hooks)
	case "event":
		out.Event = new(reader.Event)
		return json.Unmarshal(raw, out.Event)
	case "end":
		out.End, r.ended = new(End), true
		return json.Unmarshal(raw, out.End)
	}
	return nil
}
