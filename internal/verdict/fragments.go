// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"xfrmscope/internal/ledger"
)

// OuterFragmentation is ESP that this host cuts into fragments.
const OuterFragmentation ID = "outer-fragmentation"

// ReassemblyFailed is ESP of which only some fragments came.
const ReassemblyFailed ID = "reassembly-failed"

// fewFragments is how many packets are cut without hurting anybody.
const fewFragments = 10

// cut sums the events of one kind by SA.
type cut struct {
	sa       *ledger.SA
	src, dst netip.Addr
	spi      ledger.SPI
	n        int64
	mtu      int
	size     int
}

// cuts collects events about ESP packets by their SA, in a fixed order.
func cuts(r *ledger.Report, kind ledger.PMTUKind, find func(*ledger.Report, ledger.SPI, netip.Addr) *ledger.SA) []*cut {
	if r.PMTU == nil {
		return nil
	}
	var out []*cut
	for i := range r.PMTU.Events {
		e := &r.PMTU.Events[i]
		if e.Kind != kind || e.SPI == nil {
			continue
		}
		at := slices.IndexFunc(out, func(c *cut) bool { return c.spi == *e.SPI && c.dst == e.Dst })
		if at < 0 {
			at = len(out)
			out = append(out, &cut{sa: find(r, *e.SPI, e.Dst), src: e.Src, dst: e.Dst, spi: *e.SPI, mtu: e.MTU})
		}
		c := out[at]
		c.n += e.Packets
		c.size = max(c.size, e.SizeMax)
		c.mtu = least(c.mtu, e.MTU)
	}
	slices.SortFunc(out, func(a, b *cut) int { return cmp.Or(a.dst.Compare(b.dst), cmp.Compare(a.spi, b.spi)) })
	return out
}

func outerFragmentation(r *ledger.Report) []Finding {
	var out []Finding
	for _, c := range cuts(r, ledger.PMTUFragmented, outbound) {
		if c.sa == nil || c.sa.State == ledger.Absent {
			continue // passes through; whoever sent it is to be told
		}
		sent := arrivals(c.sa)
		severity := Warning
		if c.n < fewFragments || c.n*100 < sent {
			severity = Info
		}
		path := pathTo(r, c.spi, c.dst)
		mtu := c.mtu
		if path != nil {
			mtu = least(mtu, path.Known())
		}
		out = append(out, Finding{
			ID: OuterFragmentation, Severity: severity, Confidence: sure(witnessed, unrecorded(r)), Subject: about(c.sa),
			Summary: fmt.Sprintf("%s: this host cut %d of %d ESP packets into fragments (%s), since with up to %d octets they do not fit %d. "+
				"One lost fragment loses the whole packet, and firewalls and NAT drop later fragments. %s",
				through(ledger.SARef{SPI: c.spi, Dst: c.dst}), c.n, max(sent, c.n), share(c.n, max(sent, c.n)), c.size, mtu, innerOf(path, mtu)),
			Evidence: append(append([]Evidence{
				{"pmtu.fragmented", c.n, "packets", "path MTU hooks", "ESP of this SA, after encryption"},
				{"pmtu.size_max", int64(c.size), "octets", "path MTU hooks", "the largest of them"},
			}, counterEvidence(r.PMTU, "Ip.FragCreates", "Ip6.FragCreates")...), overheadEvidence(path)...),
			Remedy: append(shrinkRemedies(path, 4, innerMTU(path, mtu)), Remedy{For: forHost,
				Text: "Packets with DF are never cut: their senders are told instead. Who fragments has senders that do not set it, " +
					"or an SA with nopmtudisc (DF is then not copied to the outside).",
				Commands: []string{fmt.Sprintf("ip xfrm state get dst %s proto esp spi %s   # look for nopmtudisc", c.dst, c.spi)}}),
		})
	}
	return append(out, fragmentsArrive(r)...)
}

