// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// pmtuState follows the path MTU programs' counters and keeps what came last of all else.
type pmtuState struct {
	seen, eventsSeen, countersSeen bool

	totals   tally[string]
	counters tally[string]
	packets  tally[PMTUKey]
	sent     tally[PMTUKey]
	late     tally[PMTUKey]
	now      map[PMTUKey]PMTUEventInput

	routes     map[[2]netip.Addr]RouteInput
	noPMTUDisc *int
	tunnels    map[int]string // tunnel devices by index
}

// maxPMTUEvents bounds the report; JSON and text have the most frequent ones.
const maxPMTUEvents = 100

// pmtuCounters are the kernel's counters that belong to the subject.
var pmtuCounters = []string{
	"Ip.FragOKs", "Ip.FragFails", "Ip.FragCreates", "Ip.ReasmTimeout", "Ip.ReasmReqds", "Ip.ReasmOKs", "Ip.ReasmFails",
	"Ip6.FragOKs", "Ip6.FragFails", "Ip6.FragCreates", "Ip6.ReasmTimeout", "Ip6.ReasmReqds", "Ip6.ReasmOKs", "Ip6.ReasmFails",
	"Icmp.OutDestUnreachs", "Icmp.InDestUnreachs", "Icmp6.OutPktTooBigs", "Icmp6.InPktTooBigs",
}

func (l *Ledger) observePMTU(s Snapshot, baseline bool) {
	p := &l.pmtu
	if s.PMTU == nil {
		return
	}
	p.seen = true
	if s.PMTU.Events != nil {
		p.eventsSeen = true
		p.totals.observe(s.PMTU.Totals, baseline)
		if p.now == nil {
			p.now = map[PMTUKey]PMTUEventInput{}
		}
		packets, sent, late := map[PMTUKey]uint64{}, map[PMTUKey]uint64{}, map[PMTUKey]uint64{}
		for _, e := range s.PMTU.Events {
			p.now[e.Key] = e
			packets[e.Key], sent[e.Key], late[e.Key] = e.Packets, e.Sent, e.Late
		}
		p.packets.observeEach(packets, baseline)
		p.sent.observeEach(sent, baseline)
		p.late.observeEach(late, baseline)
	}
	if s.PMTU.Routes != nil {
		p.routes = map[[2]netip.Addr]RouteInput{}
		for _, r := range s.PMTU.Routes {
			p.routes[[2]netip.Addr{r.Src, r.Dst}] = r
		}
	}
	if s.Host == nil {
		return
	}
	if s.Host.Snmp != nil {
		moved := map[string]uint64{}
		for _, name := range pmtuCounters {
			if n, ok := s.Host.Snmp[name]; ok {
				moved[name] = n
			}
		}
		p.counters.observe(moved, baseline || !p.countersSeen)
		p.countersSeen = true
	}
	p.tunnels = map[int]string{}
	for _, link := range s.Host.Links {
		if link.Kind == "xfrm" || link.Kind == "vti" || link.Kind == "vti6" {
			p.tunnels[link.Index] = link.Name
		}
	}
	p.noPMTUDisc = nil
	if n, err := strconv.Atoi(s.Host.Sysctls["net/ipv4/ip_no_pmtu_disc"]); err == nil {
		p.noPMTUDisc = &n
	}
}

func (l *Ledger) pmtuReport(rows []row) *PMTU {
	p := &l.pmtu
	if !p.seen {
		return nil
	}
	out := &PMTU{Events: []PMTUEvent{}, Paths: []PMTUPath{}, Discovery: p.noPMTUDisc}
	if p.countersSeen {
		out.Counters = p.counters.total()
	}
	if p.eventsSeen {
		out.Totals = p.totals.total()
		out.Events = l.pmtuEvents(rows)
	}
	told := map[netip.Addr]int{}
	for _, e := range out.Events {
		if e.Kind == PMTUTold && e.MTU > 0 && (told[e.Dst] == 0 || e.MTU < told[e.Dst]) {
			told[e.Dst] = e.MTU
		}
	}
	if n := len(out.Events) - maxPMTUEvents; n > 0 {
		out.Events, out.EventsLeftOut = out.Events[:maxPMTUEvents], n
	}
	for _, r := range rows {
		if r.sad != nil && r.sad.alive && r.key.Direction == Out {
			out.Paths = append(out.Paths, p.path(&r.sad.now, told[r.key.Dst]))
		}
	}
	return out
}

func (l *Ledger) pmtuEvents(rows []row) []PMTUEvent {
	p := &l.pmtu
	packets, sent, late := p.packets.total(), p.sent.total(), p.late.total()
	reqids := map[SAKey]uint32{}
	for _, r := range rows {
		if r.sad != nil {
			reqids[r.key] = r.sad.now.ReqID
		}
	}
	out := []PMTUEvent{}
	for key, n := range packets {
		e := p.now[key]
		event := PMTUEvent{
			Kind: key.Kind, Src: key.Src, Dst: key.Dst, MTU: key.MTU, Packets: n, Late: late[key],
			Size: e.Size, SizeMax: e.SizeMax, Reporter: e.Reporter,
			First: e.First.Round(0).UTC(), Last: e.Last.Round(0).UTC(),
		}
		if key.SPI != 0 {
			event.SPI = new(key.SPI)
		}
		switch {
		case key.Kind == PMTUTellSender && key.Dst.Is4():
			event.Sent = new(sent[key])
		case key.Kind == PMTUTold:
			event.Took = new(e.Took)
		}
		if key.Kind != PMTUApplied {
			event.Protocol = protocolName(key.Proto)
		}
		if key.Kind == PMTUTellSender && e.SA.SPI == 0 {
			event.Tunnel = p.tunnels[e.Ifindex]
		}
		if e.SA.SPI != 0 {
			event.SA = &SARef{SPI: e.SA.SPI, Dst: e.SA.Dst, ReqID: reqids[e.SA]}
		}
		out = append(out, event)
	}
	slices.SortFunc(out, func(a, b PMTUEvent) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Kind, b.Kind), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst),
			cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.MTU, b.MTU), a.Last.Compare(b.Last))
	})
	return out
}

// protocols are the names of IP protocols that travel in tunnels (IANA's registry).
var protocols = map[uint8]string{1: "icmp", 4: "ipip", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp"}

func protocolName(p uint8) string {
	if s, ok := protocols[p]; ok {
		return s
	}
	return fmt.Sprintf("%d", p)
}

// path says what an outbound SA lets through.
func (p *pmtuState) path(e *SADEntry, told int) PMTUPath {
	out := PMTUPath{SPI: e.Key.SPI, Src: e.Src, Dst: e.Key.Dst, ReqID: e.ReqID, ToldMTU: told}
	if r, ok := p.routes[[2]netip.Addr{e.Src, e.Key.Dst}]; ok {
		out.Ifindex, out.LinkMTU, out.RouteMTU, out.Locked = r.Ifindex, r.LinkMTU, r.MTU, r.Locked
		out.PathMTU = cmp.Or(r.MTU, r.LinkMTU)
		if r.LinkMTU > 0 {
			out.PathMTU = min(out.PathMTU, r.LinkMTU)
		}
	}
	overhead, err := OverheadOf(e)
	if err != nil {
		return out // an SA that is no ESP, or with an algorithm of which nothing is known here
	}
	out.Overhead = &overhead
	if out.PathMTU > 0 {
		out.InnerMTU = overhead.Inner(out.PathMTU)
		out.MSS4, out.MSS6 = MSS(out.InnerMTU, 4), MSS(out.InnerMTU, 6)
	}
	return out
}
