// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Wait gives the next answer to a packet of ours.
func (s *Sockets) Wait(ctx context.Context, d time.Duration) (Answer, bool, error) {
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(s.wake[1], []byte{0}) })
	defer stop()
	for end := time.Now().Add(d); ; {
		if err := ctx.Err(); err != nil {
			return Answer{}, false, err
		}
		// What has come already counts, also when the time is over.
		if answer, ok, err := s.receiveICMP(); ok || err != nil {
			return answer, ok, err
		}
		left := time.Until(end)
		if left <= 0 {
			return Answer{}, false, nil
		}
		fds := []unix.PollFd{{Fd: int32(s.icmp), Events: unix.POLLIN}, {Fd: int32(s.wake[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return Answer{}, false, fmt.Errorf("wait for answers: %w", err)
		}
	}
}

func (s *Sockets) receiveICMP() (Answer, bool, error) {
	for {
		b, from, ok, err := s.receive(s.icmp)
		if !ok || err != nil {
			return Answer{}, false, err
		}
		if !s.v6 {
			if b, ok = stripIPv4(b); !ok {
				continue
			}
		}
		if m, ok := parseICMP(s.v6, b); ok {
			if answer, ours := s.answer(m, from); ours {
				return answer, true, nil
			}
		}
	}
}

func (s *Sockets) receive(fd int) ([]byte, netip.Addr, bool, error) {
	n, from, err := unix.Recvfrom(fd, s.buf, 0)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil, netip.Addr{}, false, nil
	case err != nil:
		return nil, netip.Addr{}, false, fmt.Errorf("receive answers: %w", err)
	}
	var addr netip.Addr
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		addr = netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		addr = netip.AddrFrom16(a.Addr)
	}
	return s.buf[:n], addr, true, nil
}

// answer says which packet of ours a message is about, if any.
func (s *Sockets) answer(m message, from netip.Addr) (Answer, bool) {
	a := Answer{From: from}
	var at time.Time
	switch {
	case m.reply || m.quote.proto == protoICMP || m.quote.proto == protoICMPv6:
		shot, known := s.sent[m.seq]
		if m.id != s.id || !known || m.reply && from != s.target.Dst {
			return a, false
		}
		a.Size, at = shot.size, shot.at
	default:
		var known bool
		if at, known = s.shots[m.quote.size]; !known || m.quote.proto == protoUDP && m.quote.sport != s.port || m.quote.proto == protoScout && m.id != s.id {
			return a, false
		}
		a.Size = m.quote.size
	}
	if !m.reply && (m.quote.src != s.target.Src || m.quote.dst != s.target.Dst) {
		return a, false
	}
	a.Took = time.Since(at)
	tooBig := s.v6 && m.typ == tooBig6 || !s.v6 && m.typ == unreachable4 && m.code == fragNeeded
	switch {
	case m.reply:
		a.Kind = Passed
	case tooBig && s.own[from]:
		// An xfrm interface tells the sender by ICMP, also where that is this host (xfrmi_xmit2).
		a.Kind, a.MTU = Refused, m.mtu
	case tooBig:
		a.Kind, a.MTU = TooBig, m.mtu
	case from == s.target.Dst && m.quote.proto == protoUDP && (m.typ == unreachable4 && !s.v6 || m.typ == unreachable6 && s.v6),
		from == s.target.Dst && m.quote.proto == protoScout && (m.typ == unreachable6 || m.typ == parameter6):
		// The target itself refuses it: it got there.
		a.Kind = Arrived
		if s.target.UDP != 0 {
			a.Kind = Passed
		}
	default:
		a.Kind, a.Why = Unreachable, m.explain(s.v6)
	}
	return a, true
}
