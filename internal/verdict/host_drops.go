// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// The kinds for what this host drops by itself, without a firewall.
const (
	RPFilterDrop           ID = "rp-filter-drop"
	NoRouteAfterDecap      ID = "no-route-after-decap"
	EgressDrop             ID = "egress-drop"
	HostIngressDrop        ID = "host-ingress-drop"
	DecryptedPacketDropped ID = "decrypted-packet-dropped"
)

// isRPFilter: the kernel has a reason of its own for it from 5.18 on. Before, the counter of the
// reverse path filter tells, where it rose.
func isRPFilter(r *ledger.Report, d *ledger.Drop) bool {
	if d.Place == ledger.PlaceRPFilter {
		return true
	}
	return d.Place == ledger.PlaceRoute && d.Stage == ledger.BeforeXfrm && d.Reason == "" && rpFiltered(r) > 0
}

func rpFiltered(r *ledger.Report) int64 {
	if r.Host == nil {
		return 0
	}
	return r.Host.Snmp["TcpExt.IPReversePathFilter"]
}

func rpFilterDrop(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range lost(r, func(d *ledger.Drop) bool { return isRPFilter(r, d) }) {
		_, known := dropPeer(r, &l.drops[0])
		if !known {
			continue // strangers' packets from impossible addresses are what the filter is for
		}
		d := &l.drops[0]
		f := Finding{
			ID: RPFilterDrop, Severity: l.graded(lossSeverity), Confidence: l.sure(r), Subject: l.subject(), Evidence: l.evidence(),
			Summary: fmt.Sprintf("The reverse path filter dropped %s: %s. The route back to %s does not lead through the interface where they arrive (%d).",
				l.count(), l.whose(), d.Src, d.Ifindex),
			Remedy: []Remedy{
				{For: forHost, Text: "Route the peer through the interface that its packets come by. Where the ways there and back differ on purpose, filter loosely on that interface; " +
					"the stricter of the interface's setting and \"all\" holds.",
					Commands: []string{
						"ip route get " + d.Src.String(),
						fmt.Sprintf("ip route add %s via <gateway> dev <interface %d>", d.Src, d.Ifindex),
						"sysctl -w net.ipv4.conf.<interface>.rp_filter=2",
						"sysctl -w net.ipv4.conf.all.rp_filter=2   # if it is 1: the higher of the two values counts",
						"nstat -az TcpExtIPReversePathFilter",
					}},
				{For: forStrongSwan, Text: "charon routes tunnels in table 220 and leaves the peer's own route alone; routes that an operator adds for the peer belong into the main table."},
				{For: forPeer, Text: "Nothing to change there."},
			},
		}
		if d.Place != ledger.PlaceRPFilter && rpFiltered(r) != l.packets {
			f.Confidence = sure(counted, blurred(r)) // the counter rose for other packets too
		}
		if n := rpFiltered(r); n > 0 {
			f.Evidence = append(f.Evidence, Evidence{"TcpExt.IPReversePathFilter", n, "packets", "/proc/net/netstat", "of whatever traffic"})
		}
		out = append(out, f)
	}
	return out
}

func noRouteAfterDecap(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range lost(r, func(d *ledger.Drop) bool { return d.Stage == ledger.AfterDecap && d.Place == ledger.PlaceRoute }) {
		out = append(out, Finding{
			ID: NoRouteAfterDecap, Severity: l.graded(noRouteSeverity), Confidence: l.sure(r), Subject: l.subject(), Evidence: l.evidence(),
			Summary: fmt.Sprintf("%s were decrypted and then found no route: %s. The route is missing, a blackhole or unreachable, or this host does not forward.",
				l.count(), l.whose()),
			Remedy: []Remedy{
				{For: forIproute2, Text: "See what the addresses inside the tunnel resolve to, with the interface that the packets came by, and whether forwarding is on there.",
					Commands: []string{
						fmt.Sprintf("ip route get <inner destination> from <inner source> iif <interface %d>", l.drops[0].Ifindex),
						"ip route show table all type blackhole; ip route show table all type unreachable; ip route show table all type prohibit",
						"sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
						"ip route add <inner network> via <router> dev <interface>",
					}},
				{For: forStrongSwan, Text: "charon adds a route for each tunnel's far networks (install_routes), never for those behind this gateway: they need one of their own. A blackhole for the near network, often set to keep traffic from leaking, catches decrypted packets too.",
					Commands: []string{"ip route show table 220"}},
				{For: forLibreswan, Text: "The same holds for the routes of _updown.", Commands: []string{"ipsec status | grep -A2 <conn>"}},
				{For: forPeer, Text: "If it sends to networks that this side does not have, narrow the traffic selectors on both ends."},
			},
		})
	}
	return out
}

