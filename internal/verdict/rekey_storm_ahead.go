// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// RekeyStormAhead is many SAs whose soft limits fall together.
const RekeyStormAhead ID = "rekey-storm-ahead"

// A rekey costs each end a Diffie-Hellman exchange and a few messages. Twenty within a minute are
// worth knowing of; a hundred are more than one every 600 ms.
const (
	stormWindow  = time.Minute
	stormMin     = 20
	stormMany    = 100
	stormHorizon = 24 * time.Hour
)

func rekeyStormAhead(r *ledger.Report) []Finding {
	now := endOf(r)
	due := map[tunnelEnds]time.Time{}
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.State != ledger.Alive || sa.Added == nil || sa.Lifetimes == nil || sa.Lifetimes.SoftAddS == 0 || sa.SoftExpired != nil {
			continue
		}
		at := sa.Added.Add(time.Duration(sa.Lifetimes.SoftAddS) * time.Second)
		if at.Before(now) || at.Sub(now) > stormHorizon {
			continue
		}
		// A tunnel is renewed as a whole, by whichever SA is due first.
		if first, ok := due[endsOf(sa)]; !ok || at.Before(first) {
			due[endsOf(sa)] = at
		}
	}
	times := make([]time.Time, 0, len(due))
	for _, at := range due {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	most, from := 0, time.Time{}
	for i, j := 0, 0; j < len(times); j++ {
		for times[j].Sub(times[i]) >= stormWindow {
			i++
		}
		if n := j - i + 1; n > most {
			most, from = n, times[i]
		}
	}
	if most < stormMin {
		return nil
	}
	severity := Info
	if most >= stormMany {
		severity = Warning
	}
	in := from.Sub(now).Round(time.Second)
	return []Finding{{
		ID: RekeyStormAhead, Severity: severity, Confidence: sure(witnessed),
		Summary: fmt.Sprintf("%d tunnels of %d with a time limit are due to be renewed within one minute, from %s on (in %s).",
			most, len(times), from.Format("15:04:05 MST"), in),
		Evidence: []Evidence{
			{"tunnels_due_together", int64(most), "tunnels", "SA database", "soft limits (added + soft_add_s) within 60 s"},
			{"tunnels_with_limit", int64(len(times)), "tunnels", "SA database", "with a soft limit within the next day"},
			{"time_left", int64(in / time.Second), "s", "SA database", "until the first of them"},
		},
		Remedy: []Remedy{
			{For: forStrongSwan, Text: "Spread them: each SA's rekey time is shortened by a random part of rand_time, which is the difference between life_time and rekey_time by default. " +
				"Renew some by hand now, and they stay apart.",
				Commands: []string{
					"connections.<conn>.children.<child>.rekey_time = 1h",
					"connections.<conn>.children.<child>.life_time = 90m",
					"connections.<conn>.children.<child>.rand_time = 30m",
					"connections.<conn>.over_time = 20m   # IKE SA: hard limit after rekey_time",
					"swanctl --rekey --child <child>",
				}},
			{For: forLibreswan, Text: "The same with its own names.", Commands: []string{"salifetime=8h", "rekeymargin=30m", "rekeyfuzz=100%"}},
			{For: forPeer, Text: "Only one end has to spread: whoever is due first renews. Windows and Cisco peers can be given a longer lifetime than this end.",
				Commands: []string{"crypto ipsec security-association lifetime seconds 28800   (Cisco)"}},
		},
	}}
}
