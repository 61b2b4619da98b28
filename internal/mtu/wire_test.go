// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
	"xfrmscope/internal/netns"
)

// TestMain lets many tests run at once: they wait for answers that do not come and need no processor.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "24"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// lab is two hosts and a path between them, without IPsec: a router, or a wire of this test's own.
type lab struct {
	t       *testing.T
	tunnel  *tunnel.Tunnel
	ns      *netns.Handle // of host A, which probes
	routes  *Routes
	counted *wire
}

// expiry is how long the kernel is going to remember what it has learned.
var expiry = regexp.MustCompile(`expires \d+sec`)

const device = 9000 // MTU of every link

func raise(t *testing.T, family int, router bool, lose func(frame seen) bool) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	l := &lab{t: t}
	var err error
	l.tunnel, err = tunnel.Build(tunnel.Options{Family: family, Router: router, NoSAs: true})
	l.check(err)
	l.closing(l.tunnel.Close)
	for ns, links := range map[*tunnel.Namespace][]string{
		l.tunnel.A.Namespace: {tunnel.WAN}, l.tunnel.B.Namespace: {tunnel.WAN}, l.tunnel.Path: {tunnel.PathA, tunnel.PathB},
	} {
		for _, link := range links {
			l.check(ns.IP(fmt.Sprintf("link set %s mtu %d", link, device)))
		}
	}
	l.ns, err = netns.Open(l.tunnel.A.Name)
	l.check(err)
	l.closing(l.ns.Close)
	l.routes, err = OpenRoutes(l.ns)
	l.check(err)
	l.closing(func() error { l.routes.Close(); return nil })
	l.counted = openWire(l, router, lose)
	return l
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) closing(f func() error) {
	l.t.Cleanup(func() {
		if err := f(); err != nil {
			l.t.Error(err)
		}
	})
}

// narrow gives the router's further side an MTU.
func (l *lab) narrow(mtu int) {
	l.t.Helper()
	l.check(l.tunnel.Path.IP(fmt.Sprintf("link set %s mtu %d", tunnel.PathB, mtu)))
}

// route is what `ip route get` says of the way to host B, without how long that is going to hold.
func (l *lab) route() string {
	l.t.Helper()
	out, err := l.tunnel.A.Output("route", "get", l.tunnel.B.Outer.String())
	l.check(err)
	return strings.Join(strings.Fields(expiry.ReplaceAllString(out, "")), " ")
}

// measure probes host B from host A, and holds what it says of its packets against those on the wire.
func (l *lab) measure(set Settings, port uint16) Side {
	l.t.Helper()
	if set.Packets == 0 {
		set.Packets = DefaultPackets
	}
	if set.Timeout == 0 {
		set.Timeout = DefaultTimeout
	}
	before := l.route()
	l.counted.reset()
	side, err := Measure(l.t.Context(), l.ns, l.routes, Target{Src: l.tunnel.A.Outer, Dst: l.tunnel.B.Outer, UDP: port}, set)
	l.check(err)
	// Of UDP, Linux 7 learns whatever is done; then it has to be told.
	if after := l.route(); after != before && (port == 0 || !strings.Contains(after, fmt.Sprintf("mtu %d", side.After))) {
		l.t.Errorf("the route was %q and is %q", before, after)
	}
	frames := l.counted.taken(side.Result.Sent)
	if len(frames) != side.Result.Sent || len(frames) > set.Packets {
		l.t.Errorf("%d packets on the wire, the result says %d of at most %d", len(frames), side.Result.Sent, set.Packets)
	}
	for _, f := range frames {
		if f.fragment || l.tunnel.B.Outer.Is4() && !f.df {
			l.t.Errorf("a packet of %d octets is a fragment or may be cut", f.size)
		}
	}
	return side
}

// want is what a measurement has to find.
func (l *lab) want(side Side, mtu int, limit Limit) {
	l.t.Helper()
	if r := side.Result; r.MTU != mtu || r.Limit != limit || r.Exact() != (limit != LimitUnknown && limit != LimitAsked) {
		l.t.Errorf("MTU %d by %s, want %d by %s: %+v", r.MTU, r.Limit, mtu, limit, r)
	}
}

