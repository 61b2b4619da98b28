// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"xfrmscope/internal/ledger"
)

// queueLimit bounds the announcements kept between two snapshots.
const queueLimit = 1 << 16

// A snapshot waits for the announcement of an SA that the dump no longer had: the kernel takes an SA
// out of its tables a moment before it says so (xfrm_state_delete, km_state_notify). Each wait is twice
// the one before. SAs that a migration or a vanished device took away are never announced.
const (
	settleFirst = 10 * time.Millisecond
	settleLast  = 160 * time.Millisecond
)

// patience is how long the kernel's answer to a sign is waited for. It comes at once, but who is to receive it may be
// kept waiting on a machine that is busy.
const patience = 10 * time.Second

// ident is what the kernel tells SAs apart by (xfrm_state_lookup).
type ident struct {
	dst       netip.Addr
	spi       ledger.SPI
	proto     uint8
	markValue uint32
	markMask  uint32
}

func (sa *SA) ident() ident {
	return ident{sa.Key.Dst, sa.Key.SPI, sa.proto, sa.MarkValue, sa.MarkMask}
}

// Tracker joins dumps and announcements, so that no SA that ended between two snapshots is missed and
// its last counters are known. Snapshot is for one caller at a time.
type Tracker struct {
	client *Client
	socket conn
	stop   context.CancelFunc
	known  map[ident]*SA
	lead   map[ident]figures

	mu     sync.Mutex
	queue  []Event
	lost   uint64
	mapped mappings
	hear   func(ledger.SADEntry) // nil: nobody wants to hear of new SAs
	passed chan uint32           // sequence numbers of barriers that came back
	ended  chan struct{}
	err    error // why receiving ended
}

// OpenTracker subscribes first and then reads the SAD, in the network namespace of the client, which
// the caller keeps and closes after the tracker.
func OpenTracker(ctx context.Context, client *Client) (*Tracker, error) {
	s, err := client.subscribe()
	if err != nil {
		return nil, fmt.Errorf("track SAs: %w", err)
	}
	receiving, stop := context.WithCancel(context.Background())
	t := &Tracker{
		client: client, socket: s, stop: stop, known: map[ident]*SA{},
		passed: make(chan uint32, 1), ended: make(chan struct{}),
	}
	go func() {
		defer close(t.ended)
		t.err = monitor(receiving, s, t.enqueue)
	}()
	sas, err := client.Dump(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("track SAs: %w", err), t.Close())
	}
	for i := range sas {
		t.known[sas[i].ident()] = &sas[i]
	}
	return t, nil
}

// Close ends the subscription.
func (t *Tracker) Close() error {
	t.stop()
	<-t.ended
	return errors.Join(t.err, t.socket.Close())
}

// Lost counts how often announcements were lost. SAs that ended meanwhile are reported as vanished,
// with the counters of the last snapshot; SAs that came and went between two snapshots are not
// reported.
func (t *Tracker) Lost() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// Hear has fn told of every SA from now on that is added, or updated, as soon as the kernel says so. It is
// called from the receiving goroutine and must not wait.
func (t *Tracker) Hear(fn func(ledger.SADEntry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hear = fn
}

// enqueue is called by the receiving goroutine.
func (t *Tracker) enqueue(ev Event) {
	if ev.SA != nil && (ev.Kind == SAAdded || ev.Kind == SAUpdated) {
		t.mu.Lock()
		hear := t.hear
		t.mu.Unlock()
		if hear != nil {
			hear(ev.SA.SADEntry)
		}
	}
	switch ev.Kind {
	case barrier:
		select {
		case t.passed <- ev.seq:
		default: // an old one that nobody waits for any more fills the channel
			select {
			case <-t.passed:
			default:
			}
			t.passed <- ev.seq
		}
	case MappingChanged:
		t.mu.Lock()
		t.mapped.add(ev)
		t.mu.Unlock()
	case MessagesLost:
		t.mu.Lock()
		t.lost++
		t.mu.Unlock()
	case SAAdded, SAUpdated, SADeleted, SAHardExpired, SASoftExpired, SAsFlushed:
		t.mu.Lock()
		if len(t.queue) < queueLimit {
			t.queue = append(t.queue, ev)
		} else {
			t.lost++
		}
		t.mu.Unlock()
	}
}

// await returns what was announced up to now. It asks a question on the very socket on which the
// announcements arrive: they are in order, so with the answer all earlier ones are there.
func (t *Tracker) await(ctx context.Context) ([]Event, error) {
	sent, err := t.socket.Send(sadInfoRequest())
	if err != nil {
		return nil, fmt.Errorf("ask for a sign: %w", explain(err))
	}
	lost, tick := t.Lost(), time.NewTicker(time.Second)
	defer tick.Stop()
	for asked := time.Now(); ; {
		select {
		case seq := <-t.passed:
			if seq != sent.Header.Sequence {
				continue
			}
		case <-t.ended:
			return nil, fmt.Errorf("subscription ended: %w", t.err)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
			// The answer itself may have been lost when the buffer overflowed.
			if t.Lost() != lost {
				break
			}
			if time.Since(asked) < patience {
				continue
			}
			return nil, fmt.Errorf("the kernel did not answer within %v", patience)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		events := t.queue
		t.queue = nil
		return events, nil
	}
}

// Snapshot reads the SAs that exist and those that ended since the last snapshot, or since
// OpenTracker. One that fails leaves what was announced to the next.
func (t *Tracker) Snapshot(ctx context.Context) (sad []ledger.SADEntry, ended []ledger.EndedSA, err error) {
	dumped, err := t.client.Dump(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot of SAs: %w", err)
	}
	events, err := t.await(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot of SAs: %w", err)
	}
	defer func() {
		if err != nil {
			t.giveBack(events)
		}
	}()
	m := merge(t.known, t.lead, dumped)
	m.apply(events)
	for wait := settleFirst; wait <= settleLast && len(m.missing()) > 0; wait *= 2 {
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(wait):
		}
		more, err := t.await(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("snapshot of SAs: %w", err)
		}
		m.apply(more)
		events = append(events, more...)
	}
	m.vanish(time.Now())
	if err := t.client.orientEnded(ctx, m); err != nil {
		return nil, nil, fmt.Errorf("snapshot of SAs: %w", err)
	}
	t.known, t.lead = m.alive, m.lead
	return m.entries(), m.ended(), nil
}

// giveBack puts announcements in front of those that came since.
func (t *Tracker) giveBack(events []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(events, t.queue...)
	if len(t.queue) > queueLimit {
		t.queue = t.queue[:queueLimit]
		t.lost++
	}
}
