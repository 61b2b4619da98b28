// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// InnerRetransmissions is TCP inside an SA that has to be sent again: somewhere between the ends
// packets are lost.
const InnerRetransmissions ID = "inner-retransmissions"

// A handful of repeated segments proves nothing; from 1 % on TCP slows down.
const (
	repeatedLeast   = 10
	repeatedPercent = 1
)

func innerRetransmissions(r *ledger.Report) []Finding {
	var out []Finding
	for _, group := range groups(talks(r), func(t talk) ledger.SAKey { return t.sender.SA.Key() }) {
		segments := total(group, func(t talk) int64 { return t.sender.Segments })
		repeated := total(group, func(t talk) int64 { return t.sender.Retransmissions })
		if repeated < repeatedLeast || repeated*100 < segments*repeatedPercent {
			continue
		}
		// That is how path MTU discovery works, and nothing is wrong when it does.
		if repeated-spentOnDiscovery(r, group[0].sender.SA.Key()) < repeatedLeast {
			continue
		}
		// A number that was skipped here and sent again was lost before it came here; one that had
		// passed was lost behind, or its acknowledgement was.
		before := total(group, func(t talk) int64 { return missedHere(t.sender) })
		t := worst(group, func(t talk) int64 { return t.sender.Retransmissions })
		zero := total(group, func(t talk) int64 { return t.reader.Zero.TotalUS })
		window := "No receiver closed its window, so it is loss and no slow reader."
		if zero > 0 {
			window = fmt.Sprintf("Receivers had their windows closed for %s besides.", seconds(zero))
		}
		out = append(out, Finding{
			ID: InnerRetransmissions, Severity: Warning, Subject: t.subject(),
			Confidence: sure(witnessed, blurred(r), missed(r)),
			Summary: fmt.Sprintf("%s: the senders inside it repeated %d of %d segments (%s). %s %s",
				t.saName(), repeated, segments, share(repeated, segments), lostWhere(t, before, repeated-before), window),
			Evidence: []Evidence{
				{"flows.retransmissions", repeated, "segments", fromInner, fmt.Sprintf("of %d, in %s", segments, connections(int(total(group, sends))))},
				{"flows.skipped", total(group, func(t talk) int64 { return t.sender.Skipped }), "segments", fromInner,
					fmt.Sprintf("did not come in their turn, in %d gaps: lost or late before they came here", total(group, func(t talk) int64 { return t.sender.Gaps }))},
				{"flows.reordered", total(group, func(t talk) int64 { return t.sender.Reordered }), "segments", fromInner,
					"only overtaken; not counted as repeated"},
				{"flows.zero_window.total", zero / 1000, "ms", fromInner, "of all receivers together"},
			},
			Remedy: repeatRemedies(t, before, repeated-before),
		})
	}
	return out
}

// missedHere is how many of the repeated segments had not passed before: what was skipped and did not come late.
func missedHere(e *ledger.FlowEnd) int64 {
	return min(e.Retransmissions, max(0, e.Skipped-e.Reordered))
}

// sends is 1 for a talk in which there is something to repeat.
func sends(t talk) int64 { return min(1, t.sender.Segments) }

// lostWhere says on which side of this gateway the originals were lost.
func lostWhere(t talk, before, behind int64) string {
	lost, known := t.losses()
	switch {
	case t.inbound() && before >= behind && known && lost == 0:
		return fmt.Sprintf("%d had not come out of the tunnel before, and the SA itself lost nothing: they were lost before the peer encrypted them.", before)
	case t.inbound() && before >= behind:
		return fmt.Sprintf("%d had not come out of the tunnel before: they were lost on the way here.", before)
	case t.inbound():
		return fmt.Sprintf("%d had come out of the tunnel here already: they, or their acknowledgements, were lost on this side or on the way back.", behind)
	case before >= behind:
		return fmt.Sprintf("%d had not reached this gateway before: they were lost on its own side.", before)
	}
	return fmt.Sprintf("%d had gone into the tunnel here already: they, or their acknowledgements, were lost behind it, where only the other end can see.", behind)
}

func repeatRemedies(t talk, before, behind int64) []Remedy {
	here := Remedy{For: forHost, Text: "Look for drops between this gateway and the hosts behind it.",
		Commands: []string{"ip -s -s link show", "tc -s qdisc show", "xfrmscope diagnose   # on this gateway's other side, if it has a tunnel there"}}
	there := Remedy{For: forPath, Text: "Run the same at the other end of the tunnel: what it received against what was sent here tells the path " +
		"from the hosts behind it. Loss of large packets only is an MTU problem.",
		Commands: []string{
			"xfrmscope diagnose --json > here.json   # and at the other end",
			fmt.Sprintf("ping -M do -s 1372 -c 20 %s   # through the tunnel; with -s 500 beside it", t.reader.Addr),
		}}
	if t.inbound() == (before >= behind) {
		return []Remedy{there, here, untouchedBy()}
	}
	return []Remedy{here, there, untouchedBy()}
}

func untouchedBy() Remedy {
	return Remedy{For: forPeer, Text: "The same counts there: interface drops (show interfaces; Get-NetAdapterStatistics) and IPsec's own (show crypto ipsec sa; " +
		"Get-NetIPsecQuickModeSA).",
		Commands: []string{"show crypto ipsec sa detail | include errors|drops", "Get-NetAdapterStatistics | Format-List *Discard*,*Error*"}}
}
