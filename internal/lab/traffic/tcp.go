// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TCPEnds say between whom a connection runs: the client sends, the server reads.
type TCPEnds struct {
	From, To      Inside
	Src, Dst      netip.Addr
	Port          uint16 // of the server
	ReceiveBuffer int    // SO_RCVBUF of the server, whatever rmem_max; 0: the kernel tunes it
	SendBuffer    int    // SO_SNDBUF of the client; 0: the kernel tunes it
}

// TCP is one connection whose reader can stop and go on.
type TCP struct {
	client, server net.Conn
	listener       net.Listener
	received       atomic.Int64
	done           chan struct{}
	err            error

	mu     sync.Mutex
	resume *sync.Cond
	paused bool
	closed bool
}

// tcpPatience bounds what a handshake through a lossy path may take.
const tcpPatience = 60 * time.Second

// OpenTCP connects and begins to read. Buffers are set before the handshake, which settles the window
// scale.
func OpenTCP(e TCPEnds) (*TCP, error) {
	t := &TCP{done: make(chan struct{})}
	t.resume = sync.NewCond(&t.mu)
	ctx, cancel := context.WithTimeout(context.Background(), tcpPatience)
	defer cancel()
	server := netip.AddrPortFrom(e.Dst, e.Port)
	err := e.To(func() (err error) {
		lc := net.ListenConfig{Control: buffer(unix.SO_RCVBUFFORCE, e.ReceiveBuffer)}
		lc.SetMultipathTCP(false)
		t.listener, err = lc.Listen(ctx, "tcp", server.String())
		return err
	})
	if err == nil {
		// The client may be connected without the server: its last segment of the handshake can get lost.
		stop := context.AfterFunc(ctx, func() { t.listener.Close() }) // the error that follows says that it was late
		defer stop()
		accepted := make(chan error, 1)
		go func() {
			var err error
			t.server, err = t.listener.Accept()
			accepted <- err
		}()
		err = e.From(func() (err error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: e.Src.AsSlice()}, Control: buffer(unix.SO_SNDBUF, e.SendBuffer), KeepAlive: -1}
			d.SetMultipathTCP(false)
			t.client, err = d.DialContext(ctx, "tcp", server.String())
			return err
		})
		if err != nil {
			err = errors.Join(err, t.listener.Close())
			<-accepted
		} else if err = <-accepted; err != nil {
			err = errors.Join(err, t.client.Close(), t.listener.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect %s to %s: %w", e.Src, server, err)
	}
	go t.read()
	return t, nil
}

func buffer(option, bytes int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if bytes == 0 {
			return nil
		}
		var set error
		err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, bytes) })
		return errors.Join(err, set)
	}
}

// read takes what comes, unless it is paused.
func (t *TCP) read() {
	defer close(t.done)
	buf := make([]byte, 64<<10)
	for {
		t.mu.Lock()
		for t.paused && !t.closed {
			t.resume.Wait()
		}
		closed := t.closed
		t.mu.Unlock()
		if closed {
			return
		}
		n, err := t.server.Read(buf)
		t.received.Add(int64(n))
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) {
				t.err = err
			}
			return
		}
	}
}

// Pause stops the reader: what it has asked for may still come once.
func (t *TCP) Pause() { t.set(true) }

// Resume lets it go on.
func (t *TCP) Resume() { t.set(false) }

func (t *TCP) set(paused bool) {
	t.mu.Lock()
	t.paused = paused
	t.resume.Broadcast()
	t.mu.Unlock()
}

// Write sends so many bytes, and waits until the kernel has taken them.
func (t *TCP) Write(bytes int) error {
	buf := make([]byte, 16<<10)
	for bytes > 0 {
		n, err := t.client.Write(buf[:min(len(buf), bytes)])
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		bytes -= n
	}
	return nil
}

// WriteFor sends for so long, and says how much. What a stalled reader keeps back ends it as well.
func (t *TCP) WriteFor(d time.Duration) (int64, error) {
	if err := t.client.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return 0, err
	}
	buf, sent := make([]byte, 16<<10), int64(0)
	for {
		n, err := t.client.Write(buf)
		sent += int64(n)
		if errors.Is(err, unix.EAGAIN) || isTimeout(err) {
			return sent, t.client.SetWriteDeadline(time.Time{})
		}
		if err != nil {
			return sent, fmt.Errorf("send: %w", err)
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// Received is how many bytes the reader has taken.
func (t *TCP) Received() int64 { return t.received.Load() }

// Await waits until the reader has taken so many bytes.
func (t *TCP) Await(bytes int64, patience time.Duration) error {
	for deadline := time.Now().Add(patience); t.Received() < bytes; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("await %d bytes: %d came within %s", bytes, t.Received(), patience)
		}
	}
	return nil
}

// Client and Server are the addresses of both ends.
func (t *TCP) Client() netip.AddrPort { return t.client.LocalAddr().(*net.TCPAddr).AddrPort() }

// Server is the reader's address.
func (t *TCP) Server() netip.AddrPort { return t.client.RemoteAddr().(*net.TCPAddr).AddrPort() }

// Close ends the connection at once, whatever the path lets through: a socket that went on repeating its last segments
// would keep its namespace alive, with all that is in it, into the tests that follow.
func (t *TCP) Close() error {
	t.mu.Lock()
	t.closed = true
	t.resume.Broadcast()
	t.mu.Unlock()
	var err error
	for _, c := range []net.Conn{t.client, t.server} {
		err = errors.Join(err, c.(*net.TCPConn).SetLinger(0))
	}
	err = errors.Join(err, t.client.Close(), t.server.Close(), t.listener.Close())
	<-t.done
	return errors.Join(err, t.err)
}