func noRouteSeverity(lost, of int64) Severity {
	switch {
	case lost >= of, lost >= 10 && lost*2 >= of:
		return Critical
	case lost*100 < of:
		return Info
	}
	return Warning
}

func egressDrop(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range lost(r, func(d *ledger.Drop) bool { return d.Stage == ledger.AtEgress && d.Place != ledger.PlaceNetfilter }) {
		if l.sa == nil || l.sa.State == ledger.Absent {
			continue // passing through: not this host's tunnel
		}
		out = append(out, Finding{
			ID: EgressDrop, Severity: l.graded(pathSeverity), Confidence: l.sure(r), Subject: l.subject(), Evidence: l.evidence(),
			Summary: fmt.Sprintf("%s of SA %s to %s were encrypted and never left this host: %s.",
				l.count(), l.sa.SPI, l.sa.Dst, placesOf(&l)),
			Remedy: placeRemedies(&l),
		})
	}
	return out
}

func hostIngressDrop(r *ledger.Report) []Finding {
	var out []Finding
	about := func(d *ledger.Drop) bool {
		return d.Stage == ledger.BeforeXfrm && d.Place != ledger.PlaceNetfilter && !isRPFilter(r, d)
	}
	for _, l := range lost(r, about) {
		if l.sa == nil || l.sa.State == ledger.Absent {
			continue
		}
		f := Finding{
			ID: HostIngressDrop, Severity: l.graded(pathSeverity), Confidence: l.sure(r), Subject: l.subject(), Evidence: l.evidence(),
			Summary: fmt.Sprintf("%s arrived and never reached xfrm: %s; %s.",
				l.count(), l.whose(), placesOf(&l)),
			Remedy: placeRemedies(&l),
		}
		// What was dropped in front of the wire hook is missing there, and looks lost on the path.
		if b := l.sa.Ledger.In; b == nil || b.LostOnPath == nil || b.LostInHost == nil || *b.LostOnPath > l.packets-*b.LostInHost {
			f.spares = []ID{PathLoss}
		}
		out = append(out, f)
	}
	return out
}

// decryptedPacketDropped is for all that has no finding of its own. What policies refuse has, and what
// is too large for the next link; a hop limit that ends, and a port where nobody listens, are
// information.
func decryptedPacketDropped(r *ledger.Report) []Finding {
	about := func(d *ledger.Drop) bool {
		return d.Stage == ledger.AfterDecap && d.Place != ledger.PlaceNetfilter && d.Place != ledger.PlaceRoute &&
			d.Reason != "XFRM_POLICY" && d.Reason != "PKT_TOO_BIG"
	}
	var out []Finding
	for _, l := range lost(r, about) {
		severity := l.graded(pathSeverity)
		if !slices.ContainsFunc(l.drops, func(d ledger.Drop) bool { return !expected(&d) }) {
			severity = Info
		}
		out = append(out, Finding{
			ID: DecryptedPacketDropped, Severity: severity, Confidence: l.sure(r), Subject: l.subject(), Evidence: l.evidence(),
			Summary: fmt.Sprintf("%s were decrypted and then dropped: %s; %s.",
				l.count(), l.whose(), placesOf(&l)),
			Remedy: placeRemedies(&l),
		})
	}
	return out
}

// expected says whether a drop of a decrypted packet may be nobody's fault.
func expected(d *ledger.Drop) bool {
	switch d.Place {
	case ledger.PlaceForward, ledger.PlaceHeader, ledger.PlaceXfrm, ledger.PlaceIP:
		return true
	case ledger.PlaceSocket:
		return d.Reason == "NO_SOCKET" || d.Reason == "SOCKET_FILTER"
	}
	return false
}

// placesOf says where, in words, the most first.
func placesOf(l *losses) string {
	sum := map[ledger.Place]int64{}
	for _, d := range l.drops {
		sum[d.Place] += d.Packets
	}
	var parts []string
	for _, p := range slices.SortedFunc(maps.Keys(sum), func(a, b ledger.Place) int {
		if sum[a] != sum[b] {
			return int(sum[b] - sum[a])
		}
		return strings.Compare(string(a), string(b))
	}) {
		parts = append(parts, fmt.Sprintf("%d %s", sum[p], inWords(p)))
	}
	return strings.Join(parts, ", ")
}

