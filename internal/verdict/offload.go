// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// OffloadHidesESP is ESP that GRO decapsulated before the ingress hook could see it.
const OffloadHidesESP ID = "offload-hides-esp"

// HardwareNotObservable is an SA that the network card carries by itself.
const HardwareNotObservable ID = "hardware-not-observable"

// hidden says whether GRO took packets of an inbound SA before the hook: more were decapsulated than
// arrived, the offload module that does it is loaded, and the hook is one that stands behind GRO.
func hidden(r *ledger.Report, sa *ledger.SA) bool {
	b := sa.Ledger.In
	if b == nil || b.Arrivals == nil || b.Unattributed == nil || *b.Unattributed >= 0 || r.Host == nil || len(r.Host.Modules) == 0 {
		return false
	}
	behind := false
	for _, h := range r.Hooks {
		if h.Attached && strings.HasPrefix(h.Name, "wire ingress ") {
			way, _, _ := strings.Cut(h.Why, " ")
			if way == "xdp" {
				return false
			}
			behind = true
		}
	}
	return behind
}

func offloadHidesESP(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Offload == "packet" || !hidden(r, sa) {
			continue
		}
		unseen := -*sa.Ledger.In.Unattributed
		f := Finding{
			ID: OffloadHidesESP, Severity: Info, Confidence: sure(counted), Subject: about(sa),
			Summary: fmt.Sprintf("%s: GRO took %s out of the wire hook's sight and decapsulated them there (%s). "+
				"Nothing is wrong with the traffic; what the wire says of this SA is incomplete, and numbers it misses are no loss.",
				who(sa), packets(unseen), strings.Join(r.Host.Modules, ", ")),
			Evidence: []Evidence{
				{"own.packets", sa.Own.Packets, "packets", "SA database", "decapsulated"},
				{"wire.packets", *sa.Ledger.In.Arrivals, "packets", "wire", "seen by the hook"},
				{"ledger.unattributed", *sa.Ledger.In.Unattributed, "packets", "ledger", "more came out than went in"},
			},
			Remedy: []Remedy{
				{For: forHost, Text: "Observe in front of GRO: native XDP, where the driver has it.",
					Commands: []string{"xfrmscope diagnose --mode xdp --interface <device>"}},
				{For: forHost, Text: "Or keep GRO off the device while observing. It costs throughput meanwhile.",
					Commands: []string{"ethtool -K <device> gro off   # and on again afterwards"}},
			},
		}
		out = append(out, f)
	}
	return out
}

func hardwareNotObservable(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Offload != "packet" || sa.Own == nil || sa.Own.Packets <= 0 {
			continue
		}
		seen := int64(0)
		if sa.Wire != nil {
			seen = sa.Wire.Packets
		}
		where := "the network card"
		if l := r.Host.Link(sa.OffloadIfindex); l != nil {
			where = l.Name
		}
		out = append(out, Finding{
			ID: HardwareNotObservable, Severity: Info, Confidence: sure(witnessed), Subject: about(sa),
			Summary: fmt.Sprintf("%s is offloaded whole to %s: it encrypts, decrypts, checks replay and policy by itself. "+
				"The kernel's hooks see nothing of it, and no statement about its losses is made here.", who(sa), where),
			Evidence: []Evidence{
				{"sa.offload", 1, "SAs", "SA database", "packet offload (XFRM_OFFLOAD_PACKET)"},
				{"own.packets", sa.Own.Packets, "packets", "SA database", "as the driver reports them to the kernel"},
				{"wire.packets", seen, "packets", "wire", "seen by the hooks"},
			},
			Remedy: []Remedy{
				{For: forHost, Text: "Look at what the card itself counts for IPsec.",
					Commands: []string{"ethtool -S " + where + " | grep -i ipsec"}},
				{For: forIproute2, Text: "To test, set up the SA without offload, or switch it off on the device and set up the SAs anew; then everything is observed, and the CPU does the work.",
					Commands: []string{"ip xfrm state … offload packet dev " + where + "   # leave this out", "ethtool -K " + where + " esp-hw-offload off"}},
				{For: forStrongSwan, Text: "In swanctl.conf, then set the child SA up anew.",
					Commands: []string{"connections.<conn>.children.<child>.hw_offload = no", "swanctl --load-conns",
						"swanctl --terminate --child <child> && swanctl --initiate --child <child>"}},
				{For: forLibreswan, Text: "In the conn section of ipsec.conf, then load and set up the connection anew.",
					Commands: []string{"nic-offload=no", "ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
			},
		})
	}
	return out
}
