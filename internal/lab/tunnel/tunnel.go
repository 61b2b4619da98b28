// SPDX-License-Identifier: Apache-2.0

// Package tunnel builds ESP tunnels to test against: two gateways in network namespaces of their own
// and, between them, a third namespace that stands for the path. The path has no network stack to
// speak of: whoever forwards the frames from one of its two interfaces to the other decides what
// happens on the way.
package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// WAN is the name of each gateway's interface towards the path.
const WAN = "wan"

// Names of the path's interfaces towards gateway A and gateway B.
const (
	PathA = "to-a"
	PathB = "to-b"
)

// LAN is the name of the link between a gateway and the host behind it, on both.
const LAN = "lan"

// Gateway is one end of the tunnel.
type Gateway struct {
	*Namespace
	Host    *Namespace // behind it; nil without Options.Hosts
	Outer   netip.Addr
	Inner   []netip.Addr // one for each SA pair
	MAC     net.HardwareAddr
	IfIndex int

	encapSocket int // keeps UDP encapsulation alive, -1 when there is none
}

// SA is one security association of the tunnel, as both gateways know it. It knows no keys: they
// go to the kernel and nowhere else.
type SA struct {
	SPI   uint32
	ReqID uint32
	From  *Gateway
	To    *Gateway
	Src   netip.Addr // inner addresses of the traffic that it protects
	Dst   netip.Addr

	ReplayWindow uint32
}

// Inside is where the inner addresses are: the host behind the gateway, or the gateway itself.
func (g *Gateway) Inside() *Namespace {
	if g.Host != nil {
		return g.Host
	}
	return g.Namespace
}

// Tunnel is two gateways and the path between them.
type Tunnel struct {
	Options Options
	A, B    *Gateway
	Path    *Namespace
	AtoB    []SA // one for each pair
	BtoA    []SA
}

// built counts the tunnels of this process, so that each has names of its own.
var built atomic.Uint32

