// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

// Findings on NAT between the gateways, and on who hears whom.
const (
	NATMappingChanged   ID = "nat-mapping-changed"
	NATBindingLost      ID = "nat-binding-lost"
	NATKeepaliveMissing ID = "nat-keepalive-missing"
	EncapMismatch       ID = "encap-mismatch"
	OneWayTraffic       ID = "one-way-traffic"
)

func natKinds() []Kind {
	return []Kind{
		{EncapMismatch, "One end speaks ESP in UDP, the other plain ESP", encapMismatch},
		{NATMappingChanged, "A peer's packets come from another address or port", natMappingChanged},
		{NATBindingLost, "A NAT has forgotten the peer", natBindingLost},
		{NATKeepaliveMissing, "A NAT binding is left without sign of life", natKeepaliveMissing},
		{OneWayTraffic, "The peer is not heard", oneWayTraffic},
	}
}

// Bounds. NATs give UDP bindings up after 30 seconds at the earliest that is met in practice; RFC 4787
// REQ-5 asks for two minutes, RFC 3948 section 4 for a keepalive every 20 seconds.
const (
	natPatience   = 30.0 // seconds of silence that a binding may not survive
	natUnanswered = 10   // packets that went out after it and were not answered
	natWaited     = 5 * time.Second
)

// natMappingChanged: the newest packets of an SA come from elsewhere than those before.
func natMappingChanged(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		w := sa.Wire
		if w == nil || w.Packets == 0 || sa.Direction == ledger.Out || sa.State == ledger.Absent {
			continue
		}
		announced := announcements(r, sa)
		old := ledger.Endpoint{Src: sa.Src, SrcPort: sa.SrcPort, DstPort: sa.DstPort, Encap: sa.Encap}
		switch {
		case w.Rebinds > 0 && w.ReboundFrom != nil:
			old = *w.ReboundFrom
		case announced == 0 || w.SrcPort == sa.SrcPort && wireSource(sa) == sa.Src:
			continue // or it moved before the run, and the SA still does not know
		}
		now := ledger.Endpoint{Src: wireSource(sa), SrcPort: w.SrcPort, DstPort: w.DstPort, Encap: w.Encap}
		if old.Encap != now.Encap {
			continue // the encapsulation itself changed: see encap-mismatch
		}
		base := witnessed
		if announced > 0 {
			base = corroborated
		}
		f := Finding{
			ID:         NATMappingChanged,
			Severity:   Info,
			Confidence: sure(base, blurred(r), announced == 0 && sa.Xfrm[ledger.IntegrityFailed] > 0),
			Subject:    about(sa),
			Summary:    fmt.Sprintf("%s: its packets come from %s%s; before they came from %s.", who(sa), now, strings.Replace(atTime(w.ReboundAt), " at ", " since ", 1), old),
			Evidence: []Evidence{
				{"wire.rebinds", w.Rebinds, "times", "wire", "judged by packets that raised the highest number, so late ones of the old binding do not count"},
				{"old source port", int64(old.SrcPort), "port", "wire", old.Src.String()},
				{"new source port", int64(now.SrcPort), "port", "wire", now.Src.String()},
			},
			Remedy: mappingRemedies(),
		}
		if announced > 0 {
			f.Evidence = append(f.Evidence, Evidence{"nat.mappings", announced, "announcements", "SA database",
				"the kernel saw authentic packets from there (XFRM_MSG_MAPPING)"})
		}
		since := w.ReboundAt
		if since == nil {
			since = new(r.Source.Start)
		}
		stale, follows := staleOutbound(r, sa, now, since)
		switch {
		case stale != nil:
			f.Severity = Critical
			f.Summary += fmt.Sprintf(" This host still sends SA %s to port %d, where nobody listens any more.", stale.SPI, stale.Wire.DstPort)
			f.Evidence = append(f.Evidence, Evidence{"outbound port", int64(stale.Wire.DstPort), "port", "wire", "of SA " + stale.SPI.String()})
		case follows:
			f.Summary += " This host has followed."
		case r.Source.Kind == ledger.KindCapture:
			f.Severity = Warning
			f.Summary += " Whether the other end has followed, a capture without directions does not tell."
		default:
			f.Severity = Warning
			f.Summary += " Whether this host has followed was not seen: it sent nothing since."
		}
		out = append(out, f)
	}
	return out
}

// wireSource is where an SA's newest packets come from, which the SA database may not know yet.
func wireSource(sa *ledger.SA) netip.Addr {
	if sa.Wire != nil && sa.Wire.Src.IsValid() {
		return sa.Wire.Src
	}
	return sa.Src
}

func announcements(r *ledger.Report, sa *ledger.SA) int64 {
	var n int64
	if r.NAT == nil {
		return 0
	}
	for _, m := range r.NAT.Mappings {
		if m.SPI == sa.SPI && m.Dst == sa.Dst {
			n += m.Announcements
		}
	}
	return n
}

// staleOutbound looks for an SA that was sent to the old place after the peer had moved, and says
// whether one was sent to the new.
func staleOutbound(r *ledger.Report, in *ledger.SA, now ledger.Endpoint, at *time.Time) (stale *ledger.SA, follows bool) {
	if now.Encap != ledger.EncapUDP {
		return nil, false
	}
	for i := range r.SAs {
		out := &r.SAs[i]
		if out.Direction != ledger.Out || out.Src != in.Dst || out.Wire == nil || out.Wire.Packets == 0 || out.Wire.Encap != ledger.EncapUDP {
			continue
		}
		// A quarter of a second is how exactly the last packet's time is known.
		if at == nil || out.Wire.LastSeen == nil || out.Wire.LastSeen.Before(at.Add(500*time.Millisecond)) {
			continue
		}
		switch {
		case out.Dst == now.Src && out.Wire.DstPort == now.SrcPort:
			follows = true
		case out.Dst == in.Src || out.Dst == now.Src:
			stale = out
		}
	}
	if follows {
		return nil, true
	}
	return stale, false
}

