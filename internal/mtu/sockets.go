// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is a port for sockets to be connected to that shall hear nothing.
const nobody = 33434

// Target is where packets go and how.
type Target struct {
	Src, Dst netip.Addr
	UDP      uint16 // port to send UDP to; 0: ICMP echo
	// Inside says that the packets take an SA. Then the kernel's own check of what fits into it shall
	// hold, without which it cuts the ESP packet of an IPv6 one in two (__xfrm6_output) and sends more
	// than fits in transport mode.
	Inside bool
}

// Sockets are a Path of this host's network stack.
//
// Packets leave with DF set, or over IPv6 whole; beside a tunnel whatever the kernel has learned of the
// path (IP_PMTUDISC_PROBE). Nothing is to be learned from them either, so that the next user of the path finds
// the host as it was: the sockets that send are connected to this host itself, which keeps the answers
// away from them, and those that receive take no MTU from anybody (IP_PMTUDISC_INTERFACE,
// ip_sk_accept_pmtu). One thing cannot be had this way: of ICMPv6 echo the kernel always learns
// (icmpv6_err). So over IPv6 a packet of a protocol for experiments goes first, for which the kernel has
// no handler and of which it learns nothing. It meets the routers that say what fits; echo then finds out
// about those that are silent. Of UDP, Linux 7 learns whatever is done here.
type Sockets struct {
	target  Target
	v6      bool
	port    uint16 // of our UDP packets
	id      uint16
	own     map[netip.Addr]bool // addresses of this host
	payload []byte
	fds     []int
	echo    int // sends echo requests
	icmp    int // receives ICMP
	udp     int // sends UDP
	scout   int // sends packets of protoScout
	wake    [2]int
	seq     uint16
	sent    map[uint16]shot // echo requests, by their number
	shots   map[int]time.Time
	buf     []byte
}

type shot struct {
	size int
	at   time.Time
}

// ErrPrivilege is in the chain where the sockets may not be opened.
var ErrPrivilege = errors.New("run as root or with CAP_NET_RAW")

// OpenSockets opens sockets in the network namespace of the calling thread.
func OpenSockets(t Target) (s *Sockets, err error) {
	s = &Sockets{target: t, v6: t.Dst.Is6(), sent: map[uint16]shot{}, shots: map[int]time.Time{},
		payload: make([]byte, 1<<16), buf: make([]byte, 1<<16)}
	// What is sent must not be compressible: an SA with IPComp would make it smaller.
	if _, err := rand.Read(s.payload); err != nil {
		return nil, fmt.Errorf("draw a payload: %w", err)
	}
	s.id = binary.BigEndian.Uint16(s.payload)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open probe sockets: %w", err), s.Close())
			s = nil
		}
	}()
	for _, open := range []func() error{s.learnOwn, s.openICMP, s.openEcho, s.openUDP, s.openScout} {
		if err := open(); err != nil {
			if errors.Is(err, unix.EPERM) {
				err = fmt.Errorf("%w: %w", err, ErrPrivilege)
			}
			return s, err
		}
	}
	if err := unix.Pipe2(s.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return s, fmt.Errorf("open pipe: %w", err)
	}
	s.fds = append(s.fds, s.wake[0], s.wake[1])
	return s, nil
}

// learnOwn lists this host's addresses: an ICMP error that comes from one is the host's own refusal.
func (s *Sockets) learnOwn() error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	s.own = map[netip.Addr]bool{}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				s.own[addr.Unmap()] = true
			}
		}
	}
	return nil
}

// Close closes the sockets.
func (s *Sockets) Close() error {
	var errs []error
	for _, fd := range s.fds {
		errs = append(errs, unix.Close(fd))
	}
	s.fds = nil
	return errors.Join(errs...)
}

// Scouts is how many packets of each size are of a protocol that only an error answers. Inside they would
// not do: a policy may be for ICMP only.
func (s *Sockets) Scouts() int {
	if s.v6 && s.target.UDP == 0 && !s.target.Inside {
		return 1
	}
	return 0
}

func (s *Sockets) socket(kind, proto int) (int, error) {
	domain := unix.AF_INET
	if s.v6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	s.fds = append(s.fds, fd)
	return fd, nil
}

// openICMP opens the socket that hears echo replies and errors, those about UDP included.
func (s *Sockets) openICMP() (err error) {
	if s.icmp, err = s.socket(unix.SOCK_RAW, s.icmpProto()); err != nil {
		return err
	}
	if !s.v6 {
		pass := uint32(1<<echoReply4 | 1<<unreachable4 | 1<<exceeded4 | 1<<parameter4)
		return errors.Join(s.deaf(s.icmp),
			unix.SetsockoptInt(s.icmp, unix.SOL_RAW, 1 /* ICMP_FILTER */, int(int32(^pass))))
	}
	filter := unix.ICMPv6Filter{}
	for i := range filter.Data {
		filter.Data[i] = 0xffffffff
	}
	for _, typ := range []int{unreachable6, tooBig6, exceeded6, parameter6, echoReply6} {
		filter.Data[typ/32] &^= 1 << (typ % 32)
	}
	return errors.Join(s.deaf(s.icmp),
		unix.SetsockoptICMPv6Filter(s.icmp, unix.SOL_ICMPV6, 1 /* ICMPV6_FILTER */, &filter))
}

func (s *Sockets) icmpProto() int {
	if s.v6 {
		return unix.IPPROTO_ICMPV6
	}
	return unix.IPPROTO_ICMP
}

