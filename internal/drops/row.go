// SPDX-License-Identifier: Apache-2.0

package drops

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
)

// Kind is what one object of `drops --json` is.
type Kind string

// The kinds of objects.
const (
	KindDrop  Kind = "drop"  // one packet, with --follow
	KindRow   Kind = "row"   // drops that are alike, at the end
	KindTotal Kind = "total" // the last object
)

// What drops are told apart by.
type What struct {
	Reason    string   `json:"reason"`   // the kernel's name for it; empty: this kernel gives none
	Location  string   `json:"location"` // function+0xoffset [module] that freed the packet, or its address
	Function  string   `json:"function"` // empty: addresses are hidden
	Interface string   `json:"interface"`
	Ifindex   uint32   `json:"ifindex"` // 0: the packet was at no device
	Protocol  string   `json:"protocol"`
	Netns     string   `json:"netns,omitempty"` // with --all-netns: name or inode
	NoNetns   bool     `json:"netns_unknown,omitempty"`
	SA        *SA      `json:"sa,omitempty"`
	Counter   string   `json:"counter,omitempty"` // xfrm counter that moved
	Cause     string   `json:"cause,omitempty"`   // what xfrmscope makes of it, as in diagnose
	Folded    bool     `json:"folded,omitempty"`  // SA and stack are left out: too many different ones
	Stack     []string `json:"stack,omitempty"`   // innermost first
}

// SA is the SA that a dropped packet belongs to.
type SA struct {
	SPI       ledger.SPI       `json:"spi"`
	Dst       netip.Addr       `json:"dst"`
	Proto     string           `json:"proto"`
	Direction ledger.Direction `json:"direction"`
	Known     string           `json:"known_by"` // decrypted, header, route
}

// Packet is one packet.
type Packet struct {
	Src     netip.Addr `json:"src,omitzero"`
	Dst     netip.Addr `json:"dst,omitzero"`
	SrcPort uint16     `json:"sport,omitempty"`
	DstPort uint16     `json:"dport,omitempty"`
	Type    *uint16    `json:"icmp_type,omitempty"`
	Code    *uint16    `json:"icmp_code,omitempty"`
	Length  uint32     `json:"length_bytes"`
}

// Drop is one dropped packet.
type Drop struct {
	Type    Kind      `json:"type"`
	Time    time.Time `json:"time"`
	MonoNS  uint64    `json:"mono_ns"`
	CPU     uint32    `json:"cpu"`
	Packets uint32    `json:"packets"` // that the kernel had merged into one
	What
	Packet
}

// Row is what drops that are alike add up to.
type Row struct {
	Type    Kind    `json:"type"`
	Packets uint64  `json:"packets"`
	Bytes   uint64  `json:"bytes"`
	Share   float64 `json:"share_percent"`
	What
	Example Packet `json:"example"`
}

// Total ends a report.
type Total struct {
	Type     Kind              `json:"type"`
	Packets  uint64            `json:"packets"` // those that were counted in no row included
	Rows     int               `json:"rows"`
	Shown    int               `json:"rows_shown"`
	NotShown uint64            `json:"packets_not_shown"`
	Seconds  float64           `json:"duration_s"`
	Reasons  map[string]uint64 `json:"reasons,omitempty"`
	Lost     map[string]uint64 `json:"lost,omitempty"` // what could not be told, by cause
	Notes    []string          `json:"notes,omitempty"`
}

var saKnown = map[uint8]string{
	bpfobj.DropsSADecrypted: "decrypted", bpfobj.DropsSAHeader: "header", bpfobj.DropsSARoute: "route",
}

var directions = []ledger.Direction{ledger.In, ledger.Out, ledger.Unknown}

