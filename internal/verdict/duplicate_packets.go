// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// DuplicatePackets is numbers that arrived more than once.
const DuplicatePackets ID = "duplicate-packets"

func duplicatePackets(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction == ledger.Out || sa.State == ledger.Absent {
			continue
		}
		dropped := sa.Xfrm[ledger.ReplayDuplicate]
		onWire := int64(0)
		if w := sa.Sequence(); w != nil {
			onWire = w.Duplicates
		}
		n := max(dropped, onWire)
		if n == 0 {
			continue
		}
		late := lateDrops(sa, sa.Xfrm[ledger.ReplayLate])
		mis, _ := misEpoch(sa)
		lateESN := lateDrops(sa, mis)
		below := late.repeated + lateESN.repeated

		base := counted
		switch {
		case sa.XfrmFrom != "" && dropped+below > 0 && onWire == dropped+below:
			base = corroborated
		case r.Source.Kind == ledger.KindCapture:
		case onWire > 0 || sa.XfrmFrom == ledger.FromStack:
			base = witnessed
		}
		f := Finding{
			ID:         DuplicatePackets,
			Severity:   Warning,
			Confidence: sure(base, blurred(r), restarted(sa)),
			Subject:    about(sa),
			Summary:    fmt.Sprintf("%s: %s", who(sa), fateOfDuplicates(r, sa, n, onWire, dropped, below)),
			Evidence:   []Evidence{},
			Remedy:     duplicateRemedies(r, sa, onWire),
		}
		if sa.Sequence() != nil {
			f.Evidence = append(f.Evidence, Evidence{"wire.duplicates", onWire, "packets", "wire", "numbers seen before"})
		}
		if sa.Xfrm != nil {
			f.Evidence = append(f.Evidence, Evidence{"xfrm.replay_duplicate", dropped, "packets", sourceOf(sa), ""})
		}
		if sa.Own != nil && sa.XfrmFrom == ledger.FromStack {
			f.Evidence = append(f.Evidence, Evidence{"stats.replay", sa.Own.Replay, "packets", "SA database", ""})
		}
		if below > 0 {
			f.Evidence = append(f.Evidence, Evidence{"late drops that are repetitions", below, "packets", "wire and " + sourceOf(sa),
				"they came again below the replay window; no window would deliver them"})
		}
		if late.repeated > 0 && late.genuine == 0 {
			f.Consequences = append(f.Consequences, ReplayWindowTooSmall)
		}
		if lateESN.repeated > 0 && lateESN.genuine == 0 {
			f.Consequences = append(f.Consequences, ESNMisEpoch)
		}
		out = append(out, f)
	}
	return out
}

func fateOfDuplicates(r *ledger.Report, sa *ledger.SA, n, onWire, dropped, below int64) string {
	s := fmt.Sprintf("%s arrived more than once (%s of arrivals)", packets(n), share(n, arrivals(sa)))
	switch {
	case r.Source.Kind == ledger.KindCapture:
		return s + ", or the capture holds them twice."
	case sa.Sequence() != nil && onWire < dropped:
		return fmt.Sprintf("%s, %d of them doubled inside this host: the wire saw %d. Replay protection dropped them.", s, dropped-onWire, onWire)
	case sa.ReplayWindow != nil && *sa.ReplayWindow == 0:
		return s + ". Without replay protection they were delivered again."
	case dropped+below >= onWire:
		return s + ". Replay protection dropped them, no data was lost."
	}
	return fmt.Sprintf("%s. Replay protection is known to have dropped %d.", s, dropped+below)
}

func duplicateRemedies(r *ledger.Report, sa *ledger.SA, onWire int64) []Remedy {
	if r.Source.Kind == ledger.KindCapture {
		return []Remedy{{For: forPath, Text: "Capture on one interface and one direction only (tcpdump -Q in), then read it again."}}
	}
	out := []Remedy{}
	if sa.Sequence() != nil && onWire == 0 {
		out = append(out, Remedy{For: forHost, Text: "They were doubled after the wire hook: look for mirroring and bridging on this host.",
			Commands: []string{"tc filter show dev <interface> ingress", "nft list ruleset | grep -w dup"}})
	}
	return append(out,
		Remedy{For: forPath, Text: "The usual source is a layer-2 network: a loop, a bond in broadcast mode, a mirror port that leads back, " +
			"or a switch that floods. Compare the TTL of both copies: equal means the last hop. A replay attack looks the same and is harmless behind a window.",
			Commands: []string{
				"grep -H . /sys/class/net/*/bonding/mode",
				fmt.Sprintf("tcpdump -nv -c 200 -i <interface> 'src %s and (esp or udp port 4500)'", address(sa)),
			}},
		Remedy{For: forPeer, Text: "If the copies leave the peer already, look there for port mirroring or a redundant pair of which both members forward."},
	)
}
