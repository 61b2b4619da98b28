// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// PMTUIgnored is a host that is told of the MTU and goes on regardless.
const PMTUIgnored ID = "pmtu-ptb-ignored"

// PMTUSwallowed is messages about the MTU that never left this host.
const PMTUSwallowed ID = "pmtu-ptb-swallowed"

// ignoring says whether a sender was told and did not listen. What was under way when it was told does
// not count (late does not have it), and datagrams may be probes of the path (RFC 8899): those come in
// small numbers.
func (o *oversize) ignoring() bool {
	if o.swallowed() {
		return false
	}
	if o.protocol == "udp" {
		return o.late >= 10
	}
	return o.late >= 3
}

// swallowed says whether the sender was not told, mostly.
func (o *oversize) swallowed() bool { return o.known && o.unsent >= 3 && 2*o.unsent > o.packets }

func pmtuIgnored(r *ledger.Report) []Finding {
	groups := oversizes(r)
	var out []Finding
	for _, ref := range inOrder(groups) {
		var list []*oversize
		f := Finding{ID: PMTUIgnored, Severity: Warning, Confidence: sure(witnessed, unrecorded(r))}
		n, late, mtu, size, unsure := int64(0), int64(0), 0, 0, false
		for _, o := range groups[ref] {
			if o.ignoring() {
				list = append(list, o)
				n, late, size = n+o.packets, late+o.late, max(size, o.sizeMax)
				mtu = least(mtu, o.mtu)
				unsure = unsure || !o.known
			}
		}
		if len(list) == 0 {
			continue
		}
		path := pathTo(r, ref.SPI, ref.Dst)
		f.Confidence = sure(witnessed, unrecorded(r), unsure)
		f.Subject = oversizeSubject(r, ref, list)
		f.Summary = fmt.Sprintf("%s: hosts go on with packets that are too big for %s although this host answers each with \"packet too big\": "+
			"they fit %d octets, and they have up to %d. All of them are dropped here. %s.",
			names(list), tunnelOf(ref, list), mtu, size, fitting(path, list[0].family(), mtu))
		f.Evidence = append([]Evidence{
			{"pmtu.tell_sender", n, "packets", "path MTU hooks", "too big, dropped, and their senders told"},
			{"pmtu.late", late, "packets", "path MTU hooks", "of these, of one connection, came more than two seconds after its first"},
		}, overheadEvidence(path)...)
		f.Remedy = append([]Remedy{{For: forPath,
			Text: "Find out why the host does not learn: a firewall between it and this host that drops ICMP type 3 code 4 (ICMPv6 type 2), " +
				"path MTU discovery switched off, or a program that sets DF by itself.",
			Commands: []string{
				fmt.Sprintf("tcpdump -ni any 'icmp[0] == 3 and icmp[1] == 4 or icmp6 and ip6[40] == 2'   # on %s: does the message arrive?", list[0].src),
				fmt.Sprintf("ip route get %s   # there: what MTU does it go by?", list[0].dst),
			}}},
			shrinkRemedies(path, list[0].family(), mtu)...)
		out = append(out, f)
	}
	return out
}

func pmtuSwallowed(r *ledger.Report) []Finding {
	groups := oversizes(r)
	var out []Finding
	for _, ref := range inOrder(groups) {
		var list []*oversize
		n, unsent, mtu := int64(0), int64(0), 0
		for _, o := range groups[ref] {
			if o.swallowed() {
				list = append(list, o)
				n, unsent, mtu = n+o.packets, unsent+o.unsent, least(mtu, o.mtu)
			}
		}
		if len(list) == 0 {
			continue
		}
		path := pathTo(r, ref.SPI, ref.Dst)
		base := witnessed
		if list[0].family() == 6 {
			base = counted // only the sum of the messages is known
		}
		f := Finding{
			ID: PMTUSwallowed, Severity: Critical, Confidence: sure(base, unrecorded(r)), Subject: oversizeSubject(r, ref, list),
			Summary: fmt.Sprintf("%s: %s too big for %s and dropped here, and the \"packet too big\" messages for their senders never left this host: "+
				"transfers hang while small packets pass. An IPsec policy that covers this host's own ICMP is the usual cause. %s.",
				names(list), were(n), tunnelOf(ref, list), fitting(path, list[0].family(), mtu)),
			Evidence: append([]Evidence{
				{"pmtu.tell_sender", n, "packets", "path MTU hooks", "too big and dropped; each calls for an ICMP message"},
				{"pmtu.unsent", unsent, "messages", "path MTU hooks", "of these were given up inside the kernel before they were sent"},
			}, overheadEvidence(path)...),
			Remedy: append([]Remedy{{For: forIproute2,
				Text: "Let this host's own ICMP through in the clear: a policy of higher priority for what it sends to the hosts behind it. " +
					"Look first at which policy catches it.",
				Commands: []string{
					fmt.Sprintf("ip xfrm policy get src <this host's address towards %s> dst %s dir out", list[0].src, list[0].src),
					fmt.Sprintf("ip xfrm policy add src <this host's address>/%d dst %s/%d dir out priority 1 action allow",
						hostBits(list[0]), list[0].src, hostBits(list[0])),
				}},
				{For: forStrongSwan, Text: "A child of type pass for the local network does the same (swanctl.conf), or narrow the traffic selectors.",
					Commands: []string{"connections.<conn>.children.<lan>.mode = pass   # with local_ts and remote_ts of the local network"}},
				{For: forLibreswan, Text: "A conn of type=passthrough for the local network with authby=never.",
					Commands: []string{"type=passthrough", "ipsec auto --add <conn> && ipsec auto --route <conn>"}}},
				shrinkRemedies(path, list[0].family(), mtu)...),
		}
		out = append(out, f)
	}
	return out
}

func hostBits(o *oversize) int {
	if o.family() == 4 {
		return 32
	}
	return 128
}

func were(n int64) string {
	if n == 1 {
		return "1 packet was"
	}
	return fmt.Sprintf("%d packets were", n)
}

// unrecorded says whether events are missing from the list that a finding rests on.
func unrecorded(r *ledger.Report) bool {
	return blurred(r) || r.PMTU != nil && (r.PMTU.Totals["unrecorded"] > 0 || r.PMTU.EventsLeftOut > 0)
}
