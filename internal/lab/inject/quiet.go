// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"time"
)

// Quiet waits until no frame has come by for the time given and none is left in the sockets, or until the limit is over.
func (in *Injector) Quiet(quiet, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		idle, waiting, err := in.idle()
		switch {
		case err != nil:
			return fmt.Errorf("wait for a quiet path: %w", err)
		case idle >= quiet && !waiting:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("wait for a quiet path: frames still come after %s", limit)
		}
		time.Sleep(max(quiet-idle, time.Millisecond))
	}
}

// idle is how long no frame has come by, and whether one waits to be read.
func (in *Injector) idle() (since time.Duration, waiting bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil { // who reads no more leaves the sockets full
		return 0, false, in.err
	}
	for _, p := range in.ports {
		if p == nil { // closed
			continue
		}
		full, err := p.readable()
		if err != nil {
			return 0, false, err
		}
		waiting = waiting || full
	}
	return time.Since(in.last), waiting, nil
}
