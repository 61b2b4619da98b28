// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// firewallKinds are about packets that this host throws away outside xfrm.
func firewallKinds() []Kind {
	return []Kind{
		{FirewallDrop, "A firewall on this host drops the tunnel's packets", firewallDrop},
		{RPFilterDrop, "The reverse path filter drops the tunnel's packets", rpFilterDrop},
		{NoRouteAfterDecap, "Decrypted packets have nowhere to go", noRouteAfterDecap},
		{EgressDrop, "Encrypted packets are dropped before they leave", egressDrop},
		{HostIngressDrop, "Packets are dropped between the wire and xfrm", hostIngressDrop},
		{DecryptedPacketDropped, "Decrypted packets are dropped on this host", decryptedPacketDropped},
	}
}

// losses are drops of one SA, or of one pair of peers without one, that one rule judges together.
type losses struct {
	drops   []ledger.Drop
	packets int64
	sa      *ledger.SA // nil: none in the report
}

// lost groups the drops that a rule is about by SA and stage, in the order of the report.
func lost(r *ledger.Report, about func(*ledger.Drop) bool) []losses {
	type group struct {
		stage    ledger.DropStage
		key      ledger.SAKey
		src, dst netip.Addr
	}
	at := map[group]int{}
	var out []losses
	for _, d := range r.Drops {
		if !d.Lost || d.Packets <= 0 || !about(&d) {
			continue
		}
		g := group{stage: d.Stage, key: ledger.SAKey{Dst: d.Dst, SPI: d.SPI, Proto: d.Proto, Direction: d.Direction}}
		if d.SPI == 0 {
			g.src, g.dst = d.Src, d.Dst
		}
		i, seen := at[g]
		if !seen {
			i = len(out)
			at[g] = i
			out = append(out, losses{sa: saOf(r, &d)})
		}
		out[i].drops = append(out[i].drops, d)
		out[i].packets += d.Packets
	}
	return out
}

// saOf finds the SA of a drop in the report.
func saOf(r *ledger.Report, d *ledger.Drop) *ledger.SA {
	if d.SPI == 0 {
		return nil
	}
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.SPI == d.SPI && sa.Dst == d.Dst && sa.Proto == d.Proto && sa.Direction == d.Direction {
			return sa
		}
	}
	return nil
}

// subject names the SA, or the two ends where there is none.
func (l *losses) subject() Subject {
	if l.sa != nil {
		return about(l.sa)
	}
	d := &l.drops[0]
	s := Subject{Direction: d.Direction, Proto: d.Proto, Ifindex: d.Ifindex}
	if d.SPI != 0 {
		s.SPI = new(d.SPI)
	}
	if d.Src.IsValid() {
		s.Src = new(d.Src)
	}
	if d.Dst.IsValid() {
		s.Dst = new(d.Dst)
	}
	return s
}

// of is how many packets there were to lose, where that was observed.
func (l *losses) of() (n int64, known bool) {
	if l.sa == nil {
		return 0, false
	}
	in, out := l.sa.Ledger.In, l.sa.Ledger.Out
	var bin *int64
	switch {
	case in != nil && l.drops[0].Stage == ledger.AfterDecap:
		bin = in.Decapsulated
	case in != nil:
		bin = in.Arrivals
	case out != nil:
		bin = out.Encapsulated
	}
	if bin == nil {
		return 0, false
	}
	return max(*bin, l.packets), true
}

// count writes how many were lost, and of how many.
func (l *losses) count() string {
	n, known := l.of()
	if !known {
		return packets(l.packets)
	}
	return fmt.Sprintf("%s of %d (%s)", packets(l.packets), n, share(l.packets, n))
}

// graded is a warning where it is not known what part was lost.
func (l *losses) graded(by func(lost, of int64) Severity) Severity {
	n, known := l.of()
	if !known {
		return Warning
	}
	return by(l.packets, n)
}

// evidence lists the drops by place, and the bin that they fill.
func (l *losses) evidence() []Evidence {
	var out []Evidence
	for i := range l.drops {
		d := &l.drops[i]
		note := "function " + d.Function
		if d.Function == "" {
			note = "function not known"
		}
		if d.Reason != "" {
			note += ", reason " + d.Reason
		}
		if d.Ifindex != 0 {
			note += fmt.Sprintf(", interface %d", d.Ifindex)
		}
		out = append(out, Evidence{strings.TrimSuffix(fmt.Sprintf("drops.%s.%s.%s", d.Stage, d.Place, d.Hook), "."), d.Packets, "packets", "kfree_skb", note})
	}
	if l.sa == nil {
		return out
	}
	if b := l.sa.Ledger.In; b != nil {
		if l.drops[0].Stage == ledger.AfterDecap && b.InnerDropped != nil && b.Decapsulated != nil {
			out = append(out, Evidence{"ledger.decapsulated", *b.Decapsulated, "packets", "SA database", fmt.Sprintf("%d of them dropped afterwards", *b.InnerDropped)})
		} else if b.Arrivals != nil {
			out = append(out, Evidence{"ledger.arrivals", *b.Arrivals, "packets", "wire", ""})
		}
	}
	if b := l.sa.Ledger.Out; b != nil && b.Encapsulated != nil && b.OnWire != nil {
		out = append(out, Evidence{"ledger.encapsulated", *b.Encapsulated, "packets", "SA database", fmt.Sprintf("%d of them on the wire", *b.OnWire)})
	}
	return out
}

// sure grades by what vouches for it: the ledger adds up only if the drops were these.
func (l *losses) sure(r *ledger.Report) float64 {
	if l.sa != nil {
		if u, known := l.sa.Ledger.Unattributed(); known && u == 0 && l.drops[0].Stage != ledger.AfterDecap {
			return sure(corroborated, blurred(r))
		}
	}
	return sure(witnessed, blurred(r))
}

// whose names what was lost.
func (l *losses) whose() string {
	d := &l.drops[0]
	switch d.Stage {
	case ledger.IKEPacket, ledger.Keepalive:
		what := "IKE messages"
		if d.Stage == ledger.Keepalive {
			what = "NAT keepalives"
		}
		return fmt.Sprintf("%s from %s to %s (UDP %d)", what, d.Src, d.Dst, d.DstPort)
	case ledger.AfterDecap:
		if l.sa != nil {
			return "decrypted packets of " + who(l.sa)
		}
		return fmt.Sprintf("decrypted packets of SA %s to %s", d.SPI, d.Dst)
	}
	if l.sa != nil && l.sa.Direction == ledger.In {
		return "packets of " + who(l.sa)
	}
	return fmt.Sprintf("packets of SA %s to %s", d.SPI, d.Dst)
}

// dropPeer is the other end's address, and whether this host has to do with it: it is an end of an SA or
// of a policy's template.
func dropPeer(r *ledger.Report, d *ledger.Drop) (netip.Addr, bool) {
	peer := d.Src
	if d.Direction == ledger.Out {
		peer = d.Dst
	}
	for i := range r.SAs {
		if sa := &r.SAs[i]; (sa.Src == peer || sa.Dst == peer) && sa.State != ledger.Absent {
			return peer, true
		}
	}
	return peer, r.Policies != nil && slices.ContainsFunc(r.Policies, func(p ledger.PolicyEntry) bool {
		return slices.ContainsFunc(p.Templates, func(t ledger.TemplateEntry) bool { return t.Src == peer.String() || t.Dst == peer.String() })
	})
}