var placeWords = map[ledger.Place]string{
	ledger.PlaceQueue: "in the queue of the device", ledger.PlaceNeighbour: "for want of the next hop's link address",
	ledger.PlaceTC: "by a traffic control filter", ledger.PlaceXDP: "by an XDP program", ledger.PlaceBacklog: "because a CPU's input queue was full",
	ledger.PlaceFragment: "in fragmentation or reassembly", ledger.PlaceHeader: "for their IP header", ledger.PlaceSocket: "at their socket",
	ledger.PlaceRoute: "for want of a route", ledger.PlaceForward: "while being forwarded", ledger.PlaceXfrm: "inside xfrm, by no counter of its own",
	ledger.PlaceDevice: "by the device's driver", ledger.PlaceIP: "elsewhere in IP",
}

func inWords(p ledger.Place) string {
	if w := placeWords[p]; w != "" {
		return w
	}
	return string(p)
}

// placeRemedies tells what to do about each place, the one that dropped most first.
func placeRemedies(l *losses) []Remedy {
	var out []Remedy
	seen := map[ledger.Place]bool{}
	for i := range l.drops {
		if d := &l.drops[i]; !seen[d.Place] {
			seen[d.Place] = true
			out = append(out, placeRemedy(d))
		}
	}
	return append(out, Remedy{For: forPeer, Text: "Nothing to change there: this host dropped them itself."})
}

func placeRemedy(d *ledger.Drop) Remedy {
	dev := fmt.Sprintf("<interface %d>", d.Ifindex)
	switch d.Place {
	case ledger.PlaceQueue:
		return Remedy{For: forHost, Text: "The queue was full, or the device down or stopped. Send less, shape before encryption, or let the queue hold more.",
			Commands: []string{"tc -s qdisc show dev " + dev, "ip link show dev " + dev, "ip link set dev " + dev + " txqueuelen <n>"}}
	case ledger.PlaceNeighbour:
		return Remedy{For: forHost, Text: "The next hop does not answer ARP or neighbour discovery. Look whether it is there and in the same network; a permanent entry rules the protocol out.",
			Commands: []string{"ip neigh show nud failed nud incomplete", fmt.Sprintf("ip route get %s", d.Dst), "ip neigh replace <next hop> lladdr <mac> dev " + dev + " nud permanent"}}
	case ledger.PlaceTC:
		return Remedy{For: forHost, Text: "A filter or action of traffic control drops them.",
			Commands: []string{"tc -s filter show dev " + dev + " ingress; tc -s filter show dev " + dev + " egress", "bpftool net show"}}
	case ledger.PlaceXDP:
		return Remedy{For: forHost, Text: "An XDP program drops them.", Commands: []string{"bpftool net show", "ip -d link show dev " + dev}}
	case ledger.PlaceBacklog:
		return Remedy{For: forHost, Text: "More packets came than one CPU takes in. Let its queue hold more, and spread the load over queues and CPUs.",
			Commands: []string{"cat /proc/net/softnet_stat", "sysctl -w net.core.netdev_max_backlog=10000"}}
	case ledger.PlaceFragment:
		return Remedy{For: forHost, Text: "Fragments did not come whole, or a packet could not be made into fragments. Avoid fragments: lower the MTU or MSS inside the tunnel.",
			Commands: []string{"nstat -az 'IpReasm*' 'IpFrag*' 'Ip6Reasm*' 'Ip6Frag*'", "nft add rule inet <table> forward tcp flags syn tcp option maxseg size set rt mtu"}}
	case ledger.PlaceSocket:
		return Remedy{For: forHost, Text: "They reached the transport layer. SOCKET_RCVBUFF: the program reads too slowly or its buffer is too small; NO_SOCKET: nobody listens there. ESP in UDP wants the socket that an IKE daemon has on port 4500.",
			Commands: []string{"ss -unlm; ss -tnlm", "sysctl net.core.rmem_max net.ipv4.udp_mem", "nstat -az 'Udp*'"}}
	case ledger.PlaceRoute:
		return Remedy{For: forIproute2, Text: "There is no route to their destination, or it refuses them.",
			Commands: []string{"ip route get " + d.Dst.String(), "ip route show table all"}}
	}
	where := d.Function
	if where == "" {
		where = "unknown: symbols are not readable"
	}
	return Remedy{For: forHost, Text: fmt.Sprintf("The kernel function that dropped them is %s. Its counters may say more.", where),
		Commands: []string{"nstat -az | grep -vE ' 0 +0.0'", "ip -s -s link show dev " + dev}}
}
