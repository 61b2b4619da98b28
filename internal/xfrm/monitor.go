// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// monitorBuffer is the receive buffer asked for. An announcement with its socket buffer takes 2 to
// 4 KiB, so that a flush and renewal of 1,000 SAs fits even while nobody reads.
const monitorBuffer = 4 << 20

// subscribe opens a socket that receives the announcements.
func (c *Client) subscribe() (conn, error) {
	s, err := c.dial(netlinkXfrm)
	if err != nil {
		return nil, fmt.Errorf("monitor xfrm: open netlink: %w", explain(err))
	}
	// A smaller buffer than wished for works too, it just overflows sooner, and that is noticed.
	_ = s.SetReadBuffer(monitorBuffer)
	for _, group := range []uint32{groupSA, groupExpire, groupMapping, groupPolicy} {
		if err := s.JoinGroup(group); err != nil {
			return nil, errors.Join(fmt.Errorf("monitor xfrm: join multicast group %d: %w", group, explain(err)), s.Close())
		}
	}
	return s, nil
}

// monitor receives from s until ctx is done.
func monitor(ctx context.Context, s conn, handle func(Event)) error {
	stop := interruptible(ctx, s)
	defer stop()
	for ctx.Err() == nil {
		var failed error
		for m, err := range s.ReceiveIter() {
			switch {
			case err == nil:
				if failed == nil {
					failed = receive(m, handle)
				}
				clear(m.Data) // it may hold keys
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, syscall.ENOBUFS):
				handle(Event{At: time.Now(), Kind: MessagesLost})
			default:
				failed = fmt.Errorf("receive: %w", explain(err))
			}
		}
		if failed != nil {
			return fmt.Errorf("monitor xfrm: %w", failed)
		}
	}
	return nil
}

func receive(m netlink.Message, handle func(Event)) error {
	ev, ok, err := decodeEvent(m)
	if ok {
		ev.At = time.Now()
		handle(ev)
	}
	return err
}
