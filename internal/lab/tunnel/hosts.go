// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"fmt"
	"net"
)

// addHosts puts a host behind each gateway, which then forwards for it.
func (t *Tunnel) addHosts() error {
	if !t.Options.Hosts {
		return nil
	}
	for name, g := range map[string]*Gateway{"ha": t.A, "hb": t.B} {
		prefix := g.Name[:len(g.Name)-1]
		host, err := OpenNamespace(prefix + name)
		if err != nil {
			return err
		}
		g.Host = host
		if err := errors.Join(forward(g.Namespace), host.Sysctl("ipv6/conf/default/router_solicitations", "0")); err != nil {
			return err
		}
		if err := g.IP(fmt.Sprintf("link add %s type veth peer name %s netns %s", LAN, LAN, host.Name),
			fmt.Sprintf("link set %s up", LAN)); err != nil {
			return err
		}
		if err := host.IP(fmt.Sprintf("link set %s up", LAN)); err != nil {
			return err
		}
		for _, ns := range []*Namespace{g.Namespace, host} {
			if err := errors.Join(ns.Do(func() error { return OffloadsOff(LAN) }), ns.WaitUp(LAN)); err != nil {
				return err
			}
		}
	}
	return nil
}

// forward makes a namespace a router for both families.
func forward(n *Namespace) error {
	return errors.Join(n.Sysctl("ipv4/ip_forward", "1"), n.Sysctl("ipv6/conf/all/forwarding", "1"))
}

// gatewayAddr is the gateway's address towards its host. It is the same behind every gateway.
func gatewayAddr(family int) string {
	if family == 6 {
		return "fd00:ffff::1"
	}
	return "10.255.255.1"
}

// meetHost joins gateway and host: an address, a default route, and permanent neighbour entries for
// everything that either will ask for.
func (g *Gateway) meetHost(family int) error {
	bits, flags := 32, ""
	if family == 6 {
		bits, flags = 128, " nodad"
	}
	own, hosts, err := g.lanMACs()
	if err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("addr add %s/%d dev %s%s", gatewayAddr(family), bits, LAN, flags)}
	for _, inner := range g.Inner {
		lines = append(lines, fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", inner, hosts, LAN))
	}
	if err := g.IP(lines...); err != nil {
		return err
	}
	return g.Host.IP(
		fmt.Sprintf("route add %s/%d dev %s", gatewayAddr(family), bits, LAN),
		fmt.Sprintf("route add default via %s dev %s src %s", gatewayAddr(family), LAN, g.Inner[0]),
		fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", gatewayAddr(family), own, LAN),
	)
}

func (g *Gateway) lanMACs() (own, host net.HardwareAddr, err error) {
	own, err = mac(g.Namespace, LAN)
	if err != nil {
		return nil, nil, err
	}
	host, err = mac(g.Host, LAN)
	return own, host, err
}

func mac(n *Namespace, link string) (addr net.HardwareAddr, err error) {
	err = n.Do(func() error {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return fmt.Errorf("find interface %s in %s: %w", link, n.Name, err)
		}
		addr = l.HardwareAddr
		return nil
	})
	return addr, err
}

// addRouter gives the path addresses towards both ends and lets it forward.
func (t *Tunnel) addRouter() error {
	if !t.Options.Router {
		return nil
	}
	if err := forward(t.Path); err != nil {
		return err
	}
	bits, flags := 24, ""
	if t.Options.Family == 6 {
		bits, flags = 64, " nodad"
	}
	for i, g := range []*Gateway{t.A, t.B} {
		name := []string{PathA, PathB}[i]
		own, err := mac(t.Path, name)
		if err != nil {
			return err
		}
		if err := t.Path.IP(
			fmt.Sprintf("addr add %s/%d dev %s%s", t.routerAddr(i+1), bits, name, flags),
			fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", g.Outer, g.MAC, name),
		); err != nil {
			return err
		}
		if err := g.IP(fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", t.routerAddr(i+1), own, WAN)); err != nil {
			return err
		}
	}
	return nil
}
