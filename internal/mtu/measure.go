// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"xfrmscope/internal/netns"
)

// Settings bound what a measurement costs.
type Settings struct {
	Max     int // largest packet to try, in octets; 0: what the device takes
	Packets int // to send, on each side
	Timeout time.Duration
}

// Least and most that the settings may be.
const (
	DefaultPackets = 60
	DefaultTimeout = time.Second
	LeastMax       = 128
	MostMax        = 1<<16 - 1
)

// Side is one measurement: outside or inside of the tunnel.
type Side struct {
	Target Target
	Before Route // what the kernel went by
	After  int   // what it goes by now
	Result Result
	Max    int
}

// octets of the packet that shows whether anybody answers: an echo of 56, as ping sends it.
const baseData = 56

// udpGap is between two packets that a host refuses: Linux sends one such message a second to each
// destination, after a few at once (net.ipv4.icmp_ratelimit, RFC 4443 section 2.4 f).
const udpGap = time.Second

// Measure sends packets to a target of a namespace and finds out how large they may be.
func Measure(ctx context.Context, ns *netns.Handle, routes *Routes, t Target, set Settings) (side Side, err error) {
	side.Target = t
	if side.Before, err = routes.To(t.Dst, t.Src); err != nil {
		return side, err
	}
	side.Max = set.Max
	if side.Max == 0 {
		side.Max = side.Before.DeviceMTU
	}
	var sockets *Sockets
	if err := within(ns, func() (err error) {
		sockets, err = OpenSockets(t)
		return err
	}); err != nil {
		return side, err
	}
	defer func() { err = errors.Join(err, sockets.Close()) }()
	floor := 576
	if t.Dst.Is6() {
		floor = 1280
	}
	o := Options{
		Base: ipHeader(t.Dst) + icmpHeader + baseData, Floor: floor, Max: side.Max, Tries: 3, Scouts: sockets.Scouts(),
		Budget: set.Packets, Timeout: set.Timeout, Gap: 20 * time.Millisecond,
	}
	if t.UDP != 0 {
		o.Gap, o.Timeout = udpGap, max(udpGap, o.Timeout)
	}
	side.Result, err = Search(ctx, sockets, o)
	if side.Result.Limit == LimitNone && side.Max < side.Before.DeviceMTU {
		side.Result.Limit, side.Result.Confidence = LimitAsked, 0
	}
	side.Learned(routes)
	if err != nil {
		return side, fmt.Errorf("probe %s: %w", t.Dst, err)
	}
	return side, nil
}

// Learned asks again what the kernel goes by on the way to the target.
func (s *Side) Learned(routes *Routes) {
	s.After = s.Before.MTU
	if now, err := routes.To(s.Target.Dst, s.Target.Src); err == nil {
		s.After = now.MTU
	}
}

// Local lists the addresses of a namespace that packets can be sent from.
func (r *Routes) Local() ([]netip.Addr, error) {
	found, err := r.h.AddrList(nil, 0)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, f := range found {
		if a, ok := netip.AddrFromSlice(f.IP); ok {
			if a = a.Unmap(); !a.IsLinkLocalUnicast() && !a.IsLoopback() {
				out = append(out, a)
			}
		}
	}
	return out, nil
}