// fragmentsArrive is for what the other end, or a router behind it, cuts. The wire hook sees a first
// fragment's headers, those of ESP too; the kernel's counters of reassembly hold all protocols alike.
func fragmentsArrive(r *ledger.Report) []Finding {
	if r.Packets == nil {
		return nil
	}
	cut, esp := r.Packets.Asides[ledger.In]["frag_esp"], r.Packets.Classes[ledger.In]["esp"]+r.Packets.Classes[ledger.In]["esp_udp"]
	if cut < fewFragments || cut*100 < esp {
		return nil
	}
	f := Finding{
		ID: OuterFragmentation, Severity: Info, Confidence: sure(witnessed, blurred(r)),
		Summary: fmt.Sprintf("%d of %d ESP packets arrived in fragments: a peer, or a router on its side, cuts what does not fit. "+
			"Each end can mend only what it sends: run this tool at the peer.", cut, esp),
		Evidence: []Evidence{
			{"packets.asides.in.frag_esp", cut, "packets", "wire", "first fragments of ESP"},
			{"packets.classes.in.frag_later", r.Packets.Classes[ledger.In]["frag_later"], "fragments", "wire", "later ones, of any protocol"},
		},
		Remedy: []Remedy{{For: forPeer, Text: "At the sender: smaller inner packets (ip tcp adjust-mss, an MTU on the tunnel), so that ESP is not cut."}},
	}
	if r.PMTU != nil {
		f.Evidence = append(f.Evidence, counterEvidence(r.PMTU, "Ip.ReasmOKs", "Ip.ReasmFails", "Ip6.ReasmOKs", "Ip6.ReasmFails")...)
	}
	return []Finding{f}
}

func counterEvidence(p *ledger.PMTU, names ...string) []Evidence {
	var out []Evidence
	for _, name := range names {
		if n := p.Counters[name]; n != 0 {
			out = append(out, Evidence{name, n, "fragments", "kernel counters", "of the whole namespace"})
		}
	}
	return out
}

// inbound finds an SA towards this host by its key.
func inbound(r *ledger.Report, spi ledger.SPI, dst netip.Addr) *ledger.SA {
	for i := range r.SAs {
		if sa := &r.SAs[i]; sa.SPI == spi && sa.Dst == dst && sa.Direction != ledger.Out {
			return sa
		}
	}
	return nil
}

func reassemblyFailed(r *ledger.Report) []Finding {
	var out []Finding
	for _, c := range cuts(r, ledger.PMTUExpired, inbound) {
		f := Finding{
			ID: ReassemblyFailed, Severity: Warning, Confidence: sure(witnessed, unrecorded(r)),
			Subject: Subject{SPI: new(c.spi), Src: new(c.src), Dst: new(c.dst)},
		}
		of := c.n
		if c.sa != nil {
			f.Subject = about(c.sa)
			of = max(of, arrivals(c.sa))
			f.Severity = pathSeverity(c.n, of)
		}
		f.Summary = fmt.Sprintf("SA %s from %s: %d of %d ESP packets came as fragments of which only the first and not all arrived in time: they are lost. "+
			"A firewall, a NAT or a load balancer on the way drops later fragments, or sends them elsewhere. The sender must send smaller packets.",
			c.spi, c.src, c.n, of)
		f.Evidence = []Evidence{{"pmtu.reasm_expired", c.n, "packets", "path MTU hooks", "given up after net.ipv4.ipfrag_time or net.ipv6.ip6frag_time"}}
		for _, name := range []string{"Ip.ReasmReqds", "Ip.ReasmOKs", "Ip.ReasmFails", "Ip6.ReasmReqds", "Ip6.ReasmOKs", "Ip6.ReasmFails"} {
			f.Evidence = append(f.Evidence, counterEvidence(r.PMTU, name)...)
		}
		f.Remedy = append([]Remedy{{For: forPeer,
			Text: "At the sender: smaller inner packets, so that ESP is not cut at all. Cisco: crypto ipsec fragmentation before-encryption, " +
				"and ip tcp adjust-mss. The values are those that this tool gives at that end; the SA back from here has as a rule the same overhead."}},
			shrinkRemedies(pathBack(r, c.src), 4, 0)...)
		f.Remedy = append(f.Remedy, Remedy{For: forPath,
			Text:     "Let fragments pass: rules that name ports or ESP match the first fragment only.",
			Commands: []string{fmt.Sprintf("tcpdump -ni <interface> 'src %s and (ip[6:2] & 0x3fff != 0)'   # do later fragments arrive?", c.src)}})
		out = append(out, f)
	}
	return out
}

// pathBack is the path of an SA to a peer.
func pathBack(r *ledger.Report, peer netip.Addr) *ledger.PMTUPath {
	for i := range r.PMTU.Paths {
		if r.PMTU.Paths[i].Dst == peer {
			return &r.PMTU.Paths[i]
		}
	}
	return nil
}
