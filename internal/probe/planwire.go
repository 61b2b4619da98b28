// SPDX-License-Identifier: Apache-2.0

package probe

import "fmt"

const (
	costIngress = "packets that arrive on this device are not counted: path loss, duplicates and reordering of inbound SAs are not seen"
	costEgress  = "packets that leave this device are not counted: outbound SAs lack their wire side"
	limitGRO    = "esp4_offload or esp6_offload is loaded: ESP that GRO decapsulates never reaches this hook; only native XDP (--mode xdp) counts it"
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
// not ESP, or ESP of another SA, so nothing is counted twice).
func (h *Hook) ingress(caps Capabilities, mode Mode) {
	h.Required = mode != ModeAuto
	if mode == ModeXDP || mode == ModeXDPGeneric || mode == ModeAuto {
		way := WayXDP
		if mode == ModeXDPGeneric {
			way = WayXDPGeneric
			h.Limits = limitXDPGen
		}
		switch why := xdpRefusal(caps, h.Device); {
		case why != "":
			h.Why = append(h.Why, why)
		default:
			h.Try = append(h.Try, Candidate{Program: "xdp_ingress", Way: way})
		}
	}
	if mode == ModeAuto || mode == ModeTC {
		tc, why := tcCandidates(caps, "tc_ingress", Ingress, h.Device.Layer)
		h.Try, h.Why = append(h.Try, tc...), append(h.Why, why...)
	}
	if caps.GROHidesESP && (len(h.Try) == 0 || h.Try[0].Way != WayXDP) {
		h.Limits = limitGRO
	}
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
