// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// ReplayWindowZero is an inbound SA without replay protection.
const ReplayWindowZero ID = "replay-window-zero"

func replayWindowZero(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction != ledger.In || sa.State != ledger.Alive || sa.ReplayWindow == nil || *sa.ReplayWindow != 0 ||
			(sa.Proto != ledger.ESP && sa.Proto != ledger.AH) {
			continue
		}
		f := Finding{
			ID: ReplayWindowZero, Severity: Info, Confidence: sure(corroborated), Subject: about(sa),
			Summary: fmt.Sprintf("%s has no replay protection: the kernel tracks no sequence numbers for it and would deliver a repeated packet again.",
				who(sa)),
			Evidence: []Evidence{{"replay_window", 0, "numbers", "SA database", ""}},
			Remedy: append(windowRemedies(sa, 128), Remedy{For: forHost,
				Text: "Where it was switched off for speed or for reordering, a window wide enough serves both. " + windowCost(1024)}),
		}
		if w := sa.Sequence(); w != nil && w.Duplicates > 0 {
			f.Severity = Warning
			f.Summary += fmt.Sprintf(" %s came twice on the wire during the run.", packets(w.Duplicates))
			f.Evidence = append(f.Evidence, Evidence{"wire.duplicates", w.Duplicates, "packets", "wire", ""})
		}
		out = append(out, f)
	}
	return out
}
