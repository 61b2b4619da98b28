// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"net/netip"
	"time"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// ikeMessage turns an event of the wire program into what the tracker of exchanges reads. ok is false
// for all other events.
func ikeMessage(e reader.Event) (m ike.Message, ok bool) {
	h := e.IKE
	if h == nil {
		return m, false
	}
	return ike.Message{
		Header: ike.Header{
			InitiatorSPI: uint64(h.Initiator), ResponderSPI: uint64(h.Responder), NextPayload: h.NextPayload,
			Version: h.Version, Exchange: ike.Exchange(h.Exchange), Flags: h.Flags, MessageID: h.MessageID, Length: h.Length,
		},
		At: e.Time, Src: netip.AddrPortFrom(e.Src, e.SrcPort), Dst: netip.AddrPortFrom(e.Dst, e.DstPort),
		Direction: e.Direction,
	}, true
}

// listener reads the ring on behalf of a session and follows IKE by what it reads.
type listener struct {
	events  *reader.Events
	tracker *ike.Tracker       // nil: no program sends IKE headers
	hear    func(reader.Event) // nil: nobody else wants them
	stop    context.CancelFunc // nil: not listening by itself
	ended   chan error
}

// take hands one event on.
func (l *listener) take(e reader.Event) error {
	if m, ok := ikeMessage(e); ok && l.tracker != nil {
		l.tracker.Observe(m)
	}
	if l.hear != nil {
		l.hear(e)
	}
	return nil
}

// start reads the ring until Close.
func (l *listener) start() {
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.ended = stop, make(chan error, 1)
	go func() {
		l.ended <- l.events.Run(ctx, nil, l.take)
	}()
}

// settleRing is how long a snapshot waits at most for events that are in the ring already.
const settleRing = 200 * time.Millisecond

// report fills in a snapshot's account of IKE, once what is in the ring has been read.
func (l *listener) report(ctx context.Context, snap *ledger.Snapshot) error {
	for begin := time.Now(); l.stop != nil && l.events.Waiting() > 0 && time.Since(begin) < settleRing; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-l.ended:
			l.ended <- err
			return err
		case <-time.After(2 * time.Millisecond):
		}
	}
	if l.tracker != nil {
		snap.IKE = l.tracker.Report(snap.At)
	}
	return nil
}

// Close ends listening and gives the ring back.
func (l *listener) Close() error {
	if l.stop != nil {
		l.stop()
		if err := <-l.ended; err != nil {
			_ = l.events.Close()
			return err
		}
	}
	return l.events.Close()
}
