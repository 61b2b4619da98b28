// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// PeerRestarted is an SA whose sender began its numbers anew: all that it sends lies below the window.
const PeerRestarted ID = "peer-restarted"

func peerRestarted(r *ledger.Report) []Finding {
	capture := r.Source.Kind == ledger.KindCapture
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		w := sa.Sequence()
		if w == nil || w.Restarts <= 0 || sa.Direction == ledger.Out || sa.State == ledger.Absent {
			continue
		}
		refused := refusedByNumber(sa)
		if refused == 0 && !capture {
			// Both ends gave the SA up and set it up again under its old SPI: nothing is refused.
			continue
		}
		base := inferred
		switch {
		case sa.XfrmFrom == ledger.FromStack && sa.Own != nil &&
			sa.Own.ReplayWindow+sa.Own.Replay+sa.Own.IntegrityFailed == refused+sa.Xfrm[ledger.IntegrityFailed]:
			base = corroborated
		case sa.XfrmFrom == ledger.FromStack:
			base = witnessed
		case sa.XfrmFrom == ledger.FromSAD:
			base = counted
		}
		forged := sa.Xfrm[ledger.IntegrityFailed] > 0 && sa.XfrmFrom == ledger.FromStack
		f := Finding{
			ID:         PeerRestarted,
			Severity:   Warning,
			Confidence: sure(base, blurred(r), w.Jumps > 0, forged),
			Subject:    about(sa),
			Summary:    fmt.Sprintf("%s: the sender's numbers began anew%s and stand at %d. %s", who(sa), atTime(w.RestartedAt), w.HighestSeq, fateOfRestart(refused)),
			Evidence: []Evidence{
				{"wire.restarts", w.Restarts, "times", "wire", "a run of consecutive low numbers while the old sequence stood still"},
				{"wire.highest_seq", int64(w.HighestSeq), "number", "wire", "of the new sequence"},
			},
			Remedy: restartRemedies(sa),
		}
		if refused > 0 {
			if refused >= 10 {
				f.Severity = Critical // and all that follow
			}
			f.Evidence = append(f.Evidence, Evidence{"refused by number", refused, "packets", sourceOf(sa),
				"replay_late, replay_duplicate, replay_unspecified and esn_mis_epoch together"})
		}
		if w.Jumps > 0 {
			f.Evidence = append(f.Evidence, Evidence{"wire.jumps", w.Jumps, "times", "wire",
				"numbers also leapt ahead: a recording that was played back would make the sender seem to return like this"})
		}
		if forged {
			f.Evidence = append(f.Evidence, Evidence{"xfrm.integrity_failed", sa.Xfrm[ledger.IntegrityFailed], "packets", sourceOf(sa),
				"not all numbers are authentic"})
		}
		out = append(out, f)
	}
	return out
}

// refusedByNumber is what xfrm refused because of its sequence number.
func refusedByNumber(sa *ledger.SA) int64 {
	mis, _ := misEpoch(sa)
	if sa.XfrmFrom == ledger.FromSAD && esn(sa) {
		// Without hooks all that fails under ESN is one figure, and low numbers fail.
		mis = sa.Xfrm[ledger.IntegrityFailed]
	}
	return sa.Xfrm[ledger.ReplayLate] + sa.Xfrm[ledger.ReplayDuplicate] + sa.Xfrm[ledger.ReplayUnspecified] + mis
}

func fateOfRestart(refused int64) string {
	if refused == 0 {
		return "A receiver with replay protection refuses all that follows, until a new SA is set up."
	}
	return fmt.Sprintf("xfrm refused %s by their numbers and refuses all that follow, until a new SA is set up. "+
		"This is a restart or a fail-over of the peer with old counters, not an attack, and no window mends it.", packets(refused))
}

func restartRemedies(sa *ledger.SA) []Remedy {
	return []Remedy{
		{For: forStrongSwan,
			Text: "Set the SA up anew; a daemon that restarts and sends INITIAL_CONTACT makes its peer delete the old SAs by itself " +
				"unless that is told never to. In a pair with the ha plugin the kernels have to keep the numbers of both members in step; where they " +
				"do not, let the survivor set up new SAs.",
			Commands: []string{
				"swanctl --terminate --ike <conn> && swanctl --initiate --child <child>",
				"connections.<conn>.unique = replace",
			}},
		{For: forLibreswan, Text: "Set the connection up anew.",
			Commands: []string{"ipsec auto --down <conn> && ipsec auto --up <conn>", "initial-contact=yes   # on the peer"}},
		{For: forIproute2,
			Text: "An SA with manual keys must not be added again with the same key: numbers and with AES-GCM the IVs repeat, which gives the " +
				"keystream away (RFC 4106 section 3). Take a new SPI and a new key on both ends. Where counters are carried over by hand, " +
				"add the SA with an outbound number well ahead of the last one.",
			Commands: []string{
				fmt.Sprintf("ip xfrm state delete dst %s proto %s spi %s", sa.Dst, sa.Proto, sa.SPI),
				"ip xfrm state add … spi <new> aead 'rfc4106(gcm(aes))' <new key> 128 replay-window 64",
				"ip xfrm state add … replay-oseq <last + 1000000>   # on the standby that takes over",
			}},
		{For: forPeer,
			Text: "On a high-availability pair, switch on stateful IPsec fail-over or let the survivor delete its SAs and negotiate new ones. " +
				"Cisco ASA replicates SAs with its counters and jumps ahead; on IOS clear them after a fail-over. Windows: restart the IKEEXT service.",
			Commands: []string{"clear crypto sa peer <this gateway>"}},
	}
}
