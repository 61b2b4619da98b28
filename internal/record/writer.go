// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// ErrFull says that a recording has reached the size that it may have. What is written is whole.
var ErrFull = errors.New("the recording has reached its largest size")

// Options of a Writer. Zero values mean the defaults.
type Options struct {
	MaxSize         int64         // bytes that may be written; 0: no limit
	EventsPerSecond int           // of each kind; further ones of a second are counted and left out; 0: DefaultEvents
	Flush           time.Duration // how long an event may wait to be written; 0: DefaultFlush
	Now             func() time.Time
}

// Defaults of Options.
const (
	DefaultEvents = 500
	DefaultFlush  = time.Second
)

// endReserve is kept free for the end record.
const endReserve = 512

// Writer writes a recording. It holds the last snapshot and nothing older, so its memory does not grow with
// the run. It is safe for concurrent use.
type Writer struct {
	w    io.Writer
	opts Options
	zstd *zstd.Encoder

	mu       sync.Mutex
	buf      []byte // records that wait to be written
	packed   []byte // scratch
	size     int64  // bytes written, all good
	last     ledger.Snapshot
	hooks    []ledger.Hook
	end      End
	second   int64          // of which inSecond counts
	inSecond map[string]int // events by kind
	waiting  *time.Timer
	err      error // nothing can be written any more
}

var snapshotCodec = sync.OnceValues(func() (codec, error) { return codecOf(reflect.TypeFor[ledger.Snapshot]()) })

// Create begins a recording.
func Create(w io.Writer, h Header, o Options) (*Writer, error) {
	if o.EventsPerSecond == 0 {
		o.EventsPerSecond = DefaultEvents
	}
	if o.Flush == 0 {
		o.Flush = DefaultFlush
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if _, err := snapshotCodec(); err != nil {
		return nil, err
	}
	z, err := compressor()
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	rec := &Writer{w: w, opts: o, zstd: z}
	if h.Schema == "" {
		h.Schema = ledger.Schema
	}
	if err := rec.write(preamble()); err != nil {
		return nil, err
	}
	if err := rec.add("header", h); err != nil {
		return nil, err
	}
	return rec, rec.flush(endReserve)
}

// Hooks notes where the source looks, as of the next snapshot.
func (w *Writer) Hooks(hooks []ledger.Hook) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.hooks != nil && slices.Equal(hooks, w.hooks) {
		return w.err
	}
	w.hooks = append([]ledger.Hook{}, hooks...)
	return w.add("hooks", w.hooks)
}

// Snapshot writes what changed since the last one, and all that waits.
func (w *Writer) Snapshot(s ledger.Snapshot) error {
	c, err := snapshotCodec()
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.buf = append(w.buf, `{"snapshot":`...)
	var changed bool
	if w.buf, changed = c.diff(w.buf, reflect.ValueOf(&w.last).Elem(), reflect.ValueOf(&s).Elem()); !changed {
		w.buf = c.same(w.buf)
	}
	w.buf = append(w.buf, '}', '\n')
	w.end.Snapshots++
	w.end.At = s.At
	return w.flush(endReserve)
}

// Event notes an event, unless there were too many of its kind in this second. It is written within Options.Flush.
func (w *Writer) Event(e reader.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if second := w.opts.Now().Unix(); second != w.second {
		w.second, w.inSecond = second, map[string]int{}
	}
	// Beyond the limit the marks with the roundest numbers stay, because the other end keeps those as well.
	const round = 4096
	if w.inSecond[e.Kind]++; w.inSecond[e.Kind] > w.opts.EventsPerSecond && (e.Kind != reader.KindMark || e.Seq%round != 0) {
		w.end.EventsLeftOut++
		return nil
	}
	if err := w.add("event", e); err != nil {
		return err
	}
	w.end.Events++
	if len(w.buf) >= frameRaw/2 {
		return w.flush(endReserve)
	}
	if w.waiting == nil {
		w.waiting = time.AfterFunc(w.opts.Flush, w.overdue)
	}
	return nil
}

// overdue writes what has waited long enough. Its error stays for the next call.
func (w *Writer) overdue() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.flush(endReserve)
}

// Close ends the recording and says why; the file below stays the caller's. Where an earlier write failed, it
// returns that error, except ErrFull.
func (w *Writer) Close(why string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.zstd.Close()
	if errors.Is(w.err, ErrFull) {
		w.err = nil
	}
	if w.err != nil {
		return w.err
	}
	w.end.Why = why
	err := w.add("end", w.end)
	if err == nil {
		err = w.flush(0)
	}
	w.err = errors.Join(w.err, errClosed)
	return err
}

var errClosed = errors.New("the recording is closed")

// Stats are what has been written so far.
func (w *Writer) Stats() (end End, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end, w.size
}

// add appends a record to what waits.
func (w *Writer) add(kind string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record %s: %w", kind, err)
	}
	w.buf = append(appendString(append(w.buf, '{'), kind), ':')
	w.buf = append(append(w.buf, text...), '}', '\n')
	return nil
}

// flush writes what waits, unless less than reserve bytes would be left.
func (w *Writer) flush(reserve int64) error {
	if w.waiting != nil {
		w.waiting.Stop()
		w.waiting = nil
	}
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	w.packed = w.packed[:0]
	for rest := w.buf; len(rest) > 0; {
		n := min(len(rest), frameRaw)
		w.packed = w.zstd.EncodeAll(rest[:n], w.packed)
		rest = rest[n:]
	}
	w.buf = w.buf[:0]
	if cap(w.buf) > 4*frameRaw {
		w.buf = nil // the first snapshot is by far the longest
	}
	if w.opts.MaxSize > 0 && w.size+int64(len(w.packed))+reserve > w.opts.MaxSize {
		w.err = ErrFull
		return w.err
	}
	return w.write(w.packed)
}

// write writes all or nothing, where what is below can be cut back.
func (w *Writer) write(b []byte) error {
	n, err := w.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("write recording: %w", err)
		if f, ok := w.w.(interface{ Truncate(int64) error }); ok && n > 0 {
			if cut := f.Truncate(w.size); cut != nil {
				w.err = errors.Join(w.err, fmt.Errorf("cut the recording back to what is whole: %w", cut))
			}
		}
		return w.err
	}
	w.size += int64(n)
	return nil
}
