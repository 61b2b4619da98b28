// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// famousMTUs are sizes that tell what is on the way, each with who documents it.
var famousMTUs = map[int]string{
	9001: "jumbo frames inside an Amazon VPC",
	8896: "the most that a Google Cloud VPC network takes",
	8500: "Amazon's Transit Gateway",
	1492: "PPPoE (RFC 2516 section 7)",
	1480: "an IP-in-IP or 6in4 tunnel over Ethernet (RFC 2003, RFC 4213)",
	1476: "a GRE tunnel over Ethernet (RFC 2784)",
	1460: "Google Cloud VPC networks unless set otherwise",
	1454: "PPPoE on the access lines of NTT in Japan",
	1450: "VXLAN over IPv4 Ethernet (RFC 7348), as in many overlay networks",
	1430: "VXLAN over IPv6 Ethernet (RFC 7348)",
	1420: "WireGuard's default",
	1400: "what Microsoft recommends towards Azure VPN gateways, and many overlays are set to",
	1280: "the least that IPv6 allows (RFC 8200 section 5)",
	576:  "the least that every IPv4 host reassembles (RFC 791 section 3.1)",
}

// famous names what an MTU is known for, in parentheses.
func famous(mtu int) string {
	if name, ok := famousMTUs[mtu]; ok {
		return fmt.Sprintf(" (%d is known from: %s)", mtu, name)
	}
	return ""
}

// innerMTU is what goes through an SA on a path of that size; 0 where the SA's overhead is not known.
func innerMTU(p *ledger.PMTUPath, path int) int {
	if p == nil || p.Overhead == nil || path == 0 {
		return 0
	}
	return p.Overhead.Inner(path)
}

// innerOf says what to set inside for a path of that size.
func innerOf(p *ledger.PMTUPath, path int) string {
	inner := innerMTU(p, path)
	if inner == 0 {
		return "The overhead of the SA's algorithms is not known here; try smaller inner packets until they pass."
	}
	return fmt.Sprintf("The SA adds at most %d octets: set an inner MTU of %d, or TCP MSS %d (IPv6 inside: %d).",
		p.Overhead.Most(), inner, ledger.MSS(inner, 4), ledger.MSS(inner, 6))
}

// fitting says what fits a tunnel: by its own account, or as the kernel told it to the sender.
func fitting(p *ledger.PMTUPath, family, told int) string {
	if p != nil && p.Overhead != nil && p.InnerMTU > 0 {
		return fmt.Sprintf("The path takes %d, the SA adds at most %d: inner MTU %d, MSS %d (IPv6 inside: %d)",
			p.PathMTU, p.Overhead.Most(), p.InnerMTU, p.MSS4, p.MSS6)
	}
	return fmt.Sprintf("Inner MTU %d, MSS %d", told, ledger.MSS(told, family))
}

// shrinkRemedies makes inner packets small enough, for TCP by its MSS and for all else by the route.
func shrinkRemedies(p *ledger.PMTUPath, family, inner int) []Remedy {
	if p != nil && p.InnerMTU > 0 && inner == 0 {
		inner = p.InnerMTU
	}
	if inner == 0 {
		return nil
	}
	mss4, mss6 := ledger.MSS(inner, 4), ledger.MSS(inner, 6)
	return []Remedy{
		{For: "nftables", Text: "Clamp the MSS of TCP that enters or leaves a tunnel. It helps at once, for new connections, and whatever becomes of ICMP.",
			Commands: []string{
				"nft add table inet clamp",
				"nft 'add chain inet clamp forward { type filter hook forward priority mangle; }'",
				fmt.Sprintf("nft add rule inet clamp forward meta nfproto ipv4 rt ipsec exists tcp flags syn tcp option maxseg size set %d", mss4),
				fmt.Sprintf("nft add rule inet clamp forward meta nfproto ipv4 meta ipsec exists tcp flags syn tcp option maxseg size set %d", mss4),
				fmt.Sprintf("nft add rule inet clamp forward meta nfproto ipv6 rt ipsec exists tcp flags syn tcp option maxseg size set %d", mss6),
				fmt.Sprintf("nft add rule inet clamp forward meta nfproto ipv6 meta ipsec exists tcp flags syn tcp option maxseg size set %d", mss6),
			}},
		{For: forIproute2, Text: "Give the route into the tunnel, or the xfrm interface, the inner MTU; it holds for every protocol.",
			Commands: []string{
				fmt.Sprintf("ip route change <network behind the peer> via <gateway> dev <interface> mtu %d", inner),
				fmt.Sprintf("ip link set dev <xfrm interface> mtu %d   # where there is one", inner),
			}},
		{For: forStrongSwan, Text: "In strongswan.conf: MTU and MSS of the routes that the daemon installs; then set the connection up anew.",
			Commands: []string{fmt.Sprintf("charon.plugins.kernel-netlink.mtu = %d", inner), fmt.Sprintf("charon.plugins.kernel-netlink.mss = %d", ledger.MSS(inner, family))}},
		{For: forLibreswan, Text: "In the conn section of ipsec.conf, then load and set up the connection anew.",
			Commands: []string{fmt.Sprintf("mtu=%d", inner), "ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
		{For: forPeer, Text: fmt.Sprintf("Cisco: ip tcp adjust-mss %d on the inside interface, ip mtu %d on the tunnel. "+
			"Windows: netsh interface ipv4 set subinterface \"<name>\" mtu=%d store=persistent.", mss4, inner, inner)},
	}
}

// Shrink says how to keep inner packets of a family within an MTU.
func Shrink(mtu, family int) []Remedy { return shrinkRemedies(nil, family, mtu) }