var protocols = map[uint8]string{
	unix.IPPROTO_ICMP: "ICMP", unix.IPPROTO_IGMP: "IGMP", unix.IPPROTO_IPIP: "IPIP", unix.IPPROTO_TCP: "TCP",
	unix.IPPROTO_UDP: "UDP", unix.IPPROTO_DCCP: "DCCP", unix.IPPROTO_IPV6: "IPv6", unix.IPPROTO_GRE: "GRE",
	unix.IPPROTO_ESP: "ESP", unix.IPPROTO_AH: "AH", unix.IPPROTO_ICMPV6: "ICMPv6", 89: "OSPF",
	unix.IPPROTO_COMP: "IPComp", unix.IPPROTO_SCTP: "SCTP", unix.IPPROTO_UDPLITE: "UDP-Lite", 112: "VRRP",
}

var etherTypes = map[uint16]string{
	0: "unknown", 0x0806: "ARP", 0x8100: "VLAN", 0x88a8: "VLAN", 0x88cc: "LLDP", 0x8863: "PPPoE", 0x8864: "PPPoE",
	0x888e: "EAPOL", 0x8809: "LACP", 0x0004: "802.2", 0x0003: "ALL",
}

// protocol names what a packet is: the IP protocol, or the EtherType of what is not IP.
func protocol(ether uint16, proto uint8, ip bool) string {
	if ip {
		if name, ok := protocols[proto]; ok {
			return name
		}
		return fmt.Sprintf("proto_%d", proto)
	}
	switch ether {
	case unix.ETH_P_IP:
		return "IPv4"
	case unix.ETH_P_IPV6:
		return "IPv6 header"
	}
	if name, ok := etherTypes[ether]; ok {
		return name
	}
	return fmt.Sprintf("ether_0x%04x", ether)
}

// what puts a key into words.
func (s *Session) what(k *bpfobj.DropsKey, ip bool) What {
	w := What{
		Reason: s.names.reasons.Name(k.Reason), Location: s.names.symbols.Name(k.Location),
		Interface: text(k.Ifname[:]), Ifindex: k.Ifindex, Protocol: protocol(k.Ether, k.Proto, ip),
		NoNetns: k.Flags&bpfobj.DropsNoNetns != 0, Folded: k.Flags&bpfobj.DropsFolded != 0,
	}
	if !strings.HasPrefix(w.Location, "0x") {
		w.Function, _, _ = strings.Cut(w.Location, "+")
	}
	if w.Interface == "" {
		w.Interface = s.names.device(k.Ifindex)
	}
	if s.names.allNetns && k.Netns != 0 {
		if w.Netns = s.names.spaces[k.Netns]; w.Netns == "" {
			w.Netns = fmt.Sprintf("net:[%d]", k.Netns)
		}
	}
	if known := saKnown[k.SaFrom]; known != "" {
		w.SA = &SA{
			SPI: ledger.SPI(k.Spi), Dst: netip.AddrFrom16(k.SaDst).Unmap(), Proto: protocol(0, k.SaProto, true),
			Direction: directions[min(int(k.Dir), len(directions)-1)], Known: known,
		}
	}
	if k.Mib != 0 && s.names.counter != nil {
		w.Counter = s.names.counter(k.Mib)
	}
	if int(k.Cause) < len(s.names.causes) && k.Cause != 0 {
		w.Cause = s.names.causes[k.Cause]
	}
	if k.Stack >= 0 {
		w.Stack = kernel.Stack(s.maps["drop_stacks"], uint32(k.Stack), k.Location, s.names.symbols.Name)
	}
	return w
}

func packet(src, dst [16]byte, sport, dport uint16, length uint32, ip bool, proto uint8) Packet {
	p := Packet{Length: length}
	if !ip {
		return p
	}
	p.Src, p.Dst = netip.AddrFrom16(src).Unmap(), netip.AddrFrom16(dst).Unmap()
	if proto == unix.IPPROTO_ICMP || proto == unix.IPPROTO_ICMPV6 {
		p.Type, p.Code = &sport, &dport
		return p
	}
	p.SrcPort, p.DstPort = sport, dport
	return p
}

// text is a C string.
func text(b []int8) string {
	var out []byte
	for _, c := range b {
		if c == 0 {
			break
		}
		out = append(out, byte(c))
	}
	return string(out)
}
