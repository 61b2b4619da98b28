// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sendBuffer keeps a bulk transfer from having more packets under way than the queue of an emulated
// processor holds (net.core.netdev_max_backlog, 1000): the lab's own losses would prove nothing.
const sendBuffer = 128 << 10

// streamPatience bounds a transfer.
const streamPatience = 60 * time.Second

// Stream sends bytes over a TCP connection as fast as it goes, and returns when the receiver has all
// of them.
func Stream(e Ends, bytes int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), streamPatience)
	defer cancel()
	var listener *net.TCPListener
	to := net.TCPAddrFromAddrPort(netip.AddrPortFrom(e.Dst, e.Port))
	err := e.To(func() (err error) {
		listener, err = net.ListenTCP("tcp", to)
		return err
	})
	if err != nil {
		return fmt.Errorf("open stream to %s: %w", to, err)
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() }) // the error that follows says that it was late
	defer stop()
	received := make(chan error, 1)
	go func() { received <- receive(ctx, listener, bytes) }()
	err = e.From(func() error { return stream(ctx, e.Src, to, bytes) })
	if err != nil {
		cancel() // nobody else would end the receiver
	}
	if err := errors.Join(err, <-received); err != nil {
		return fmt.Errorf("stream %d bytes from %s to %s: %w", bytes, e.Src, to, err)
	}
	return nil
}

func stream(ctx context.Context, src netip.Addr, to *net.TCPAddr, bytes int64) error {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), Control: boundSendBuffer}
	// One address and no name: the dialer stays on this thread, and so in its namespace.
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.CopyN(conn, zeros{}, bytes); err != nil {
		return errors.Join(err, conn.Close())
	}
	return conn.Close()
}

func boundSendBuffer(_, _ string, raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer/2) // the kernel doubles it
	})
	return errors.Join(err, set)
}

// receive takes one connection and all that comes over it.
func receive(ctx context.Context, listener *net.TCPListener, bytes int64) error {
	defer listener.Close()
	conn, err := listener.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	n, err := io.Copy(io.Discard, conn)
	switch {
	case err != nil:
		return errors.Join(err, conn.Close())
	case n != bytes:
		return errors.Join(fmt.Errorf("%d bytes arrived", n), conn.Close())
	}
	return conn.Close()
}

// zeros is a reader without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
