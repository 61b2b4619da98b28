// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

// How much of IKE is shown; JSON holds all of it.
const (
	ikePeersMax = 20
	ikeTimesMax = 30
)

// ike writes what was seen of IKE, a peer at a time, and what happened when.
func (p *printer) ike(d *Document) {
	if d.IKE == nil && len(d.Rekeys) == 0 {
		return
	}
	if d.IKE != nil {
		p.ikeHead(d.IKE)
		for i := range d.IKE.Peers {
			if i == ikePeersMax {
				p.line("  … and %d more peers (--json lists them all)", len(d.IKE.Peers)-i)
				break
			}
			p.ikePeer(d.IKE, &d.IKE.Peers[i])
		}
	} else {
		p.line("Rekeys")
	}
	p.timeLine(d)
	p.line("")
}

func (p *printer) ikeHead(r *ledger.IKE) {
	switch {
	case r.Messages == 0 && r.Lost == 0:
		p.line("IKE: no messages seen")
	case r.Lost > 0:
		p.line("IKE, %s messages; %s more were lost before they were read", group(r.Messages), group(r.Lost))
	default:
		p.line("IKE, %s messages", group(r.Messages))
	}
}

func (p *printer) ikePeer(r *ledger.IKE, peer *ledger.IKEPeer) {
	var names []string
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Connection != "" && sa.Remote.Addr() == peer.Remote.Addr() && sa.Local.Addr() == peer.Local.Addr() &&
			!slices.Contains(names, sa.Connection) {
			names = append(names, sa.Connection)
		}
	}
	text := fmt.Sprintf("%s <-> %s: sent %s, received %s, IKE SAs: %s", peer.Local, peer.Remote, group(peer.Sent), group(peer.Received), group(peer.IKESAs))
	if len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	if peer.Transit {
		text += ", passing through"
	}
	p.wrap("  ", "      ", text)
	for i := range peer.Exchanges {
		x := &peer.Exchanges[i]
		parts := []string{fmt.Sprintf("answered %s", group(x.Answered))}
		for _, c := range []struct {
			name string
			n    int64
		}{
			{"UNANSWERED", x.Unanswered}, {"answered unseen", x.AnsweredUnseen}, {"open", x.Open},
			{"requests repeated", x.Repeats}, {"responses repeated", x.Reanswers},
		} {
			if c.n != 0 {
				parts = append(parts, c.name+" "+group(c.n))
			}
		}
		if x.RTT.Samples > 0 {
			parts = append(parts, fmt.Sprintf("round trip %.1f / %.1f / %.1f ms", x.RTT.MinMS, x.RTT.AvgMS, x.RTT.MaxMS))
		}
		p.wrap("    ", "        ", fmt.Sprintf("%s asked by the %s end: %s; %s", x.Exchange, x.Requester, group(x.Count), strings.Join(parts, ", ")))
	}
}

// happening is one line of the time line.
type happening struct {
	at   time.Time
	text string
}

// timeLine writes what set up, renewed and ended SAs, in the order in which it happened.
func (p *printer) timeLine(d *Document) {
	all := happenings(d)
	if len(all) == 0 {
		return
	}
	p.line("  Time line")
	for i, h := range all {
		if i == ikeTimesMax {
			p.line("    … and %d more events (--json lists them all)", len(all)-i)
			break
		}
		p.wrap("    "+h.at.Format("15:04:05.000")+"  ", strings.Repeat(" ", 18), h.text)
	}
}

func happenings(d *Document) []happening {
	var all []happening
	add := func(at time.Time, format string, args ...any) {
		all = append(all, happening{at, fmt.Sprintf(format, args...)})
	}
	if d.IKE != nil {
		for i := range d.IKE.Notable {
			x := &d.IKE.Notable[i]
			add(x.At, "%s asked by the %s end, %s", x.Exchange, x.Requester, outcome(x))
		}
	}
	for i := range d.SAs {
		if sa := &d.SAs[i]; sa.SoftExpired != nil {
			add(*sa.SoftExpired, "SA %s %s reached its soft limit and asked for a successor", sa.SPI, sa.Direction)
		}
	}
	for i := range d.Rekeys {
		k := &d.Rekeys[i]
		add(k.Added, "SA %s %s added; it renews %s", k.New, k.Direction, k.Old)
		if k.NewFirst != nil {
			silence := ""
			if k.SilenceS != nil && *k.SilenceS > 0 {
				silence = fmt.Sprintf(", %.2f s after the last one of %s (to 0.25 s)", *k.SilenceS, k.Old)
			}
			add(*k.NewFirst, "SA %s %s carries its first packet%s", k.New, k.Direction, silence)
		}
		if k.Ended != nil {
			refused := ""
			if k.OldRefused > 0 {
				refused = fmt.Sprintf("; %s packets came for it afterwards", group(k.OldRefused))
			}
			add(*k.Ended, "SA %s %s %s%s%s", k.Old, k.Direction, k.Why, overlap(k), refused)
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return a.at.Compare(b.at) })
	return all
}

func overlap(k *ledger.Rekey) string {
	switch {
	case k.OverlapS > 0:
		return fmt.Sprintf(", %.3f s after its successor came", k.OverlapS)
	case k.OverlapS < 0:
		return fmt.Sprintf(", %.3f s before its successor came", -k.OverlapS)
	}
	return ""
}

func outcome(x *ledger.IKEExchange) string {
	times := ""
	if x.Requests > 1 {
		times = fmt.Sprintf(", asked %d times", x.Requests)
	}
	switch x.Outcome {
	case ledger.IKEAnswered:
		return fmt.Sprintf("answered after %.1f ms%s", x.DurationMS, times)
	case ledger.IKEAnsweredUnseen:
		return "the answer was not seen" + times
	case ledger.IKEUnanswered:
		return fmt.Sprintf("NOT ANSWERED in %.1f s%s", x.DurationMS/1000, times)
	case ledger.IKEOpen:
	}
	return "not answered yet" + times
}
