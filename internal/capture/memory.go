// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// evict lets the oldest packet in memory go.
func (r *Recorder) evict() {
	r.memBytes -= r.memory[0].size()
	r.memory[0] = nil
	r.memory = r.memory[1:]
}

// expire lets go of what is older than is to be kept, unless it is about to be written.
func (r *Recorder) expire(before time.Time) {
	if len(r.trigger) > 0 {
		before = r.triggered.Add(-r.opts.Last)
	}
	for len(r.memory) > 0 && r.memory[0].at.Before(before) {
		r.evict()
	}
}

// dump writes what is in memory to a file of its own. Where a failure is to be survived, what was to be
// written stays in memory for the next trigger, as long as it is to be kept.
func (r *Recorder) dump(now time.Time) error {
	why := strings.Join(r.trigger, ", ")
	r.trigger = nil
	err := r.writeMemory(now, why)
	if err == nil || r.opts.Failed == nil {
		return err
	}
	r.opts.Failed(errors.Join(err, r.out.discard()))
	return nil
}

func (r *Recorder) writeMemory(now time.Time, why string) error {
	began := now
	if len(r.memory) > 0 {
		began = r.memory[0].at
	}
	if err := r.open(began, fmt.Sprintf("the last %s, written because of: %s", r.opts.Last, why)); err != nil {
		return err
	}
	r.out.current.Trigger = why
	for _, p := range r.memory {
		if r.opts.Packets > 0 && r.total >= r.opts.Packets {
			break
		}
		if err := r.out.write(p, r.comment); err != nil {
			return err
		}
		r.count()
	}
	if err := r.out.close(now, r.counts()); err != nil {
		return err
	}
	r.memory, r.memBytes = nil, 0
	return nil
}
