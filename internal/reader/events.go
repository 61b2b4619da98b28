// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Events reads the ring.
type Events struct {
	rd    *ringbuf.Reader
	names *Names
	clock clock
	tr    Translate
}

// OpenEvents opens the ring for reading; only one reader can have it.
func OpenEvents(ring *ebpf.Map, tr Translate) (*Events, error) {
	names, err := LoadNames()
	if err != nil {
		return nil, err
	}
	rd, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fmt.Errorf("open event ring: %w", err)
	}
	c, err := newClock()
	if err != nil {
		return nil, errors.Join(err, rd.Close())
	}
	return &Events{rd: rd, names: names, clock: c, tr: tr}, nil
}

// OpenCaptureEvents opens the ring of a wire program that is fed from a capture, whose times count from
// the epoch. Its events are taken with Drain.
func OpenCaptureEvents(ring *ebpf.Map) (*Events, error) {
	e, err := OpenEvents(ring, Translate{})
	if err != nil {
		return nil, err
	}
	e.clock = clock{time.Unix(0, 0)}
	// Reading never waits: what the program has written is there when it returns.
	e.rd.SetDeadline(time.Unix(1, 0))
	return e, nil
}

// Drain hands fn what is in the ring at this moment.
func (e *Events) Drain(fn func(Event) error) error {
	if e.rd.AvailableBytes() == 0 {
		return nil
	}
	return e.drain(fn)
}

// Run hands every event to fn until the context ends, and then what was already in the ring, before
// it returns nil. To have no event added meanwhile, detach first: before is called between the two.
// An error of fn ends it at once. Run returns only once.
func (e *Events) Run(ctx context.Context, before func() error, fn func(Event) error) error {
	var detachErr error
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		if before != nil {
			detachErr = before()
		}
		// Flush wakes a blocked Read and makes it end once the ring is empty.
		if err := e.rd.Flush(); err != nil && !errors.Is(err, ringbuf.ErrClosed) {
			detachErr = errors.Join(detachErr, fmt.Errorf("flush event ring: %w", err))
		}
	})
	err := e.drain(fn)
	if !stop() {
		<-done
		err = errors.Join(err, detachErr)
	}
	return err
}

func (e *Events) drain(fn func(Event) error) error {
	var rec ringbuf.Record
	for {
		switch err := e.rd.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, ringbuf.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("read event ring: %w", err)
		}
		ev, err := e.names.decodeEvent(rec.RawSample, e.clock, e.tr)
		if err != nil {
			return err
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
}

// Waiting is how many bytes of events nobody has read yet.
func (e *Events) Waiting() int { return e.rd.AvailableBytes() }

// Close gives the ring back; a Run in progress ends.
func (e *Events) Close() error { return e.rd.Close() }

// monoNow reads the clock that the kernel programs stamp events with.
func monoNow() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read monotonic clock: %w", err)
	}
	return ts.Nano(), nil
}