// Build raises a tunnel. The caller closes it, also when a test fails.
func Build(o Options) (t *Tunnel, err error) {
	o, err = o.normalize()
	if err != nil {
		return nil, fmt.Errorf("build tunnel: %w", err)
	}
	t = &Tunnel{Options: o}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build tunnel: %w", err), t.Close())
			t = nil
		}
	}()
	prefix := o.Name
	if prefix == "" {
		prefix = fmt.Sprintf("xs%d-%d", os.Getpid(), built.Add(1))
	}
	if err := t.addNamespaces(prefix); err != nil {
		return t, err
	}
	for _, step := range []func() error{t.addLinks, t.addHosts, t.addAddresses, t.addRouter, t.addEncapSockets, t.addSAs} {
		if err := step(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// Close takes the tunnel down. It may be called on a tunnel that was only half built.
func (t *Tunnel) Close() error {
	var errs []error
	for _, g := range []*Gateway{t.A, t.B} {
		if g == nil {
			continue
		}
		if g.encapSocket >= 0 {
			errs = append(errs, unix.Close(g.encapSocket))
			g.encapSocket = -1
		}
		if g.Host != nil {
			errs = append(errs, g.Host.Close())
		}
		errs = append(errs, g.Namespace.Close())
	}
	if t.Path != nil {
		errs = append(errs, t.Path.Close())
	}
	t.A, t.B, t.Path = nil, nil, nil
	return errors.Join(errs...)
}

func (t *Tunnel) addNamespaces(prefix string) error {
	for i, name := range []string{"a", "b", "path"} {
		ns, err := OpenNamespace(prefix + "-" + name)
		if err != nil {
			return err
		}
		switch i {
		case 0:
			t.A = &Gateway{Namespace: ns, encapSocket: -1}
		case 1:
			t.B = &Gateway{Namespace: ns, encapSocket: -1}
		default:
			t.Path = ns
		}
	}
	return nil
}

// addLinks joins each gateway to the path by a veth pair. The path's own IPv6 is off, so that
// nothing but what is forwarded comes out of it.
func (t *Tunnel) addLinks() error {
	if !t.Options.Router {
		for _, which := range []string{"all", "default"} {
			if err := t.Path.Sysctl("ipv6/conf/"+which+"/disable_ipv6", "1"); err != nil {
				return err
			}
		}
	}
	for name, g := range map[string]*Gateway{PathA: t.A, PathB: t.B} {
		// Router solicitations would only be noise on the path.
		if err := g.Sysctl("ipv6/conf/default/router_solicitations", "0"); err != nil {
			return err
		}
		if err := t.Path.IP(
			fmt.Sprintf("link add %s type veth peer name %s netns %s", name, WAN, g.Name),
			fmt.Sprintf("link set %s up", name),
		); err != nil {
			return err
		}
		if err := g.IP(fmt.Sprintf("link set %s up", WAN)); err != nil {
			return err
		}
		if err := t.Path.Do(func() error { return OffloadsOff(name) }); err != nil {
			return err
		}
		if err := g.Do(g.findLink); err != nil {
			return err
		}
		if err := errors.Join(t.Path.WaitUp(name), g.WaitUp(WAN)); err != nil {
			return err
		}
	}
	return nil
}

// findLink turns the offloads off and learns the interface's identity; it runs in the namespace.
func (g *Gateway) findLink() error {
	if err := OffloadsOff(WAN); err != nil {
		return err
	}
	link, err := net.InterfaceByName(WAN)
	if err != nil {
		return fmt.Errorf("find interface %s in %s: %w", WAN, g.Name, err)
	}
	g.MAC, g.IfIndex = link.HardwareAddr, link.Index
	return nil
}

// addAddresses gives the gateways their outer addresses, the inner ones on the loopback or to the
// hosts, and permanent neighbour entries: address resolution would cost the first packet its exactness.
func (t *Tunnel) addAddresses() error {
	t.A.Outer, t.B.Outer = t.outerAddr(1), t.outerAddr(2)
	bits, host, flags := 24, 32, ""
	if t.Options.Family == 6 {
		bits, host, flags = 64, 128, " nodad"
	}
	for i, g := range []*Gateway{t.A, t.B} {
		peer := []*Gateway{t.B, t.A}[i]
		via := peer.Outer
		lines := []string{fmt.Sprintf("addr add %s/%d dev %s%s", g.Outer, bits, WAN, flags)}
		if t.Options.Router {
			via = t.routerAddr(i + 1)
			lines = append(lines, fmt.Sprintf("route add default via %s dev %s", via, WAN))
		} else {
			lines = append(lines, fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", via, peer.MAC, WAN))
		}
		for pair := range t.Options.Pairs {
			own, other := innerAddr(t.Options.Family, i+1, pair), innerAddr(t.Options.Family, 2-i, pair)
			switch {
			case t.Options.Mode == TransportMode:
				own = g.Outer
			case t.Options.Hosts:
				if err := g.Host.IP(fmt.Sprintf("addr add %s/%d dev %s%s", own, host, LAN, flags)); err != nil {
					return err
				}
				lines = append(lines,
					fmt.Sprintf("route add %s/%d dev %s", own, host, LAN),
					fmt.Sprintf("route add %s/%d via %s dev %s", other, host, via, WAN))
			default:
				lines = append(lines,
					fmt.Sprintf("addr add %s/%d dev lo%s", own, host, flags),
					fmt.Sprintf("route add %s/%d via %s dev %s src %s", other, host, via, WAN, own))
			}
			g.Inner = append(g.Inner, own)
		}
		if err := g.IP(lines...); err != nil {
			return err
		}
		if t.Options.Hosts {
			if err := g.meetHost(t.Options.Family); err != nil {
				return err
			}
		}
	}
	return nil
}

// outerAddr is an address from the ranges set aside for documentation (RFC 5737, RFC 3849). Around a
// router the two ends are in networks of their own.
func (t *Tunnel) outerAddr(end int) netip.Addr { return t.network(end, end) }

// routerAddr is the router's address towards an end.
func (t *Tunnel) routerAddr(end int) netip.Addr { return t.network(end, 0xfe) }

func (t *Tunnel) network(end, host int) netip.Addr {
	far := t.Options.Router && end == 2
	switch {
	case t.Options.Family == 6 && far:
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:0:2::%x", host))
	case t.Options.Family == 6:
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", host))
	case far:
		return netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", host))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", host))
}

func innerAddr(family, end, pair int) netip.Addr {
	if family == 6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00:%d:%d::1", end, pair))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.%d.%d.1", end, pair))
}
