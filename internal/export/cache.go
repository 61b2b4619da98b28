// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"sync"
	"time"
)

// Cache takes snapshots for whoever asks, one at a time and no more often than is useful. Askers that come
// while one is being taken wait for it, each as long as it likes: a kernel that is slow to answer is asked
// once, however many wait.
type Cache struct {
	take   func(context.Context) (Sample, error)
	points *Points
	age    time.Duration
	limit  time.Duration

	mu      sync.Mutex
	newest  *reading
	running *flight
}

type reading struct {
	at     time.Time // when it was ready
	sample Sample
	points []Point
	err    error
}

// flight is a snapshot that is being taken.
type flight struct {
	done chan struct{}
	got  *reading
}

// NewCache takes snapshots by calling take, never twice at once. What is younger than age is given again;
// a snapshot that takes longer than limit has failed.
func NewCache(take func(context.Context) (Sample, error), o Options, age, limit time.Duration) *Cache {
	return &Cache{take: take, points: NewPoints(o), age: age, limit: limit}
}

// Get gives the points of a fresh snapshot. On error it gives what can be said all the same.
func (c *Cache) Get(ctx context.Context) ([]Point, error) {
	r, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	return r.points, r.err
}

// Sample is Get for the snapshot itself.
func (c *Cache) Sample(ctx context.Context) (Sample, error) {
	r, err := c.read(ctx)
	if err != nil {
		return Sample{}, err
	}
	return r.sample, r.err
}

// Age is how old the newest good snapshot is; ok is false where there is none.
func (c *Cache) Age() (d time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.newest == nil || c.newest.err != nil {
		return 0, false
	}
	return time.Since(c.newest.at), true
}

func (c *Cache) read(ctx context.Context) (*reading, error) {
	c.mu.Lock()
	if c.newest != nil && c.newest.err == nil && time.Since(c.newest.at) < c.age {
		r := c.newest
		c.mu.Unlock()
		return r, nil
	}
	f := c.running
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.running = f
		// The snapshot is everybody's, so that nobody who goes away ends it.
		go c.fly(context.WithoutCancel(ctx), f)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.got, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Cache) fly(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	begin := time.Now()
	s, err := c.take(ctx)
	r := &reading{sample: s, err: err}
	if err != nil {
		r.points = c.points.Failed(begin)
	} else {
		r.sample.Took = time.Since(begin)
		r.points = c.points.Of(r.sample)
	}
	r.at = time.Now()
	c.mu.Lock()
	c.newest, c.running, f.got = r, nil, r
	c.mu.Unlock()
	close(f.done)
}

// Wait waits until no snapshot is being taken.
func (c *Cache) Wait() {
	c.mu.Lock()
	f := c.running
	c.mu.Unlock()
	if f != nil {
		<-f.done
	}
}