func (s *Sockets) openEcho() (err error) {
	if s.echo, err = s.socket(unix.SOCK_RAW, s.icmpProto()); err != nil {
		return err
	}
	// It hears nothing: its answers come to the other one.
	if !s.v6 {
		if err := unix.SetsockoptInt(s.echo, unix.SOL_RAW, 1, -1); err != nil {
			return fmt.Errorf("set filter: %w", err)
		}
	} else {
		filter := unix.ICMPv6Filter{}
		for i := range filter.Data {
			filter.Data[i] = 0xffffffff
		}
		if err := unix.SetsockoptICMPv6Filter(s.echo, unix.SOL_ICMPV6, 1, &filter); err != nil {
			return fmt.Errorf("set filter: %w", err)
		}
	}
	return s.whole(s.echo)
}

// openUDP opens a socket that only sends, too: errors about its packets come to the one for ICMP.
func (s *Sockets) openUDP() (err error) {
	if s.target.UDP == 0 {
		return nil
	}
	if s.udp, err = s.socket(unix.SOCK_DGRAM, 0); err != nil {
		return err
	}
	if err := s.whole(s.udp); err != nil {
		return err
	}
	name, err := unix.Getsockname(s.udp)
	if err != nil {
		return fmt.Errorf("ask for the UDP port: %w", err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		s.port = uint16(a.Port)
	case *unix.SockaddrInet6:
		s.port = uint16(a.Port)
	}
	return nil
}

func (s *Sockets) openScout() (err error) {
	if s.Scouts() == 0 {
		return nil
	}
	if s.scout, err = s.socket(unix.SOCK_RAW, protoScout); err != nil {
		return err
	}
	return s.whole(s.scout)
}

// deaf makes a socket take no path MTU from what it receives.
func (s *Sockets) deaf(fd int) error {
	if s.v6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_INTERFACE)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE)
}

// whole makes a socket send packets that nobody may cut, from our address. Being connected to this host
// itself, it gets no answers.
func (s *Sockets) whole(fd int) error {
	level, discover, how, errs, dontfrag := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_RECVERR, 0
	if s.target.Inside {
		how = unix.IP_PMTUDISC_DO
	}
	if s.v6 {
		level, discover, how, errs, dontfrag = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_RECVERR, unix.IPV6_DONTFRAG
		if s.target.Inside {
			how = unix.IPV6_PMTUDISC_DO
		}
	}
	err := errors.Join(unix.SetsockoptInt(fd, level, discover, how), unix.SetsockoptInt(fd, level, errs, 1))
	if dontfrag != 0 {
		err = errors.Join(err, unix.SetsockoptInt(fd, level, dontfrag, 1))
	}
	if err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(s.target.Src, 0)); err != nil {
		return s.bindError(err)
	}
	if err := unix.Connect(fd, sockaddr(s.target.Src, nobody)); err != nil {
		return fmt.Errorf("connect to %s: %w", s.target.Src, err)
	}
	return nil
}

func (s *Sockets) bindError(err error) error {
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("send from %s: %w: it is no address of this host", s.target.Src, err)
	}
	return fmt.Errorf("send from %s: %w", s.target.Src, err)
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// Now is the time.
func (s *Sockets) Now() time.Time { return time.Now() }

// Send sends a packet of so many octets.
func (s *Sockets) Send(size, try int) (*Answer, error) {
	payload := size - ipHeader(s.target.Dst) - udpHeader // as long as an echo header
	if payload < 0 || size > 1<<16-1 {
		return nil, fmt.Errorf("send packet of %d octets: there is no such packet", size)
	}
	fd, to, b := s.udp, sockaddr(s.target.Dst, s.target.UDP), s.payload[:payload]
	switch {
	case try < s.Scouts():
		fd, b = s.scout, s.payload[:payload+udpHeader] // whose first octets are our id
		s.shots[size] = time.Now()
	case s.target.UDP == 0:
		s.seq++
		fd, b = s.echo, echo(s.v6, s.id, s.seq, b)
		s.sent[s.seq] = shot{size, time.Now()}
	default:
		s.shots[size] = time.Now()
	}
	err := unix.Sendto(fd, b, 0, to)
	for retry := 0; errors.Is(err, unix.EAGAIN) && retry < 3; retry++ {
		time.Sleep(100 * time.Millisecond) // the queue to the device is full, or an SA is being negotiated
		err = unix.Sendto(fd, b, 0, to)
	}
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, unix.EMSGSIZE):
		return &Answer{Kind: Refused, Size: size, From: s.target.Src, MTU: s.localMTU(fd)}, nil
	default:
		return nil, fmt.Errorf("send packet of %d octets to %s: %w%s", size, s.target.Dst, err, advice(err))
	}
}

// advice says what errors of sending mean where IPsec is about.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return ": a firewall or a policy of this host blocks it"
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ESRCH):
		return ": a policy asks for an SA that does not exist; bring the tunnel up first"
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return ": this host has no route there"
	}
	return ""
}

// localMTU reads from the error queue what would have fitted, 0 if it does not say.
func (s *Sockets) localMTU(fd int) int {
	oob := make([]byte, 512)
	for range 8 {
		_, n, _, _, err := unix.Recvmsg(fd, s.buf[:1], oob, unix.MSG_ERRQUEUE)
		if err != nil {
			return 0
		}
		controls, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			continue
		}
		for _, c := range controls {
			// struct sock_extended_err: errno, origin, type, code, pad, info.
			if len(c.Data) >= 16 && c.Data[4] == unix.SO_EE_ORIGIN_LOCAL && binary.NativeEndian.Uint32(c.Data) == uint32(unix.EMSGSIZE) {
				return int(binary.NativeEndian.Uint32(c.Data[8:]))
			}
		}
	}
	return 0
}
