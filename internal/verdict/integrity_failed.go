// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// IntegrityFailed is packets whose integrity check value does not match and that were not just late.
const IntegrityFailed ID = "integrity-failed"

func integrityFailed(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction != ledger.In {
			continue
		}
		failed := sa.Xfrm[ledger.IntegrityFailed]
		mis, seen := misEpoch(sa)
		if !seen {
			failed -= mis
		}
		if failed <= 0 {
			continue
		}
		base := counted
		switch {
		case ledger.IntegrityUntold(r.Hooks):
		case sa.XfrmFrom == ledger.FromStack && sa.Own != nil && sa.Own.IntegrityFailed == failed+mis:
			base = corroborated
		case sa.XfrmFrom == ledger.FromStack:
			base = witnessed
		case esn(sa):
			base = inferred
		}
		all := sa.Own != nil && sa.Own.Packets == 0
		f := Finding{
			ID:         IntegrityFailed,
			Severity:   Warning,
			Confidence: sure(base, blurred(r)),
			Subject:    about(sa),
			Evidence: []Evidence{
				{"xfrm.integrity_failed", failed, "packets", sourceOf(sa), ""},
			},
		}
		if sa.Own != nil {
			f.Evidence = append(f.Evidence,
				Evidence{"stats.integrity_failed", sa.Own.IntegrityFailed, "packets", "SA database", ""},
				Evidence{"curlft.packets", sa.Own.Packets, "packets", "SA database", "decapsulated meanwhile"})
		}
		if all {
			f.Severity = Critical
			f.Summary = fmt.Sprintf("%s: all %s failed the integrity check, none passed: the ends do not agree on key, algorithm, truncation or upper sequence bits.",
				who(sa), packets(failed))
			f.Remedy = mismatchRemedies(sa)
		} else {
			f.Severity = lossSeverity(failed, arrivals(sa))
			f.Summary = fmt.Sprintf("%s: %s (%s of arrivals) failed the integrity check while others passed: damaged on the way, or forged.",
				who(sa), packets(failed), share(failed, arrivals(sa)))
			f.Remedy = damageRemedies(sa)
		}
		out = append(out, f)
	}
	return out
}

func mismatchRemedies(sa *ledger.SA) []Remedy {
	return []Remedy{
		{For: forStrongSwan, Text: "Negotiate new keys. With HMAC-SHA-256 and an old peer the truncation may differ (96 instead of 128 bits).",
			Commands: []string{
				"swanctl --rekey --child <child>",
				"connections.<conn>.children.<child>.sha256_96 = yes   # old peers only; then set the child SA up anew",
			}},
		{For: forLibreswan, Text: "Negotiate new keys; the same truncation has a setting here too.",
			Commands: []string{"ipsec auto --down <conn> && ipsec auto --up <conn>", "sha2-truncbug=yes   # old peers only"}},
		{For: forIproute2, Text: "For SAs keyed by hand compare algorithm, key, truncation length and flag esn of both ends, without printing keys into a ticket: " +
			"compare hashes.",
			Commands: []string{fmt.Sprintf("ip xfrm state get src %s dst %s proto %s spi %s | grep -E 'aead|auth|enc ' | sha256sum", address(sa), sa.Dst, sa.Proto, sa.SPI)}},
		{For: forPeer, Text: "Clear the SA on the far side so that both ends negotiate anew.",
			Commands: []string{"clear crypto sa peer <address>   (Cisco)", "Get-NetIPsecQuickModeSA | Remove-NetIPsecQuickModeSA   (Windows)"}},
	}
}

func damageRemedies(sa *ledger.SA) []Remedy {
	return []Remedy{
		{For: forHost, Text: "Rule out this host's card: see its error counters, and whether the failures stop without receive offloads.",
			Commands: []string{"ethtool -S <interface> | grep -iE 'crc|err|csum'", "ethtool -K <interface> gro off lro off"}},
		{For: forPath, Text: "Something on the way alters packets: a middlebox that rewrites, faulty memory in a router, or an off-path sender that guesses SPIs. " +
			"Compare TTL and DSCP of the failing packets with those that pass.",
			Commands: []string{fmt.Sprintf("tcpdump -nv -i <interface> 'src %s and (esp or udp port 4500)'", address(sa))}},
		{For: forStrongSwan, Text: "Nothing to configure: the packets are refused rightly."},
		{For: forPeer, Text: "If the far side has crypto hardware, switch it off for a test: a faulty engine fails the same way."},
	}
}
