// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSlowKernelIsAskedOnce: scrapes that come while a snapshot is being taken wait for that one, give up when
// they must, and never make a second one run beside it.
func TestSlowKernelIsAskedOnce(t *testing.T) {
	var taken, running atomic.Int32
	release := make(chan struct{})
	c := NewCache(func(ctx context.Context) (Sample, error) {
		if running.Add(1) > 1 {
			t.Error("two snapshots at once")
		}
		defer running.Add(-1)
		taken.Add(1)
		<-release
		return Sample{At: time.Now()}, nil
	}, Options{}, time.Hour, time.Hour)

	impatient, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := c.Get(impatient); done <- err }()
	for taken.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if points, err := c.Get(context.Background()); err != nil || len(points) == 0 {
				t.Errorf("%d points, %v", len(points), err)
			}
		})
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	if _, ok := c.Age(); ok {
		t.Error("there is a snapshot before there is one")
	}
	close(release)
	wg.Wait()
	if _, err := c.Get(context.Background()); err != nil || taken.Load() != 1 {
		t.Errorf("%d snapshots were taken, %v", taken.Load(), err)
	}
	c.Wait()
}

// TestFailureIsShown: after a snapshot that failed there are no figures but that, and the next ask tries anew.
func TestFailureIsShown(t *testing.T) {
	boom := errors.New("boom")
	fail := true
	c := NewCache(func(context.Context) (Sample, error) {
		if fail {
			return Sample{}, boom
		}
		return Sample{At: time.Now()}, nil
	}, Options{}, time.Hour, time.Hour)
	points, err := c.Get(context.Background())
	if !errors.Is(err, boom) || values(points, mUp)[""] != 0 || values(points, mFailed)[""] != 1 {
		t.Errorf("%v, %v", values(points, mFailed), err)
	}
	if _, ok := c.Age(); ok {
		t.Error("a failed snapshot counts as fresh")
	}
	fail = false
	points, err = c.Get(context.Background())
	if err != nil || values(points, mUp)[""] != 1 || values(points, mFailed)[""] != 1 || values(points, mSnapshots)[""] != 1 {
		t.Errorf("after recovery: %v", err)
	}
}

// TestSnapshotHasALimit: one that takes too long has failed.
func TestSnapshotHasALimit(t *testing.T) {
	c := NewCache(func(ctx context.Context) (Sample, error) {
		<-ctx.Done()
		return Sample{}, ctx.Err()
	}, Options{}, time.Hour, time.Millisecond)
	if _, err := c.Get(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
