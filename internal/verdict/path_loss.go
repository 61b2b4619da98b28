// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// PathLoss is numbers that the peer used and that never reached this host's wire hook.
const PathLoss ID = "path-loss"

func pathLoss(r *ledger.Report) []Finding {
	capture := r.Source.Kind == ledger.KindCapture
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		b := sa.Ledger.In
		// What leaves this host is lost where only the other end can see it, and packets that merely
		// pass through are not this host's to judge.
		if b == nil || b.LostOnPath == nil || *b.LostOnPath <= 0 || sa.State == ledger.Absent || hidden(r, sa) {
			continue
		}
		leapt := leaptOver(r, sa)
		lost, sent := *b.LostOnPath-leapt, *b.Sent-leapt
		if lost <= 0 {
			continue
		}
		where := "between the peer and this host's wire hook"
		base := witnessed
		if capture {
			where, base = "before the point of capture, or by the capture itself", counted
		}
		p := lossPattern(sa, lost)
		f := Finding{
			ID:         PathLoss,
			Severity:   pathSeverity(lost, sent),
			Confidence: sure(base, blurred(r), restarted(sa), sa.Xfrm[ledger.IntegrityFailed] > 0),
			Subject:    about(sa),
			Summary: strings.TrimSpace(fmt.Sprintf("%s: %s of %d (%s) got lost %s. %s",
				who(sa), packets(lost), sent, share(lost, sent), where, p.sentence(sa))),
			Evidence: []Evidence{
				{"ledger.sent", sent, "packets", "wire", "distinct sequence numbers the peer used"},
				{"ledger.lost_on_path", lost, "packets", "wire", "numbers that never came and are older than the reorder horizon"},
				{"ledger.pending", *b.Pending, "packets", "wire", "may still come"},
				{"wire.gap_events", sa.Wire.GapEvents, "gaps", "wire", ""},
			},
			Remedy: lossRemedies(sa, capture),
		}
		f.Evidence = append(f.Evidence, patternEvidence(sa, p)...)
		if leapt > 0 {
			f.Evidence = append(f.Evidence, Evidence{"wire.jumped", leapt, "numbers", "wire", "not counted as lost: no rate seen here would send so many"})
		}
		if restarted(sa) {
			f.Evidence = append(f.Evidence, Evidence{"wire.restarts", sa.Wire.Restarts + sa.Wire.Jumps, "times", "wire",
				"the sender's numbers began anew or leapt: numbers skipped on purpose count as lost"})
		}
		if n := sa.Xfrm[ledger.IntegrityFailed]; n > 0 {
			f.Evidence = append(f.Evidence, Evidence{"xfrm.integrity_failed", n, "packets", sourceOf(sa),
				"their numbers are not authentic; a corrupted one leaves a gap, so a link that corrupts may be the one that loses"})
		}
		if !capture {
			f.Evidence = append(f.Evidence, cardEvidence(r, sa)...)
		}
		out = append(out, f)
	}
	return out
}

// pathSeverity grades loss by rate. Any loss is shown; below 1 in 10,000 it does not hurt TCP.
func pathSeverity(lost, sent int64) Severity {
	if lost*10000 < sent {
		return Info
	}
	return lossSeverity(lost, sent)
}

func lossRemedies(sa *ledger.SA, capture bool) []Remedy {
	if capture {
		return []Remedy{{For: forPath,
			Text: "Make sure that the capture is whole (tcpdump prints \"packets dropped by kernel\"), then capture at the other end and compare.",
		}}
	}
	return []Remedy{
		{For: forHost,
			Text: "The wire hook sits behind the network card: look first whether the card or its queues dropped them.",
			Commands: []string{
				"ethtool -S <interface> | grep -iE 'drop|miss|no_buf|fifo|err'",
				"ip -s -s link show dev <interface>",
				"ethtool -G <interface> rx <max>   # if rx_missed or no_buffer counters rise",
			}},
		{For: forPath,
			Text:     "Measure the path outside the tunnel, with packets of ESP's size; loss that depends on size points to MTU.",
			Commands: []string{fmt.Sprintf("mtr --report --report-cycles 100 --psize 1400 %s", address(sa))}},
		{For: forStrongSwan, Text: "Nothing in the IKE configuration mends a lossy path. Where only large packets are lost, let the ends send smaller ones.",
			Commands: []string{"nft add rule inet <table> forward tcp flags syn tcp option maxseg size set rt mtu"}},
		{For: forPeer, Text: "The same figures from the other end tell the sender's own drops from the path's: record there and compare."},
	}
}

func sourceOf(sa *ledger.SA) string {
	if sa.XfrmFrom == ledger.FromStack {
		return "stack hooks"
	}
	return "SA database"
}
