// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// reorderEvidence lists the figures behind a finding on late packets.
func reorderEvidence(sa *ledger.SA, l lateness, cause ledger.Cause, own string, ownValue int64) []Evidence {
	e := []Evidence{}
	if sa.XfrmFrom == ledger.FromStack {
		e = append(e, Evidence{"xfrm." + string(cause), l.dropped, "packets", "stack hooks", ""})
	}
	if sa.Own != nil {
		e = append(e, Evidence{own, ownValue, "packets", "SA database", ""})
	}
	if l.repeated > 0 {
		e = append(e, Evidence{"wire.duplicates", sa.Wire.Duplicates, "packets", "wire",
			fmt.Sprintf("%d of the late drops are repetitions of packets already received", l.repeated)})
	}
	if sa.Sequence() != nil {
		e = append(e,
			Evidence{"wire.late", sa.Wire.Late, "packets", "wire", ""},
			Evidence{"wire.displacement_max", sa.Wire.DisplacementMax, "numbers", "wire",
				fmt.Sprintf("reorder extent up to %d packets (RFC 4737)", sa.Wire.ReorderExtentMax)})
	}
	if sa.XfrmFrom == ledger.FromStack {
		e = append(e, Evidence{"xfrm_late_max", sa.XfrmLateMax, "numbers", "stack hooks", ""})
	}
	e = append(e, whoReorders(sa, l).evidence...)
	return append(e, Evidence{"replay_window", windowOf(sa), "numbers", "SA database", ""})
}

// reorderAdvice says which window would have lost nothing, and how to get it.
func reorderAdvice(sa *ledger.SA, l lateness) (sentence string, remedy []Remedy) {
	if l.distance < windowOf(sa) {
		guess := min(max(1024, 2*windowOf(sa)), maxWindow)
		return "How late they came was not observed.", append(windowRemedies(sa, guess), Remedy{
			For:  forHost,
			Text: fmt.Sprintf("No vantage point measured the distance, so %d is a guess. ", guess) + windowCost(guess),
		})
	}
	need, advised := l.windowNeeded(), l.windowAdvised()
	if advised == 0 {
		culprit := whoReorders(sa, l)
		sentence = fmt.Sprintf("A window of %d would have lost nothing, and Linux has none above %d.", need, maxWindow)
		if culprit.sentence != "" {
			sentence = culprit.sentence + " " + sentence
		}
		return sentence, append([]Remedy{pathInsteadOfWindow(need)}, culprit.remedy...)
	}
	sentence = fmt.Sprintf("A window of %d would have lost nothing; set %d.", need, advised)
	culprit := whoReorders(sa, l)
	if culprit.sentence != "" {
		sentence = culprit.sentence + " " + sentence
	}
	remedy = append(windowRemedies(sa, advised), Remedy{For: forHost, Text: windowCost(advised)})
	remedy = append(remedy, culprit.remedy...)
	return sentence, append(remedy, Remedy{
		For: forPeer,
		Text: "Nothing to change there for this direction: the window is the receiver's. For the other one, Cisco IOS " +
			"takes up to 1024; Windows documents no setting.",
		Commands: []string{"crypto ipsec security-association replay window-size 1024"},
	})
}

// lossSeverity grades a share of packets lost: from 1 % on TCP collapses. A handful proves no rate.
func lossSeverity(lost, of int64) Severity {
	if lost >= 10 && lost*100 >= of {
		return Critical
	}
	return Warning
}

// share writes a part of a whole for people.
func share(part, whole int64) string {
	if whole <= 0 {
		return "share unknown"
	}
	p := 100 * float64(part) / float64(whole)
	switch {
	case p >= 1:
		return fmt.Sprintf("%.1f %%", p)
	case p >= 0.01:
		return fmt.Sprintf("%.2f %%", p)
	}
	return fmt.Sprintf("%.2g %%", p)
}

// who names an SA in a sentence.
func who(sa *ledger.SA) string {
	if !sa.Src.IsValid() {
		return fmt.Sprintf("SA %s to %s", sa.SPI, sa.Dst)
	}
	return fmt.Sprintf("SA %s from %s", sa.SPI, sa.Src)
}

func arrivals(sa *ledger.SA) int64 {
	if sa.Wire == nil {
		if sa.Own != nil {
			return sa.Own.Packets
		}
		return 0
	}
	return sa.Wire.Packets
}

// packets writes a number of packets with its noun.
func packets(n int64) string {
	if n == 1 {
		return "1 packet"
	}
	return fmt.Sprintf("%d packets", n)
}
