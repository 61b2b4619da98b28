// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"time"

	"xfrmscope/internal/ledger"
)

// IKERetransmissions is IKE requests that were answered, but only after they were sent again.
const IKERetransmissions ID = "ike-retransmissions"

// oftenRepeated is how many exchanges with one peer may need a repeat before action is asked for.
const oftenRepeated = 3

func ikeRetransmissions(r *ledger.Report) []Finding {
	if r.IKE == nil {
		return nil
	}
	var out []Finding
	for i := range r.IKE.Peers {
		p := &r.IKE.Peers[i]
		if p.Transit {
			continue
		}
		for _, requester := range []ledger.End{ledger.Local, ledger.Remote} {
			again := exchangesOf(r, p, func(x *ledger.IKEExchange) bool {
				return x.Requester == requester && x.Outcome == ledger.IKEAnswered && x.Requests > 1
			})
			if len(again) > 0 {
				out = append(out, retransmissions(r, p, requester, again))
			}
		}
	}
	return out
}

func retransmissions(r *ledger.Report, p *ledger.IKEPeer, requester ledger.End, again []*ledger.IKEExchange) Finding {
	var repeats, reanswers, slow, worst int64
	longest := time.Duration(0)
	for _, x := range again {
		repeats += x.Requests - 1
		worst = max(worst, x.Requests-1)
		reanswers += max(0, x.Responses-1)
		took := time.Duration(x.DurationMS * float64(time.Millisecond))
		longest = max(longest, took)
		// The first response came after a repeat: if this host was asked, it is what took so long.
		if requester == ledger.Remote && x.At.Add(took).After(x.LastRequest.Add(-time.Millisecond)) && x.Responses > 0 {
			slow++
		}
	}
	f := Finding{
		ID: IKERetransmissions, Severity: Info, Confidence: sure(witnessed, r.IKE.Lost > 0), Subject: aboutIKE(r, p, requester),
		Evidence: []Evidence{
			{"ike.retransmitted", int64(len(again)), "exchanges", "wire", kindsOf(again)},
			{"ike.repeats", repeats, "messages", "wire", "requests sent again; all were answered in the end"},
			{"ike.slowest", longest.Milliseconds(), "ms", "wire", "longest time from a first request to its first response"},
		},
		Remedy: retryRemedies(),
	}
	if reanswers > 0 {
		f.Evidence = append(f.Evidence, Evidence{"ike.reanswers", reanswers, "messages", "wire", "responses sent again, because the request came again"})
	}
	f.Evidence = append(f.Evidence, dropEvidence(r, p)...)
	if worst > 1 || len(again) >= oftenRepeated {
		f.Severity = Warning
	}
	var where string
	switch {
	case r.Source.Kind == ledger.KindCapture:
		where = "A message was lost, on either way, before or after the point of capture."
	case requester == ledger.Local && reanswers > 0:
		where = "The answers did arrive here, more than once: this host was late to take them, or they are lost between the wire hook and the IKE daemon."
	case requester == ledger.Local:
		where = "The request got lost on the way there, or its answer on the way back; the peer's own figures tell which."
	case slow > 0:
		where = "The repeat came before this host had answered: its IKE daemon is slow, or the first request did not reach it."
	default:
		where = "This host had answered: its answer got lost on the way back, or came later than the peer waits."
	}
	f.Summary = fmt.Sprintf("%s: %s had to be sent again (%s in all) before the answer came, after %s at worst. %s",
		between(p, requester), kindsOf(again), times(repeats), longest.Round(time.Millisecond), where)
	return f
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
