// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/traffic"
)

const (
	pairRounds   = 12
	pairPerRound = 1000 // packets
	pairSize     = 1300 // bytes of payload of each: one packet, or segment
)

// pair is a sender and a receiver that take turns on one thread: on a single processor what was sent is at the
// receiver when the sender's system call returns, so that nothing waits, and the machine's time is what the
// packets and the observer took, always for the same packets.
type pair struct {
	name               string
	from, to, listener int
}

// openPairs opens a pair each of datagrams and of a connection.
func openPairs(t *testing.T, e traffic.Ends) []*pair {
	t.Helper()
	pairs := []*pair{
		{name: "UDP", from: -1, to: -1, listener: -1},
		{name: "TCP", from: -1, to: -1, listener: -1},
	}
	t.Cleanup(func() {
		for _, p := range pairs {
			p.close(t)
		}
	})
	e.Port++ // beside the transfers
	for _, step := range []error{pairs[0].openUDP(e), pairs[1].openTCP(e)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	return pairs
}

func (p *pair) openUDP(e traffic.Ends) error {
	return errors.Join(
		e.To(func() error { return bound(&p.to, unix.SOCK_DGRAM, e.Dst, e.Port) }),
		e.From(func() error { return connected(&p.from, unix.SOCK_DGRAM, e) }),
		bounded(p.to),
	)
}

func (p *pair) openTCP(e traffic.Ends) error {
	err := errors.Join(
		e.To(func() error {
			return errors.Join(bound(&p.listener, unix.SOCK_STREAM, e.Dst, e.Port), unix.Listen(p.listener, 1))
		}),
		e.From(func() error { return connected(&p.from, unix.SOCK_STREAM, e) }),
	)
	if err != nil {
		return err
	}
	if p.to, _, err = unix.Accept(p.listener); err != nil {
		return err
	}
	return errors.Join(bounded(p.to), unix.SetsockoptInt(p.from, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

// bound opens a socket of an address.
func bound(fd *int, kind int, addr netip.Addr, port uint16) (err error) {
	if *fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	return unix.Bind(*fd, &unix.SockaddrInet4{Addr: addr.As4(), Port: int(port)})
}

func connected(fd *int, kind int, e traffic.Ends) error {
	return errors.Join(bound(fd, kind, e.Src, 0), unix.Connect(*fd, &unix.SockaddrInet4{Addr: e.Dst.As4(), Port: int(e.Port)}))
}

// bounded makes a receiver give up when nothing comes.
func bounded(fd int) error {
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
}

// measure returns the instructions of the whole machine for a packet, of each round. Go's scheduler is not
// told of the system calls: it would hand the processor to another thread in those that take long.
func (p *pair) measure(t *testing.T, rounds int) []float64 {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, pairSize)
	at := uintptr(unsafe.Pointer(&buf[0]))
	per := make([]float64, 0, rounds)
	for range rounds {
		began := time.Now()
		for range pairPerRound {
			if n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(p.from), at, pairSize); errno != 0 || n != pairSize {
				t.Fatalf("%s: %d of %d bytes sent: %v", p.name, n, pairSize, errno)
			}
			if n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(p.to), at, pairSize); errno != 0 || n != pairSize {
				t.Fatalf("%s: %d of %d bytes arrived: %v", p.name, n, pairSize, errno)
			}
		}
		per = append(per, float64(time.Since(began).Nanoseconds())/pairPerRound)
	}
	runtime.KeepAlive(buf)
	return per
}

func (p *pair) close(t *testing.T) {
	t.Helper()
	for _, fd := range []int{p.from, p.to, p.listener} {
		if fd < 0 {
			continue
		}
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
}

// mean is what a packet took over all rounds, with what the observer does now and then.
func mean(of []float64) float64 {
	var sum float64
	for _, n := range of {
		sum += n
	}
	return sum / float64(len(of))
}
