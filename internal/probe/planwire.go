// SPDX-License-Identifier: Apache-2.0

package probe

import "fmt"

const (
	costIngress = "packets that arrive on this device are not counted: path loss, duplicates and reordering of inbound SAs are not seen"
	costEgress  = "packets that leave this device are not counted: outbound SAs lack their wire side"
	limitGRO    = "esp4_offload or esp6_offload is loaded: ESP that GRO decapsulates never reaches this hook; only native XDP (--mode xdp) counts it"
	whyTCFirst  = "XDP: on veth it would have packets wait in a ring of 256, and take segmentation from the peer, to see no more; --mode xdp has it nevertheless"
	limitXDPGen = "generic XDP sees packets as the stack has them: what GRO decapsulated or merged before is missing"
)

// wireHooks plans ingress and egress of one device.
func wireHooks(caps Capabilities, d Device, mode Mode) []Hook {
	in := Hook{Name: "wire ingress " + d.Name, Device: d, Direction: Ingress, Costs: costIngress}
	out := Hook{Name: "wire egress " + d.Name, Device: d, Direction: Egress, Costs: costEgress}
	if d.Layer == LayerOther {
		why := fmt.Sprintf("%s has link type %s, which the programs cannot read", d.Name, d.LinkType)
		in.Why, out.Why = []string{why}, []string{why}
		in.Required = true
		return []Hook{in, out}
	}
	in.ingress(caps, mode)
	out.Try, out.Why = tcCandidates(caps, "tc_egress", Egress, d.Layer)
	return []Hook{in, out}
}

// ingress lists the candidates in the order of what they see: native XDP sees each frame once and
// before GRO; TC sees what GRO made of them, and decapsulated packets a second time (which then are
// not ESP, or ESP of another SA, so nothing is counted twice). Left to choose, a device on which XDP
// changes how the stack sends has it last.
func (h *Hook) ingress(caps Capabilities, mode Mode) {
	h.Required = mode != ModeAuto
	var xdp, tc []Candidate
	if mode != ModeTC {
		way := WayXDP
		if mode == ModeXDPGeneric {
			way = WayXDPGeneric
			h.Limits = limitXDPGen
		}
		if why := xdpRefusal(caps, h.Device); why != "" {
			h.Why = append(h.Why, why)
		} else {
			xdp = []Candidate{{Program: "xdp_ingress", Way: way}}
		}
	}
	if mode == ModeAuto || mode == ModeTC {
		var why []string
		tc, why = tcCandidates(caps, "tc_ingress", Ingress, h.Device.Layer)
		h.Why = append(h.Why, why...)
	}
	if len(xdp) > 0 && len(tc) > 0 && tcFirst(caps, h.Device) {
		h.Try, h.Why = append(tc, xdp...), append(h.Why, whyTCFirst)
	} else {
		h.Try = append(xdp, tc...)
	}
	if caps.GROHidesESP && (len(h.Try) == 0 || h.Try[0].Way != WayXDP) {
		h.Limits = limitGRO
	}
}

// tcFirst says whether TC sees as much on this device as native XDP, and does less to it. On veth XDP
// has packets wait in a ring of 256, beyond which they are dropped, copies those that are shared or in
// pieces, takes software segmentation from the peer and limits its MTU (drivers/net/veth.c: VETH_RING_SIZE,
// veth_convert_skb_to_xdp_buff, veth_xdp_set). clsact, below tcx, outlives its owner and cannot be attached
// anew without capabilities, so there XDP stays the better one.
func tcFirst(caps Capabilities, d Device) bool {
	return d.Kind == "veth" && caps.TCX == nil && !caps.GROHidesESP
}

func xdpRefusal(caps Capabilities, d Device) string {
	switch {
	case d.Layer != LayerEthernet:
		return fmt.Sprintf("XDP: packets of %s (link type %s) have no Ethernet header", d.Name, d.LinkType)
	case d.XDPHere:
		return fmt.Sprintf("XDP: program id %d is already on %s and stays there", d.XDP, d.Name)
	case refused(caps.XDPLink):
		return "XDP: this kernel has no XDP links (5.9), so a program could outlive its owner"
	}
	return ""
}

// tcCandidates are tcx, which ends with its owner, and clsact below it.
func tcCandidates(caps Capabilities, program string, dir Direction, layer Layer) (try []Candidate, why []string) {
	if layer == LayerIP {
		program += "_l3"
	}
	if refused(caps.TCX) {
		return []Candidate{{Program: program, Way: WayClsact}}, []string{"tcx: this kernel has none (6.6)"}
	}
	as := tcxAttach(dir)
	try = []Candidate{{Program: program, Way: WayTCX, LoadAs: as}}
	if caps.TCX != nil {
		try = append(try, Candidate{Program: program, Way: WayClsact, LoadAs: as})
	}
	return try, nil
}
