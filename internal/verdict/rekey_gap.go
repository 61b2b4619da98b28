// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"time"

	"xfrmscope/internal/ledger"
)

// RekeyGap is packets that found no SA because one took over from another: the old one went too early, or
// the new one came too late.
const RekeyGap ID = "rekey-gap"

func rekeyGap(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.Rekeys {
		k := &r.Rekeys[i]
		// An SA that reached its hard limit is a matter of sa-expired.
		if k.OldRefused > 0 && k.Why != ledger.EndExpired {
			out = append(out, gapOf(r, k, k.Old, k.OldRefused))
		}
		if k.NewRefused > 0 {
			out = append(out, gapOf(r, k, k.New, k.NewRefused))
		}
	}
	return append(out, brokenFirst(r)...)
}

// busyBefore is how long before its end an SA must have carried something to have been needed.
const busyBefore = 5 * time.Second

// brokenFirst is a rekey that broke before it made: for a time no outbound SA was there, and packets that
// wanted to leave found none. The kernel counts those for the whole host, so there must be one such rekey.
// An SA that was idle when it ended had done its work, and the next one came on demand.
func brokenFirst(r *ledger.Report) []Finding {
	n := r.Kernel.WithoutSA[ledger.OutNoStates] + r.Kernel.WithoutSA[ledger.OutBundleGenError]
	var found *ledger.Rekey
	for i := range r.Rekeys {
		if k := &r.Rekeys[i]; k.Direction == ledger.Out && k.OverlapS < 0 && k.Why != ledger.EndExpired &&
			k.OldLast != nil && k.Ended != nil && k.Ended.Sub(*k.OldLast) < busyBefore {
			if found != nil {
				return nil
			}
			found = k
		}
	}
	if n == 0 || found == nil {
		return nil
	}
	f := gapOf(r, found, found.New, n)
	f.Confidence = sure(counted, blurred(r))
	f.Evidence[0] = Evidence{"kernel.without_sa", n, "packets", "stack hooks", "wanted to leave and found no SA, on the whole host"}
	f.Summary = fmt.Sprintf("Rekeying from %s to %s, %s -> %s, broke before it made: for %.2f s there was no outbound SA, and %s that wanted to leave found none.",
		found.Old, found.New, found.Src, found.Dst, -found.OverlapS, packets(n))
	return []Finding{f}
}

// gapOf draws up the finding for the SA whose packets were refused.
func gapOf(r *ledger.Report, k *ledger.Rekey, spi ledger.SPI, n int64) Finding {
	f := Finding{
		ID: RekeyGap, Severity: Warning, Confidence: sure(witnessed, blurred(r)), Subject: subjectOf(r, k, spi),
		Evidence: []Evidence{{"rekeys.refused", n, "packets", "stack hooks", "of SPI " + spi.String() + ", while this host had no such SA"}},
		Remedy: []Remedy{
			{For: forStrongSwan,
				Text: "The end that deletes the old inbound SA should let it live on while packets are under way; 5 seconds are the default.",
				Commands: []string{
					"charon.delete_rekeyed_delay = 10   # strongswan.conf",
					"connections.<conn>.reauth_time = 0   # rekey instead: authenticating anew breaks before it makes, unless make_before_break",
					"charon.make_before_break = yes",
				}},
			{For: forLibreswan, Text: "Keep the margin wide, so that both SAs exist for a while, and rekey rather than reauthenticate.",
				Commands: []string{"rekeymargin=9m", "rekeyfuzz=100%", "reauth=no"}},
			{For: forIproute2, Text: "By hand: add the new SAs at both ends, inbound first; then switch the senders; delete the old ones last."},
			{For: forPeer, Text: "A peer that goes on sending on the old SA has not got, or not heeded, the message that deletes it. With longer lifetimes it happens less often.",
				Commands: []string{"crypto ipsec security-association lifetime seconds 3600   (Cisco)"}},
		},
	}
	at := k.Added
	what := fmt.Sprintf("the new SA was added at %s, after the peer had begun to send on it", at.Format("15:04:05.000 MST"))
	if spi == k.Old {
		what = "the old SA was gone while the peer still sent on it"
		if k.Ended != nil {
			what = fmt.Sprintf("the old SA was %s at %s while the peer still sent on it", k.Why, k.Ended.Format("15:04:05.000 MST"))
		}
	}
	length := ""
	if k.GapS > 0 {
		length = fmt.Sprintf(" within %.2f s", k.GapS)
		f.Evidence = append(f.Evidence, Evidence{"rekeys.gap", int64(k.GapS * 1000), "ms", "wire", "time in which they came, at most; the end is sampled every 250 ms"})
	}
	if k.OverlapS != 0 {
		f.Evidence = append(f.Evidence, Evidence{"rekeys.overlap", int64(k.OverlapS * 1000), "ms", "SA database", "time in which both SAs were there; negative: neither was"})
	}
	if k.SilenceS != nil && *k.SilenceS > 0 {
		f.Evidence = append(f.Evidence, Evidence{"rekeys.silence", int64(*k.SilenceS * 1000), "ms", "wire", "from the old SA's last packet to the new one's first, to 250 ms"})
	}
	f.Summary = fmt.Sprintf("Rekeying from %s to %s, %s -> %s: %s were refused%s, because %s.",
		k.Old, k.New, k.Src, k.Dst, packets(n), length, what)
	return f
}

// subjectOf finds the SA in the report.
func subjectOf(r *ledger.Report, k *ledger.Rekey, spi ledger.SPI) Subject {
	for i := range r.SAs {
		if sa := &r.SAs[i]; sa.SPI == spi && sa.Dst == k.Dst && sa.Direction == k.Direction && sa.Proto == k.Proto {
			return about(sa)
		}
	}
	return Subject{SPI: &spi, Src: &k.Src, Dst: &k.Dst, Proto: k.Proto, Direction: k.Direction, ReqID: k.ReqID, IfID: k.IfID}
}
