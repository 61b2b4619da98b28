// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"net/netip"
	"slices"
)

// Drop is packets of an SA, or of IKE, that this host dropped outside xfrm's counters.
type Drop struct {
	Stage     DropStage  `json:"stage"`
	SPI       SPI        `json:"spi"` // 0: no SA
	Dst       netip.Addr `json:"dst"`
	Src       netip.Addr `json:"src"`
	Proto     Proto      `json:"proto,omitempty"`
	Direction Direction  `json:"direction"`
	SrcPort   uint16     `json:"src_port,omitempty"`
	DstPort   uint16     `json:"dst_port,omitempty"`
	ReqID     uint32     `json:"reqid,omitempty"`
	IfID      uint32     `json:"if_id,omitempty"`
	KnownSA   bool       `json:"known_sa"` // the SA was in the database during the run
	Place     Place      `json:"place"`
	Function  string     `json:"function"`
	Module    string     `json:"module,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	Hook      string     `json:"hook,omitempty"` // netfilter hook
	Ifindex   int        `json:"ifindex,omitempty"`
	Lost      bool       `json:"lost"` // false: it may as well have been done with
	Packets   int64      `json:"packets"`
}

func (l *Ledger) observeDrops(s Snapshot, baseline bool) {
	if s.HostDrops == nil {
		return
	}
	l.dropsSeen = true
	now := make(map[DropID]uint64, len(s.HostDrops))
	for _, d := range s.HostDrops {
		now[d.DropID] += d.Packets
	}
	l.drops.observeEach(now, baseline)
}

// dropList draws up the drops of the run, the most first. Which way a packet with an ESP header was
// going is told by its SA, where there is one; the hook in the kernel can only guess.
func (l *Ledger) dropList() []Drop {
	if !l.dropsSeen {
		return nil
	}
	out := []Drop{}
	for id, n := range l.drops.total() {
		key, stage := id.Key, id.Stage
		known := false
		if key.SPI != 0 {
			key, known = l.resolve(key)
			if stage == BeforeXfrm && key.Direction == Out {
				stage = AtEgress
			} else if stage == AtEgress && key.Direction == In {
				stage = BeforeXfrm
			}
		}
		p := id.place()
		if p == PlaceTap {
			continue
		}
		d := Drop{
			Stage: stage, SPI: key.SPI, Dst: key.Dst, Src: id.Src, Proto: key.Proto, Direction: key.Direction,
			SrcPort: id.SrcPort, DstPort: id.DstPort, ReqID: id.ReqID, IfID: id.IfID, KnownSA: known,
			Place: p, Function: id.Function, Module: id.Module, Reason: id.Reason, Ifindex: id.Ifindex,
			// Without the stack hooks nobody says which drops inside xfrm its counters explain.
			Lost: id.loss(p) && (l.stackSeen || p != PlaceXfrm), Packets: n,
		}
		if p == PlaceNetfilter {
			d.Hook = id.Hook
		}
		// xfrm takes keepalives out of their socket and frees them as it frees what is broken.
		if stage == Keepalive && (p == PlaceXfrm || p == PlaceSocket) {
			continue
		}
		out = append(out, d)
	}
	return mergeDrops(out)
}

// resolve finds the direction of a key that was read from a packet's outer header.
func (l *Ledger) resolve(k SAKey) (SAKey, bool) {
	if l.inSAD(k) {
		return k, true
	}
	for _, dir := range []Direction{In, Out, Unknown} {
		other := k
		other.Direction = dir
		if l.inSAD(other) {
			if dir == Unknown {
				return l.sadRow(other), true
			}
			return other, true
		}
	}
	return k, false
}

// mergeDrops adds up what differs only in ways that the report does not show, and sorts.
func mergeDrops(list []Drop) []Drop {
	at := map[Drop]int{}
	out := list[:0]
	for _, d := range list {
		n := d.Packets
		d.Packets = 0
		i, seen := at[d]
		if !seen {
			i = len(out)
			at[d] = i
			out = append(out, d)
		}
		out[i].Packets += n
	}
	slices.SortFunc(out, func(a, b Drop) int {
		return cmp.Or(
			cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Stage, b.Stage), a.Dst.Compare(b.Dst),
			cmp.Compare(a.SPI, b.SPI), a.Src.Compare(b.Src), cmp.Compare(a.Function, b.Function),
			cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Hook, b.Hook), cmp.Compare(a.Ifindex, b.Ifindex),
			cmp.Compare(a.SrcPort, b.SrcPort), cmp.Compare(a.DstPort, b.DstPort),
		)
	})
	return out
}

// dropSums are one SA's drops by the bin that they belong to.
type dropSums struct {
	before int64 // before xfrm, and surely after the wire hook
	early  int64 // before xfrm, on either side of the wire hook
	inner  int64 // after decryption
	out    int64 // encapsulated, before the wire hook
	queue  int64 // encapsulated, after the wire hook
	either int64 // encapsulated, on either side of it
}

// sumDrops sorts the drops by SA.
func sumDrops(list []Drop) map[SAKey]dropSums {
	sums := map[SAKey]dropSums{}
	for _, d := range list {
		if d.SPI == 0 || !d.Lost {
			continue
		}
		k := SAKey{Dst: d.Dst, SPI: d.SPI, Proto: d.Proto, Direction: d.Direction}
		s := sums[k]
		switch {
		case d.Stage == AfterDecap:
			s.inner += d.Packets
		case d.Stage == BeforeXfrm && mayPrecedeWire(d.Place):
			s.early += d.Packets
		case d.Stage == BeforeXfrm:
			s.before += d.Packets
		case d.Stage == AtEgress && afterWire(d.Place):
			s.queue += d.Packets
		case d.Stage == AtEgress && d.Place == PlaceTC:
			s.either += d.Packets
		case d.Stage == AtEgress:
			s.out += d.Packets
		}
		sums[k] = s
	}
	return sums
}