// seen is a packet on the wire.
type seen struct {
	back     bool // from B to A
	proto    byte
	size     int
	df       bool
	fragment bool
	src, dst netip.Addr
}

func read(frame []byte) (s seen, ok bool) {
	if len(frame) < 14+40 {
		return s, false
	}
	ip := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		flags := binary.BigEndian.Uint16(ip[6:])
		s = seen{proto: ip[9], size: int(binary.BigEndian.Uint16(ip[2:])), df: flags&0x4000 != 0, fragment: flags&0x3fff != 0,
			src: netip.AddrFrom4([4]byte(ip[12:16])), dst: netip.AddrFrom4([4]byte(ip[16:20]))}
	case 0x86dd:
		s = seen{proto: ip[6], size: ipv6Header + int(binary.BigEndian.Uint16(ip[4:])), fragment: ip[6] == 44,
			src: netip.AddrFrom16([16]byte(ip[8:24])), dst: netip.AddrFrom16([16]byte(ip[24:40]))}
	default:
		return s, false
	}
	return s, true
}

// wire looks at the path's frames, and where there is no router forwards them, unless lose says not to.
type wire struct {
	l    *lab
	lose func(seen) bool
	fds  [2]int
	wake [2]int
	done chan error

	mu     sync.Mutex
	frames []seen
}

func openWire(l *lab, router bool, lose func(seen) bool) *wire {
	w := &wire{l: l, lose: lose, done: make(chan error, 1)}
	l.check(unix.Pipe2(w.wake[:], unix.O_CLOEXEC))
	l.check(l.tunnel.Path.Do(func() error {
		for i, name := range []string{tunnel.PathA, tunnel.PathB} {
			link, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			const all = 0x0300 // ETH_P_ALL in network order
			if w.fds[i], err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
				return err
			}
			if err := errors.Join(unix.SetsockoptInt(w.fds[i], unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
				unix.SetsockoptInt(w.fds[i], unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
				unix.Bind(w.fds[i], &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})); err != nil {
				return err
			}
		}
		return nil
	}))
	go func() { w.done <- w.loop(router) }()
	l.closing(func() error {
		_, err := unix.Write(w.wake[1], []byte{0})
		return errors.Join(err, <-w.done, unix.Close(w.fds[0]), unix.Close(w.fds[1]), unix.Close(w.wake[0]), unix.Close(w.wake[1]))
	})
	return w
}

func (w *wire) loop(router bool) error {
	buf := make([]byte, 1<<16)
	for {
		fds := []unix.PollFd{{Fd: int32(w.fds[0]), Events: unix.POLLIN}, {Fd: int32(w.fds[1]), Events: unix.POLLIN}, {Fd: int32(w.wake[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if fds[2].Revents != 0 {
			return nil
		}
		for i := range w.fds {
			n, _, err := unix.Recvfrom(w.fds[i], buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				continue
			}
			if err != nil {
				return err
			}
			if err := w.pass(i, buf[:n], router); err != nil {
				return err
			}
		}
	}
}

func (w *wire) pass(from int, frame []byte, router bool) error {
	s, ok := read(frame)
	if s.back = from == 1; ok && !s.back && s.dst == w.l.tunnel.B.Outer {
		w.mu.Lock()
		w.frames = append(w.frames, s)
		w.mu.Unlock()
	}
	if router || ok && w.lose != nil && w.lose(s) {
		return nil
	}
	_, err := unix.Write(w.fds[1-from], frame)
	return err
}

func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = nil
}

// taken is what went by towards host B. Where a router forwards, the loop may be behind it: then it is
// waited for.
func (w *wire) taken(expected int) []seen {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		frames := w.frames
		w.mu.Unlock()
		if len(frames) >= expected || time.Now().After(end) {
			return frames
		}
	}
}
