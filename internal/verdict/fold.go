// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"net/netip"
	"slices"
)

// A fault shows in many places. Each rule judges its own evidence; here the findings that follow from
// another one are put under it, so that the report names causes and not alarms.

// closeness is how much cause and effect must have in common.
type closeness int

const (
	sameSA           closeness = iota // SPI and addresses
	samePeer                          // the pair of outer addresses, whatever SA and direction
	samePeerOrNobody                  // the same, or the effect names no addresses: the cause's rule has counted it itself
	sameTalk                          // the same, and neither is about an SA: IKE and what befalls its packets
	sameHost                          // nothing, or the interface where both name one
)

// folding says that a finding of one kind explains findings of other kinds.
type folding struct {
	cause   ID
	within  closeness
	effects []ID
}

// foldings lists what follows from what. It has no circles (a test sees to it); what an effect
// explains in turn goes to the root.
var foldings = []folding{
	{CPUSaturatedBySA, sameHost, []ID{NICRxLoss, SoftnetDrop}},
	{SoftirqBacklog, sameHost, []ID{NICRxLoss, SoftnetDrop}},
	{NICRxLoss, sameHost, []ID{PathLoss}},
	{QdiscDrop, sameHost, []ID{EgressDrop}},
	{NICTxErrors, sameHost, []ID{EgressDrop}},
	{SoftnetDrop, sameHost, []ID{HostIngressDrop}},
	{HostIngressDrop, sameSA, []ID{PathLoss}},
	{FirewallDrop, sameSA, []ID{InnerRetransmissions}},
	{NoRouteAfterDecap, sameSA, []ID{InnerRetransmissions}},
	{DecryptedPacketDropped, sameSA, []ID{InnerRetransmissions}},
	{HostIngressDrop, sameSA, []ID{InnerRetransmissions}},
	{EgressDrop, sameSA, []ID{InnerRetransmissions}},
	{RPFilterDrop, sameSA, []ID{InnerRetransmissions}},
	{SoftnetDrop, sameHost, []ID{PathLoss}},
	{PeerRestarted, sameSA, []ID{ReplayWindowTooSmall, ESNMisEpoch, DuplicatePackets}},
	{Congestion, sameSA, []ID{PathLoss}},
	{Congestion, samePeer, []ID{InnerRTTGrowth}},
	{PolicingSuspected, sameSA, []ID{PathLoss}},
	{PathLoss, sameSA, []ID{InnerRetransmissions}},
	{ReplayWindowTooSmall, sameSA, []ID{InnerRetransmissions}},
	{ESNMisEpoch, sameSA, []ID{InnerRetransmissions}},
	{IntegrityFailed, sameSA, []ID{InnerRetransmissions}},
	{PolicyTemplateMismatch, sameSA, []ID{InnerRetransmissions}},
	{PolicyMissing, sameSA, []ID{InnerRetransmissions}},
	{PolicyBlocked, sameSA, []ID{InnerRetransmissions}},
	{SelectorMismatch, sameSA, []ID{InnerRetransmissions}},
	{RekeyFailed, samePeer, []ID{OutboundNoSA}},
	{SAExpired, samePeer, []ID{OutboundNoSA}},
	{FirewallDrop, sameTalk, []ID{IKEUnanswered, IKERetransmissions}},
	{NATBindingLost, samePeer, []ID{IKEUnanswered}},
	{IKEUnanswered, samePeer, []ID{RekeyFailed, IKERetransmissions, OutboundNoSA, OneWayTraffic}},
	{RekeyFailed, samePeer, []ID{SAExpired}},
	{RekeyFailed, sameSA, []ID{SPIUnknown, SAInvalid}},
	{RekeyGap, sameSA, []ID{SPIUnknown, SAInvalid}},
	{RekeyGap, samePeerOrNobody, []ID{OutboundNoSA}},
	{EncapMismatch, sameSA, []ID{HostIngressDrop, InnerRetransmissions}},
	{NATMappingChanged, samePeer, []ID{NATBindingLost, OneWayTraffic}},
	{NATKeepaliveMissing, samePeer, []ID{NATBindingLost}},
	{NATBindingLost, samePeer, []ID{OneWayTraffic}},
	{PMTUNotApplied, sameSA, []ID{MTUBlackHole, InnerRetransmissions}},
	{PMTUSwallowed, sameSA, []ID{InnerRetransmissions}},
	{PMTUSwallowed, samePeerOrNobody, []ID{OutboundPolicyBlock}}, // of this host's own messages, which have no SA
	{ReassemblyFailed, sameSA, []ID{HostIngressDrop}},
	{PMTUIgnored, sameSA, []ID{InnerRetransmissions}},
	{MTUBlackHole, sameSA, []ID{InnerRetransmissions}},
	// A reader whose buffer is full throws away what arrives beyond it.
	{ReceiveWindowFull, sameSA, []ID{InnerRetransmissions}},
}

// minFoldConfidence is how sure a cause must be before it may take others' place.
const minFoldConfidence = 0.5

// fold puts findings under the one that explains them. A cause is at least as grave as the worst of
// what it explains. The folded findings stay whole, under their cause.
func fold(all []Finding) []Finding {
	parent := make([]int, len(all))
	causes := indexCauses(all)
	for i := range all {
		parent[i] = causes.of(i)
	}
	root := func(i int) int {
		for parent[i] >= 0 {
			i = parent[i]
		}
		return i
	}
	for i := range all {
		if r := root(i); r != i {
			c := &all[r]
			if rank(all[i].Severity) < rank(c.Severity) {
				c.Severity = all[i].Severity
			}
			c.Explains = append(c.Explains, all[i])
			c.Consequences = append(c.Consequences, all[i].ID)
			c.Consequences = append(c.Consequences, all[i].Consequences...)
		}
	}
	out := []Finding{}
	for i := range all {
		if parent[i] < 0 {
			slices.Sort(all[i].Consequences)
			all[i].Consequences = slices.Compact(all[i].Consequences)
			out = append(out, all[i])
		}
	}
	return out
}

func related(within closeness, a, b Subject) bool {
	switch within {
	case sameSA:
		return a.SPI != nil && b.SPI != nil && *a.SPI == *b.SPI && samePair(a, b)
	case samePeerOrNobody:
		return samePair(a, b) || len(addresses(b)) == 0
	case sameTalk:
		return a.SPI == nil && b.SPI == nil && samePair(a, b)
	case samePeer:
		return samePair(a, b)
	case sameHost:
		return a.Ifindex == 0 || b.Ifindex == 0 || a.Ifindex == b.Ifindex
	}
	return false
}

// samePair says whether two subjects are about the same two gateways, in either direction. A subject
// that names one address only is about whoever has it; one that names none may be about anybody, and
// is related to nobody in particular.
func samePair(a, b Subject) bool {
	x, y := addresses(a), addresses(b)
	if len(x) > len(y) {
		x, y = y, x
	}
	if len(x) == 0 {
		return false
	}
	for _, addr := range x {
		if !slices.Contains(y, addr) {
			return false
		}
	}
	return true
}

func addresses(s Subject) []netip.Addr {
	var out []netip.Addr
	for _, a := range []*netip.Addr{s.Src, s.Dst} {
		if a != nil && a.IsValid() && !slices.Contains(out, *a) {
			out = append(out, *a)
		}
	}
	return out
}
