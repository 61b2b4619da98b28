// SPDX-License-Identifier: Apache-2.0

// Package traffic sends numbered UDP datagrams through a tunnel, one packet each, and counts at the
// other end which of them arrived. Nothing answers, so nothing else is on the path.
package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Inside runs a function inside a network namespace.
type Inside func(func() error) error

// headerBytes at the head of each datagram hold its number.
const headerBytes = 8

// receiveBuffer holds more than any scenario sends, so that the socket never drops.
const receiveBuffer = 16 << 20

// Flow is a sender and a receiver of numbered datagrams.
type Flow struct {
	sender   *net.UDPConn
	receiver *net.UDPConn
	size     int
	next     uint64
	done     chan struct{}

	mu  sync.Mutex
	got map[uint64]int
	err error
}

// Ends say where a flow begins and ends.
type Ends struct {
	From, To Inside
	Src, Dst netip.Addr
	Port     uint16 // of the receiver
	Size     int    // payload of a datagram; 0 means 200
}

// Open makes both sockets and starts to receive.
func Open(e Ends) (*Flow, error) {
	if e.Size == 0 {
		e.Size = 200
	}
	if e.Size < headerBytes || e.Size > 1300 {
		return nil, fmt.Errorf("open flow: %d bytes a datagram: want %d to 1300, one packet each", e.Size, headerBytes)
	}
	f := &Flow{size: e.Size, done: make(chan struct{}), got: map[uint64]int{}}
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.Dst, e.Port))
	err := e.To(func() (err error) {
		if f.receiver, err = net.ListenUDP("udp", to); err != nil {
			return err
		}
		return forceReceiveBuffer(f.receiver)
	})
	if err == nil {
		err = e.From(func() (err error) {
			f.sender, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.Src, 0)), to)
			return err
		})
	}
	if err != nil {
		if f.receiver != nil {
			err = errors.Join(err, f.receiver.Close())
		}
		return nil, fmt.Errorf("open flow from %s to %s: %w", e.Src, e.Dst, err)
	}
	go f.receive()
	return f, nil
}

func forceReceiveBuffer(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	})
	return errors.Join(err, set)
}

// Send sends the next count datagrams, gap apart.
func (f *Flow) Send(count int, gap time.Duration) error {
	datagram := make([]byte, f.size)
	for range count {
		binary.BigEndian.PutUint64(datagram, f.next)
		f.next++
		if _, err := f.sender.Write(datagram); err != nil {
			return fmt.Errorf("send datagram %d: %w", f.next-1, err)
		}
		if gap > 0 {
			time.Sleep(gap)
		}
	}
	return nil
}

// Sent is how many datagrams were sent so far.
func (f *Flow) Sent() uint64 { return f.next }

func (f *Flow) receive() {
	defer close(f.done)
	buf := make([]byte, 2048)
	for {
		n, err := f.receiver.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		f.mu.Lock()
		switch {
		case err != nil:
			f.err = fmt.Errorf("receive datagram: %w", err)
		case n != f.size:
			f.err = fmt.Errorf("receive datagram: %d bytes, sent were %d", n, f.size)
		default:
			f.got[binary.BigEndian.Uint64(buf)]++
		}
		stop := f.err != nil
		f.mu.Unlock()
		if stop {
			return
		}
	}
}

// Delivered is what arrived: distinct datagrams, and repeated ones beyond the first.
func (f *Flow) Delivered() (distinct, repeated int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.got {
		distinct++
		repeated += n - 1
	}
	return distinct, repeated
}

// Close ends the flow and says what went wrong on the way.
func (f *Flow) Close() error {
	err := errors.Join(f.sender.Close(), f.receiver.Close())
	<-f.done
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(err, f.err)
}
