// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Layer says where a device's packets begin.
type Layer int

// The layers that the wire programs can read.
const (
	LayerEthernet Layer = iota
	LayerIP             // no link header: tunnels, xfrm interfaces, WireGuard, PPP
	LayerOther          // a link header that is not Ethernet's
)

// Device is what the plan needs to know of a network device.
type Device struct {
	Name     string
	Index    int
	Kind     string // rtnetlink's: veth, vlan, bond, …; "" or "device" for hardware
	Layer    Layer
	LinkType string // as named by its ARPHRD type: ether, none, ipip, …
	Up       bool
	Loopback bool
	MTU      int
	Lower    []int // devices that carry this one's packets, here
	XDP      uint32
	XDPHere  bool // an XDP program is already attached; XDP is its id
	Addrs    []netip.Addr
}

// sameFrames are the kinds of device whose packets pass through a lower device unchanged but for a
// tag, so that hooks on both would count each packet twice. A tunnel is not among them: what its
// lower device carries are other packets.
var sameFrames = map[string]bool{
	"vlan": true, "macvlan": true, "macvtap": true, "ipvlan": true, "ipvtap": true,
	"bond": true, "team": true, "bridge": true, "vrf": true, "hsr": true, "dsa": true,
}

// peered kinds name another end, not a lower device, by IFLA_LINK.
var peered = map[string]bool{"veth": true, "netkit": true}

// carriesNothing are the kinds whose addresses say nothing about where packets arrive.
var carriesNothing = map[string]bool{"dummy": true, "vrf": true, "ifb": true, "nlmon": true}

// Devices lists the devices of the calling thread's network namespace.
func Devices() ([]Device, error) {
	// netlink.Handle would do; the package functions open a socket a call, in this very thread.
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byIndex := make(map[int]int, len(links))
	devices := make([]Device, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		d := Device{
			Name: a.Name, Index: a.Index, Kind: l.Type(), LinkType: a.EncapType, Layer: layerOf(a.EncapType),
			Up: a.Flags&net.FlagUp != 0, Loopback: a.Flags&net.FlagLoopback != 0, MTU: a.MTU,
		}
		if a.Xdp != nil && a.Xdp.Attached {
			d.XDPHere, d.XDP = true, a.Xdp.ProgId
		}
		// A parent in another namespace is no hook of ours.
		if a.ParentIndex != 0 && a.NetNsID < 0 && !peered[d.Kind] {
			d.Lower = append(d.Lower, a.ParentIndex)
		}
		byIndex[d.Index] = len(devices)
		devices = append(devices, d)
	}
	for _, l := range links {
		a := l.Attrs()
		if i, ok := byIndex[a.MasterIndex]; ok && a.MasterIndex != 0 {
			devices[i].Lower = append(devices[i].Lower, a.Index)
		}
	}
	for _, a := range addrs {
		i, ok := byIndex[a.LinkIndex]
		if !ok || a.IPNet == nil {
			continue
		}
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			devices[i].Addrs = append(devices[i].Addrs, ip.Unmap())
		}
	}
	return devices, nil
}

// whole lists until nothing has changed meanwhile, as it often does where containers come and go: a list that
// was interrupted may lack a device that is there.
func whole[T any](list func() ([]T, error)) (out []T, err error) {
	for range 50 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

func layerOf(linkType string) Layer {
	switch linkType {
	case "ether", "loopback", "generic":
		return LayerEthernet
	case "none", "void", "ipip", "tunnel6", "sit", "gre", "ppp", "unknown519", "unknown823": // RAWIP, IP6GRE
		return LayerIP
	}
	return LayerOther
}
