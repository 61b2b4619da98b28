// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// pmtuKinds are about packets that do not fit: who is told, who believes it, what is cut up instead.
func pmtuKinds() []Kind {
	return []Kind{
		{MTUBlackHole, "Large packets disappear on the path and nobody says so", mtuBlackHole},
		{PMTUNotApplied, "A router says that ESP is too big, and nothing follows from it", pmtuNotApplied},
		{PMTUSwallowed, "Senders are not told that their packets are too big", pmtuSwallowed},
		{PMTUIgnored, "A sender goes on with packets that are too big", pmtuIgnored},
		{ReassemblyFailed, "ESP fragments arrive and never become whole", reassemblyFailed},
		{OuterFragmentation, "ESP is cut into fragments", outerFragmentation},
		{PMTUReduced, "The path takes less than the link", pmtuReduced},
	}
}

// pathTo finds what is known of the path that an outbound SA takes.
func pathTo(r *ledger.Report, spi ledger.SPI, dst netip.Addr) *ledger.PMTUPath {
	if r.PMTU == nil {
		return nil
	}
	for i := range r.PMTU.Paths {
		if p := &r.PMTU.Paths[i]; p.SPI == spi && p.Dst == dst {
			return p
		}
	}
	return nil
}

// outbound finds an SA of this host's by its key.
func outbound(r *ledger.Report, spi ledger.SPI, dst netip.Addr) *ledger.SA {
	for i := range r.SAs {
		if sa := &r.SAs[i]; sa.SPI == spi && sa.Dst == dst && sa.Direction != ledger.In {
			return sa
		}
	}
	return nil
}

// oversize is everything that happened to the packets of one pair of hosts that were too big for a
// tunnel.
type oversize struct {
	src, dst netip.Addr
	protocol string
	tunnel   string // device, where the SA is not known
	mtu      int    // the least that was asked for; 0: not known
	sizeMax  int
	packets  int64
	late     int64
	unsent   int64 // messages that were called for and did not leave
	known    bool  // whether they left
}

func (o *oversize) String() string {
	return fmt.Sprintf("%s of %s to %s", o.protocol, o.src, o.dst)
}

// family of the inner packets.
func (o *oversize) family() int {
	if o.src.Is4() {
		return 4
	}
	return 6
}

// oversizes groups the packets that were too big by the SA that they were to take, and by hosts. This
// host's own ESP is left out: it is a packet that the SA has already let through. So is what was to take
// neither an SA nor a tunnel device: any router has such packets.
func oversizes(r *ledger.Report) map[ledger.SARef][]*oversize {
	out := map[ledger.SARef][]*oversize{}
	if r.PMTU == nil {
		return out
	}
	counted := attached(r, "icmp_out_count")
	missing, all := swallowed6(r.PMTU)
	for i := range r.PMTU.Events {
		e := &r.PMTU.Events[i]
		if e.Kind != ledger.PMTUTellSender || e.SPI != nil || e.Protocol == "esp" || e.SA == nil && e.Tunnel == "" {
			continue
		}
		sa := ledger.SARef{}
		if e.SA != nil {
			sa = *e.SA
		}
		at := slices.IndexFunc(out[sa], func(o *oversize) bool {
			return o.src == e.Src && o.dst == e.Dst && o.protocol == e.Protocol && o.tunnel == e.Tunnel
		})
		if at < 0 {
			at = len(out[sa])
			out[sa] = append(out[sa], &oversize{src: e.Src, dst: e.Dst, protocol: e.Protocol, tunnel: e.Tunnel, mtu: e.MTU})
		}
		o := out[sa][at]
		o.mtu = least(o.mtu, e.MTU)
		o.sizeMax = max(o.sizeMax, e.SizeMax)
		o.packets += e.Packets
		o.late += e.Late
		switch {
		case e.Sent != nil && counted:
			o.known = true
			o.unsent += e.Packets - *e.Sent
		case e.Sent == nil && all > 0:
			// Over IPv6 only the sum is known: either nearly all were swallowed, or none is blamed.
			o.known = true
			if 2*missing > all {
				o.unsent += e.Packets
			}
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b *oversize) int {
			return cmp.Or(cmp.Compare(b.packets, a.packets), a.src.Compare(b.src), a.dst.Compare(b.dst), strings.Compare(a.protocol, b.protocol))
		})
	}
	return out
}

