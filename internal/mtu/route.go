// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/netns"
)

// Route is what the kernel goes by on the way to an address.
type Route struct {
	Src       netip.Addr   `json:"-"`
	Gateway   netip.Addr   `json:"-"` // not valid: the address is on the link
	Prefix    netip.Prefix `json:"-"` // that the route is for
	Device    string       `json:"device"`
	Index     int          `json:"-"`
	IfID      uint32       `json:"-"` // of an xfrm interface
	DeviceMTU int          `json:"device_mtu"`
	MTU       int          `json:"mtu"`     // that the kernel goes by
	Learned   bool         `json:"learned"` // from a router or another host, and not configured
	Locked    bool         `json:"locked"`  // configured with "lock": nothing is learned
}

// Routes asks the kernel for routes.
type Routes struct{ h *netlink.Handle }

// OpenRoutes connects to a network namespace.
func OpenRoutes(ns *netns.Handle) (*Routes, error) {
	r := &Routes{}
	err := within(ns, func() (err error) {
		r.h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	return r, nil
}

// within runs a function in a namespace. To enter the one that the caller is in already would ask for a
// privilege that is not needed.
func within(ns *netns.Handle, f func() error) error {
	if ns.Name() == "" {
		return f()
	}
	return ns.Do(f)
}

// Close closes the socket.
func (r *Routes) Close() { r.h.Close() }

// To finds the route to an address, from one of this host's where src is valid.
func (r *Routes) To(dst, src netip.Addr) (Route, error) {
	options := &netlink.RouteGetOptions{}
	if src.IsValid() {
		options.SrcAddr = src.AsSlice()
	}
	found, err := r.h.RouteGetWithOptions(dst.AsSlice(), options)
	if err != nil || len(found) == 0 {
		return Route{}, fmt.Errorf("find route to %s%s: %w", dst, from(src), err)
	}
	link, err := r.h.LinkByIndex(found[0].LinkIndex)
	if err != nil {
		return Route{}, fmt.Errorf("find device of the route to %s: %w", dst, err)
	}
	most := min(link.Attrs().MTU, MostMax) // a loopback takes more than there can be
	out := Route{
		Src: src, Index: found[0].LinkIndex, Device: link.Attrs().Name, DeviceMTU: most,
		MTU: most, Locked: found[0].MTULock,
	}
	if !src.IsValid() {
		out.Src, _ = netip.AddrFromSlice(found[0].Src)
		out.Src = out.Src.Unmap()
	}
	out.Gateway, _ = netip.AddrFromSlice(found[0].Gw)
	out.Gateway = out.Gateway.Unmap()
	if x, ok := link.(*netlink.Xfrmi); ok {
		out.IfID = x.Ifid
	}
	if found[0].MTU != 0 {
		out.MTU = found[0].MTU
	}
	// The entry of the routing table itself knows nothing of what was learned (rt_fill_info).
	options.FIBMatch = true
	entry, err := r.h.RouteGetWithOptions(dst.AsSlice(), options)
	if err != nil || len(entry) == 0 {
		return Route{}, fmt.Errorf("find entry of the routing table for %s: %w", dst, err)
	}
	out.Learned = found[0].MTU != 0 && found[0].MTU != entry[0].MTU
	out.Prefix = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if dst.Is6() {
		out.Prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if n := entry[0].Dst; n != nil {
		if a, ok := netip.AddrFromSlice(n.IP); ok {
			bits, _ := n.Mask.Size()
			out.Prefix = netip.PrefixFrom(a.Unmap(), bits)
		}
	}
	return out, nil
}

func from(src netip.Addr) string {
	if !src.IsValid() {
		return ""
	}
	return " from " + src.String()
}
