// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"
)

// natPort is that of UDP encapsulation; a peer that sends from another one was translated, because
// RFC 3947 and RFC 7296 section 2.23 have both ends use it.
const natPort = 4500

// pair is two gateways.
type pair struct{ local, remote netip.Addr }

// gateways says who an SA's ends are; false where the direction does not tell.
func gateways(d Direction, src, dst netip.Addr) (pair, bool) {
	switch d {
	case In:
		return pair{dst, src}, true
	case Out:
		return pair{src, dst}, true
	case Unknown:
	}
	return pair{}, false
}

// natState is the newest reading and what the run began with.
type natState struct {
	now     *NATReading
	packets map[pair][2]uint64          // in and out before the run
	beats   map[KeepaliveReading]uint64 // before the run, by binding
}

// binding is a reading without what changes.
func binding(k KeepaliveReading) KeepaliveReading {
	return KeepaliveReading{Src: k.Src, Dst: k.Dst, Direction: k.Direction}
}

func (l *Ledger) observeNAT(s Snapshot, baseline bool) {
	if s.NAT == nil {
		return
	}
	l.nat.now = s.NAT
	if !baseline {
		return
	}
	l.nat.packets, l.nat.beats = map[pair][2]uint64{}, map[KeepaliveReading]uint64{}
	for _, p := range s.NAT.Peers {
		l.nat.packets[pair{p.Local, p.Remote}] = [2]uint64{p.In, p.Out}
	}
	for _, k := range s.NAT.Keepalives {
		l.nat.beats[binding(k)] = k.Packets
	}
}

// natReport lists the peers that speak ESP in UDP; nil where nobody looks.
func (l *Ledger) natReport(sas []SA) *NAT {
	if l.nat.now == nil {
		return nil
	}
	peers := map[pair]*NATPeer{}
	at := func(k pair) *NATPeer {
		if peers[k] == nil {
			peers[k] = &NATPeer{Local: k.local, Remote: k.remote}
		}
		return peers[k]
	}
	newest := map[pair][2]time.Time{} // of the packets that the ports are taken from
	for i := range sas {
		sa := &sas[i]
		k, known := gateways(sa.Direction, sa.Src, sa.Dst)
		udp := sa.Encap == EncapUDP || sa.Wire != nil && sa.Wire.Encap == EncapUDP
		if !known || !udp || sa.State == Absent {
			continue
		}
		p := at(k)
		n := newest[k]
		last := time.Time{}
		if sa.Wire != nil && sa.Wire.LastSeen != nil {
			last = *sa.Wire.LastSeen
		}
		in, out := sa.SrcPort, sa.DstPort
		if sa.Wire != nil && sa.Wire.Encap == EncapUDP {
			in, out = sa.Wire.SrcPort, sa.Wire.DstPort
		}
		if sa.Direction == In && (p.InPort == 0 || last.After(n[0])) {
			p.InPort, n[0] = in, last
		}
		if sa.Direction == Out && (p.OutPort == 0 || last.After(n[1])) {
			p.OutPort, n[1] = out, last
		}
		newest[k] = n
		if sa.Wire != nil && sa.Direction == In {
			p.Moves += sa.Wire.Rebinds
		}
	}
	for k, p := range peers {
		p.Translated = p.InPort != 0 && p.InPort != natPort || p.OutPort != 0 && p.OutPort != natPort
		p.QuietS = l.duration().Seconds() // nothing was seen of it at all, unless told otherwise
		for _, r := range l.nat.now.Peers {
			if (pair{r.Local, r.Remote}) != k {
				continue
			}
			before := l.nat.packets[k]
			p.InPackets, p.OutPackets = after(r.In, before[0]), after(r.Out, before[1])
			p.LastIn, p.LastOut = l.when(r.LastIn), l.when(r.LastOut)
			p.QuietS, p.OutSinceIn = tenths(r.Quiet), int64(r.OutSinceIn)
			if r.OutSinceIn > 0 {
				p.OutSinceQuiet = int64(r.OutSinceQuiet)
				p.OneWaySince, p.QuietBeforeS = l.when(r.OneWaySince), tenths(r.QuietBefore)
			}
		}
		p.KeepalivesIn, p.KeepalivesOut = l.beat(k, In), l.beat(k, Out)
	}
	out := &NAT{Peers: []NATPeer{}, Mappings: []NATMapping{}}
	for _, p := range peers {
		out.Peers = append(out.Peers, *p)
	}
	slices.SortFunc(out.Peers, func(a, b NATPeer) int {
		return cmp.Or(a.Local.Compare(b.Local), a.Remote.Compare(b.Remote))
	})
	for _, m := range l.nat.now.Mappings {
		if m.Last.Before(l.first) {
			continue
		}
		out.Mappings = append(out.Mappings, NATMapping{
			SPI: m.Key.SPI, Dst: m.Key.Dst, ReqID: m.ReqID, Old: m.Old.String(), New: m.New.String(),
			First: m.First.Round(0).UTC(), Last: m.Last.Round(0).UTC(), Announcements: int64(m.Announcements),
		})
	}
	return out
}

// beat sums up the keepalives of all bindings between two gateways.
func (l *Ledger) beat(k pair, d Direction) *Beat {
	var b *Beat
	var last time.Duration
	for _, r := range l.nat.now.Keepalives {
		ends, known := gateways(r.Direction, r.Src.Addr(), r.Dst.Addr())
		n := after(r.Packets, l.nat.beats[binding(r)])
		if !known || ends != k || r.Direction != d || n == 0 {
			continue
		}
		if b == nil {
			b = &Beat{}
		}
		b.Count += n
		if r.Packets > 1 {
			least := tenths(r.IntervalMin)
			if b.IntervalMinS == 0 || least < b.IntervalMinS {
				b.IntervalMinS = least
			}
			b.IntervalMaxS = max(b.IntervalMaxS, tenths(r.IntervalMax))
			b.IntervalAvgS = tenths((r.Last - r.First) / time.Duration(r.Packets-1))
		}
		last = max(last, r.Last)
	}
	if b != nil {
		b.Last = l.when(last)
	}
	return b
}

// after is what a counter rose by since the run began. One that is lower was let go of meanwhile and began anew.
func after(now, before uint64) int64 {
	if now < before {
		return int64(now)
	}
	return int64(now - before)
}

// tenths is a duration in seconds, as exact as samples are.
func tenths(d time.Duration) float64 { return math.Round(d.Seconds()*10) / 10 }