// swallowed6 holds the calls for ICMPv6 packet too big against the messages that left.
func swallowed6(p *ledger.PMTU) (missing, all int64) {
	all = p.Totals["too_big_v6"]
	if p.Counters == nil {
		return 0, 0
	}
	return all - p.Counters["Icmp6.OutPktTooBigs"], all
}

func attached(r *ledger.Report, hook string) bool {
	return slices.ContainsFunc(r.Hooks, func(h ledger.Hook) bool { return h.Name == hook && h.Attached })
}

// oversizeSubject names the SA that packets were to take, or the hosts where it is not known.
func oversizeSubject(r *ledger.Report, ref ledger.SARef, list []*oversize) Subject {
	if sa := outbound(r, ref.SPI, ref.Dst); ref.SPI != 0 && sa != nil {
		return about(sa)
	}
	return Subject{Src: new(list[0].src), Dst: new(list[0].dst)}
}

// inOrder gives the groups in a fixed order.
func inOrder(groups map[ledger.SARef][]*oversize) []ledger.SARef {
	out := make([]ledger.SARef, 0, len(groups))
	for ref := range groups {
		out = append(out, ref)
	}
	slices.SortFunc(out, func(a, b ledger.SARef) int {
		return cmp.Or(a.Dst.Compare(b.Dst), cmp.Compare(a.SPI, b.SPI))
	})
	return out
}

// tunnelOf names the SA, or the device, that packets were to take.
func tunnelOf(ref ledger.SARef, list []*oversize) string {
	if ref.SPI == 0 {
		return "the tunnel device " + list[0].tunnel
	}
	return through(ref)
}

// through names an SA in a summary.
func through(ref ledger.SARef) string {
	return fmt.Sprintf("SA %s to %s", ref.SPI, ref.Dst)
}

// names writes who has to be told, at most three by name.
func names(list []*oversize) string {
	var out []string
	for _, o := range list[:min(3, len(list))] {
		out = append(out, o.String())
	}
	if n := len(list) - 3; n > 0 {
		out = append(out, fmt.Sprintf("%d more", n))
	}
	return strings.Join(out, ", ")
}

// least is the smaller of two sizes; 0: not known.
func least(a, b int) int {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// overheadEvidence says what the SA adds.
func overheadEvidence(p *ledger.PMTUPath) []Evidence {
	if p == nil || p.Overhead == nil {
		return nil
	}
	o := p.Overhead
	note := fmt.Sprintf("outer IP %d, UDP %d, ESP %d, IV %d, trailer %d, ICV %d, padding up to %d", o.OuterIP, o.UDP, o.ESP, o.IV, o.Trailer, o.ICV, o.Block-1)
	if o.Mode > 0 {
		note += fmt.Sprintf(", mode %d", o.Mode)
	}
	return []Evidence{{"overhead", int64(o.Most()), "octets", "SA database", note}}
}

// spentOnDiscovery is how many packets of an SA were dropped so that their senders learn the path MTU,
// and did learn it: each is repeated, smaller, and no harm is done.
func spentOnDiscovery(r *ledger.Report, sa ledger.SAKey) (n int64) {
	for _, t := range toldOf(r) {
		if yes, known := t.applied(); yes && known && t.sa.SPI == sa.SPI && t.sa.Dst == sa.Dst {
			n += t.n
		}
	}
	for ref, list := range oversizes(r) {
		for _, o := range list {
			if ref.SPI == sa.SPI && ref.Dst == sa.Dst && !o.ignoring() && !o.swallowed() {
				n += o.packets
			}
		}
	}
	return n
}