// encapMismatch: what is on the wire is not what the SA wants, and xfrm_input refuses it.
func encapMismatch(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		w := sa.Sequence()
		if w == nil || w.Packets == 0 || w.Encap == "" || w.Encap == sa.Encap || sa.Direction != ledger.In ||
			sa.State == ledger.Absent || sa.State == ledger.NotCovered {
			continue
		}
		refused, unheard := sa.Xfrm[ledger.EncapMismatch], withoutSocket(r, sa)
		base, fate := inferred, "xfrm refuses such packets (XfrmInStateMismatch)"
		var spares []ID // what else befalls them in this host has another cause
		switch {
		case refused > 0:
			base, spares = corroborated, []ID{HostIngressDrop}
		case unheard > 0:
			base, fate = witnessed, "no socket of this host takes ESP out of UDP: they never reach xfrm"
		case sa.XfrmFrom == ledger.FromStack:
			continue // xfrm refused none: the SA was changed after its packets had passed
		case r.Kernel.XfrmStat[ledger.EncapMismatch.Counter()] > 0:
			base = counted
		}
		f := Finding{
			ID:         EncapMismatch,
			Severity:   Critical,
			Confidence: sure(base, blurred(r)),
			Subject:    about(sa),
			Summary:    fmt.Sprintf("%s: the SA wants %s, on the wire is %s, and %s.", who(sa), encapName(sa.Encap), encapName(w.Encap), fate),
			Evidence: []Evidence{
				{"wire.packets", w.Packets, "packets", "wire", "the newest " + encapName(w.Encap)},
				{"xfrm.encap_mismatch", refused, "packets", sourceOf(sa), ""},
			},
			spares: spares,
			Remedy: []Remedy{
				{For: forStrongSwan, Text: "Let both ends come to the same view of NAT: set the IKE SA up anew after a change of address, or force UDP on both.",
					Commands: []string{"connections.<conn>.encap = yes", "swanctl --terminate --ike <conn> && swanctl --initiate --child <child>"}},
				{For: forLibreswan, Text: "The same: encapsulation=yes forces it, =auto follows what IKE detects.",
					Commands: []string{"encapsulation=yes", "ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
				{For: forIproute2, Text: "Both ends need the same encapsulation for an SA that is set up by hand, and a socket with UDP_ENCAP.",
					Commands: []string{fmt.Sprintf("ip xfrm state list dst %s proto %s spi %s   # encap type espinudp or none", sa.Dst, sa.Proto, sa.SPI)}},
				{For: forPeer, Text: "Cisco: crypto ipsec nat-transparency udp-encapsulation. Windows: AssumeUDPEncapsulationContextOnSendRule = 2 where both ends are behind NAT."},
			},
		}
		if unheard > 0 {
			f.Evidence = append(f.Evidence, Evidence{"drops.before_xfrm.socket", unheard, "packets", "kfree_skb", "nobody has UDP_ENCAP set on their port"})
		}
		out = append(out, f)
	}
	return out
}

// withoutSocket is how many packets of an SA came in UDP to a port where no socket is, for xfrm to get
// them from. Kernels that give no reason are taken at their place.
func withoutSocket(r *ledger.Report, sa *ledger.SA) (n int64) {
	for _, l := range lost(r, func(d *ledger.Drop) bool {
		return d.Stage == ledger.BeforeXfrm && d.Place == ledger.PlaceSocket && (d.Reason == "NO_SOCKET" || d.Reason == "")
	}) {
		if l.sa == sa && sa.Wire != nil && sa.Wire.Encap == ledger.EncapUDP {
			n += l.packets
		}
	}
	return n
}

func encapName(e ledger.Encap) string {
	if e == ledger.EncapUDP {
		return "ESP in UDP"
	}
	return "plain ESP"
}

// mappingRemedies keep a binding, and let the ends follow when it goes all the same.
func mappingRemedies() []Remedy {
	return []Remedy{
		{For: forStrongSwan, Text: "Keep the binding alive from behind the NAT, and let MOBIKE and dead peer detection notice when it changes all the same.",
			Commands: []string{"charon.keep_alive = 20s", "connections.<conn>.mobike = yes", "connections.<conn>.dpd_delay = 30s"}},
		{For: forLibreswan, Text: "The same.", Commands: []string{"nat-keepalive=yes", "keep-alive=20   # config setup", "mobike=yes", "dpddelay=30"}},
		{For: forPath, Text: "Raise the NAT's timeout for UDP, or forward UDP 500 and 4500 to the peer for good.",
			Commands: []string{"sysctl -w net.netfilter.nf_conntrack_udp_timeout_stream=300   # on a Linux NAT"}},
		{For: forIproute2, Text: "An SA set up by hand does not follow; its encapsulation has to be set to the new address and port.",
			Commands: []string{"ip xfrm state update … encap espinudp <own port> <new port> 0.0.0.0"}},
		{For: forPeer, Text: "Cisco: crypto isakmp nat keepalive 20. Windows sends keepalives every 20 seconds by itself."},
	}
}
