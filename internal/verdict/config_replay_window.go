// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// ConfigReplayWindow is a replay window that spans less than what may be reordered at the SA's rate.
const ConfigReplayWindow ID = "config-replay-window"

// Disorder of 10 ms is what links of unequal delay or a busy CPU make. Below rateJudged a window of
// the usual size spans that by far, and a short run's rate says little.
const (
	disorderPerSecond = 100 // 1 s / 10 ms
	rateJudged        = 10000
)

func configReplayWindow(r *ledger.Report) []Finding {
	if r.Source.DurationS <= 0 {
		return nil
	}
	var out []Finding
	for _, sa := range alive(r) {
		w := sa.Sequence()
		if sa.Direction != ledger.In || w == nil || windowOf(sa) <= 0 {
			continue
		}
		rate := int64(float64(w.Packets) / r.Source.DurationS)
		late := sa.Xfrm[ledger.ReplayLate] + sa.Xfrm[ledger.ESNMisEpoch]
		need := rate / disorderPerSecond
		if rate < rateJudged || need <= windowOf(sa) || late > 0 {
			continue // packets that were lost to it have a finding of their own
		}
		advised := int64(64)
		for advised < need && advised < maxWindow {
			advised *= 2
		}
		out = append(out, Finding{
			ID: ConfigReplayWindow, Severity: Info, Confidence: sure(configured), Subject: about(sa),
			Summary: fmt.Sprintf("%s: a replay window of %d is %.1f ms at %d packets/s; packets that are reordered by more than that are dropped. None was so far; %d spans 10 ms.",
				who(sa), windowOf(sa), 1000*float64(windowOf(sa))/float64(rate), rate, advised),
			Evidence: []Evidence{
				{"sas.replay_window", windowOf(sa), "packets", "SA database", ""},
				{"wire.packets per second", rate, "packets/s", "wire", "on average over the run"},
			},
			Remedy: windowRemedies(sa, advised),
		})
	}
	return out
}
