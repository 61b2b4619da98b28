// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

// An SA without extended sequence numbers has 2^32 of them, and must not send on when they are used up
// (RFC 4303 section 3.3.3).
const (
	SequenceExhausted       ID = "sequence-exhausted"
	SequenceExhaustionAhead ID = "sequence-exhaustion-ahead"
)

const (
	sequenceLast = 1<<32 - 1
	// An hour is the usual time between rekeys, five minutes leave no time for anything.
	exhaustionNear = time.Hour
	exhaustionNext = 5 * time.Minute
	// usedMost of the numbers are worth a word even if nothing flows at the moment.
	usedMost = sequenceLast / 10 * 9
)

func sequenceExhausted(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		n := sa.Xfrm[ledger.OutSeqError]
		if n == 0 {
			continue
		}
		then, severity := afterwards(r, sa)
		if then == "" {
			severity = Critical
		}
		base := witnessed
		if r.Kernel.Reconciled != nil && *r.Kernel.Reconciled {
			base = corroborated
		}
		out = append(out, Finding{
			ID: SequenceExhausted, Severity: severity, Confidence: sure(base, blurred(r)), Subject: about(sa),
			Summary: strings.TrimSpace(fmt.Sprintf("SA %s to %s has used up its sequence numbers and sends no more: %s were refused. %s",
				sa.SPI, sa.Dst, packets(n), then)),
			Evidence: []Evidence{
				{"xfrm.out_seq_error", n, "packets", sourceOf(sa), "XfrmOutStateSeqError"},
				{"sa.oseq", int64(sa.OSeq), "numbers", "SA database", "last number used"},
			},
			Remedy: exhaustionRemedies(),
		})
	}
	return append(out, exhaustedSomewhere(r)...)
}

// exhaustedSomewhere falls back on the kernel's total where no hook names the SA.
func exhaustedSomewhere(r *ledger.Report) []Finding {
	n, source := r.Kernel.WithoutSA[ledger.OutSeqError], "stack hooks"
	if r.Kernel.WithoutSA == nil {
		n, source = r.Kernel.XfrmStat["XfrmOutStateSeqError"], "/proc/net/xfrm_stat"
	}
	if n == 0 {
		return nil
	}
	return []Finding{{
		ID: SequenceExhausted, Severity: Critical, Confidence: sure(counted),
		Summary:  fmt.Sprintf("%s were refused, because an SA has used up its sequence numbers; which one is not known.", packets(n)),
		Evidence: []Evidence{{"XfrmOutStateSeqError", n, "packets", source, ""}},
		Remedy:   exhaustionRemedies(),
	}}
}

func sequenceExhaustionAhead(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		used, rate := consumption(r, sa)
		// An SA that counts its packets, or that must go earlier for its age, is renewed in time.
		if sa.State != ledger.Alive || sa.ESN == nil || *sa.ESN || sa.Proto == ledger.IPComp || used == 0 || used > sequenceLast ||
			sa.Xfrm[ledger.OutSeqError] > 0 || sa.Lifetimes != nil && sa.Lifetimes.SoftPackets > 0 {
			continue
		}
		left := sequenceLast - used
		var remaining time.Duration
		if rate > 0 && float64(left)/rate < exhaustionNear.Seconds() {
			remaining = time.Duration(float64(left) / rate * float64(time.Second))
		} else if used < usedMost {
			continue
		}
		if limit := renewal(r, sa); limit > 0 && (remaining == 0 || limit < remaining) {
			continue
		}
		f := Finding{
			ID: SequenceExhaustionAhead, Severity: Warning, Confidence: sure(witnessed, restarted(sa)), Subject: about(sa),
			Evidence: []Evidence{
				{"sequence_numbers_used", int64(used), "numbers", "SA database and wire", "of 4,294,967,295"},
				{"rate", int64(rate), "packets/s", "SA database and wire", "mean of this run"},
			},
			Remedy: exhaustionRemedies(),
		}
		when := "Nothing flows at the moment."
		if rate > 0 && remaining == 0 {
			when = "At the rate of this run that is more than an hour."
		}
		if remaining > 0 {
			when = fmt.Sprintf("At the rate of this run, %.0f packets per second, they last for %s.", rate, remaining.Round(time.Second))
			if remaining < exhaustionNext {
				f.Severity = Critical
			}
			f.Evidence = append(f.Evidence, Evidence{"time_left", int64(remaining / time.Second), "s", "forecast", "left / rate"})
		}
		f.Summary = fmt.Sprintf("SA %s %s -> %s has no extended sequence numbers and %d of 2^32 left. %s Then it must stop (RFC 4303 section 3.3.3), and nothing that the kernel knows of renews it before.",
			sa.SPI, sa.Src, sa.Dst, left, when)
		out = append(out, f)
	}
	return out
}

// consumption is how many numbers an SA has used, and how many a second it uses.
func consumption(r *ledger.Report, sa *ledger.SA) (used uint64, rate float64) {
	if r.Source.DurationS <= 0 {
		return 0, 0
	}
	moved := int64(0)
	if sa.Direction == ledger.Out {
		used = sa.OSeq
		if sa.Own != nil {
			moved = sa.Own.OSeq
		}
	} else {
		used = sa.Seq
		if w := sa.Sequence(); w != nil {
			used = max(used, w.HighestSeq)
			moved = w.Unique + w.Missing - leaptOver(r, sa) // what a standby skips is not used up by sending
		} else if sa.Own != nil {
			moved = sa.Own.Packets
		}
	}
	return used, max(0, float64(moved)/r.Source.DurationS)
}

// renewal is how long until the kernel asks for a successor because of the SA's age; 0: it will not.
func renewal(r *ledger.Report, sa *ledger.SA) time.Duration {
	if sa.Lifetimes == nil || sa.Lifetimes.SoftAddS == 0 || sa.Added == nil || sa.SoftExpired != nil {
		return 0
	}
	return max(1, sa.Added.Add(time.Duration(sa.Lifetimes.SoftAddS)*time.Second).Sub(endOf(r)))
}

func exhaustionRemedies() []Remedy {
	return []Remedy{
		{For: forStrongSwan, Text: "Negotiate extended sequence numbers, or rekey by packets well before 2^32. Then set the child SA up anew.",
			Commands: []string{
				"connections.<conn>.children.<child>.esp_proposals = aes256gcm16-x25519-esn",
				"connections.<conn>.children.<child>.rekey_packets = 4000000000",
				"swanctl --load-conns && swanctl --rekey --child <child>",
			}},
		{For: forLibreswan, Text: "The same with its own names.", Commands: []string{"esn=yes", "ipsec-max-packets=2^32", "ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
		{For: forIproute2, Text: "SAs keyed by hand: add new ones in time, with ESN on both ends.",
			Commands: []string{"ip xfrm state add … replay-window 64 flag esn"}},
		{For: forPeer, Text: "Extended sequence numbers need both ends. Without them let the peer renew by volume or time, early enough for the rate.",
			Commands: []string{
				"crypto ipsec security-association lifetime kilobytes 100000000   (Cisco)",
				"New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AESGCM256 -ESPHash AESGMAC256 -MaxKiloBytes 100000000   (Windows)",
			}},
	}
}
