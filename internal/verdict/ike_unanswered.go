// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// IKEUnanswered is IKE requests, of either end, that got no response.
const IKEUnanswered ID = "ike-unanswered"

func ikeUnanswered(r *ledger.Report) []Finding {
	if r.IKE == nil {
		return nil
	}
	var out []Finding
	var knocks []*ledger.IKEPeer
	for i := range r.IKE.Peers {
		p := &r.IKE.Peers[i]
		if p.Transit {
			continue
		}
		for _, waiting := range []ledger.End{ledger.Local, ledger.Remote} {
			open := exchangesOf(r, p, func(x *ledger.IKEExchange) bool {
				return x.Outcome == ledger.IKEUnanswered && x.Waiting == waiting
			})
			switch {
			case len(open) == 0:
			case waiting == ledger.Local:
				out = append(out, unanswered(r, p, waiting, open))
			case !egressSeen(r):
				// An answer of this host is not seen rather than not given.
			case knocked(r, p, open):
				knocks = append(knocks, p)
			default:
				out = append(out, unanswered(r, p, waiting, open))
			}
		}
	}
	if len(knocks) > 0 {
		out = append(out, strangers(r, knocks))
	}
	return out
}

// knocked says whether a peer did no more than knock. Anybody may, and an end that answers strangers with
// silence does well.
func knocked(r *ledger.Report, p *ledger.IKEPeer, open []*ledger.IKEExchange) bool {
	return p.Sent == 0 && onlyTypes(open, "IKE_SA_INIT", "Main Mode", "Aggressive Mode") && !tunnelled(r, p.Remote.Addr())
}

// strangers is one finding for all of them, however many there are.
func strangers(r *ledger.Report, knocks []*ledger.IKEPeer) Finding {
	var messages, burst int64
	for _, p := range knocks {
		messages += p.Received
		burst = max(burst, p.InitBurst)
	}
	f := Finding{
		ID: IKEUnanswered, Severity: Info, Confidence: sure(witnessed, r.IKE.Lost > 0, true),
		Summary: fmt.Sprintf("%s, with which this host has no SA, began IKE and got no answer (%d messages). If one of them should have: no IKE daemon listens, or a firewall here drops the requests.",
			peers(len(knocks)), messages),
		Evidence: []Evidence{
			{"ike.strangers", int64(len(knocks)), "addresses", "wire", "the first: " + knocks[0].Remote.Addr().String()},
			{"ike.received", messages, "messages", "wire", "from all of them"},
			{"ike.init_burst", burst, "IKE SAs", "wire", "most begun by one address within ten seconds"},
		},
		Remedy: []Remedy{{For: forHost, Text: "Let only known peers reach the IKE ports, and limit the rest.",
			Commands: []string{
				"ss -lunp '( sport = :500 or sport = :4500 )'",
				"nft add rule inet <table> input udp dport { 500, 4500 } ip saddr != @peers limit rate over 10/second drop",
			}}},
	}
	if len(knocks) == 1 {
		f.Subject = aboutIKE(r, knocks[0], ledger.Remote)
	}
	return f
}

func peers(n int) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}

func unanswered(r *ledger.Report, p *ledger.IKEPeer, waiting ledger.End, open []*ledger.IKEExchange) Finding {
	sent, last := int64(0), open[0].LastRequest
	for _, x := range open {
		sent += x.Requests
		if x.LastRequest.After(last) {
			last = x.LastRequest
		}
	}
	back, who := p.Received, "the peer"
	if waiting == ledger.Remote {
		back, who = p.Sent, "this host"
	}
	if r.Source.Kind == ledger.KindCapture {
		who = "the other end"
	}
	living := espAfter(r, p.Remote.Addr(), open[0].At)
	what, cause := silenceCause(r, p, waiting, back, living)
	f := Finding{
		ID: IKEUnanswered, Severity: Critical,
		// With nothing at all in the other direction it may take a way that is not watched.
		Confidence: sure(witnessed, r.IKE.Lost > 0, back == 0 && waiting == ledger.Remote),
		Subject:    aboutIKE(r, p, waiting),
		Summary: fmt.Sprintf("%s: %s got no answer from %s (%d messages sent, the last at %s). %s",
			between(p, waiting), kindsOf(open), who, sent, last.Format("15:04:05.000 MST"), what),
		Evidence: []Evidence{
			{"ike.unanswered", int64(len(open)), "exchanges", "wire", kindsOf(open)},
			{"ike.requests", sent, "messages", "wire", "sendings of these requests, repeats included"},
			{"ike.from_other_end", back, "messages", "wire", "IKE messages that came the other way during the whole observation"},
		},
		Remedy: append(cause, retryRemedies()...),
	}
	if living > 0 && waiting == ledger.Local {
		f.Evidence = append(f.Evidence, Evidence{"esp_from_peer", living, "packets", "wire", "of the peer's SAs that were heard after the first of these requests"})
	}
	f.Evidence = append(f.Evidence, dropEvidence(r, p)...)
	if r.IKE.Lost > 0 {
		f.Evidence = append(f.Evidence, Evidence{"ike.lost", r.IKE.Lost, "messages", "wire", "IKE messages that xfrmscope itself lost: an answer may be among them"})
	}
	return f
}

// silenceCause says what the silence looks like and what to try first.
func silenceCause(r *ledger.Report, p *ledger.IKEPeer, waiting ledger.End, back, living int64) (string, []Remedy) {
	if n, place := droppedIKE(r, p); n > 0 {
		return fmt.Sprintf("This host itself dropped %s of IKE between these ends (%s).", packets(n), place), nil
	}
	if waiting == ledger.Remote && r.Source.Kind != ledger.KindCapture {
		text := "It answered other requests: the IKE daemon was busy, or its answer was dropped on the way out."
		if back == 0 {
			text = "It sent nothing at all: no IKE daemon listens, a firewall on this host drops the requests, or answers leave by an interface that is not watched."
		}
		return text, []Remedy{{For: forHost, Text: "See whether the daemon listens and whether a firewall lets UDP 500 and 4500 in and out.",
			Commands: []string{
				"ss -lunp '( sport = :500 or sport = :4500 )'",
				"nft list ruleset | grep -nE 'drop|reject|dport'",
				"nft add rule inet <table> input udp dport { 500, 4500 } accept",
			}}}
	}
	remedy := Remedy{For: forPath, Text: "Watch both directions at the other end: what leaves here and does not arrive there, or the reverse.",
		Commands: []string{
			fmt.Sprintf("tcpdump -ni any 'host %s and (udp port 500 or udp port 4500)'", p.Remote.Addr()),
			fmt.Sprintf("ping -c 3 %s", p.Remote.Addr()),
		}}
	switch {
	case living > 0:
		return "Its ESP arrives, so it lives and the path works: its IKE daemon hangs, or UDP is filtered where ESP is not.", []Remedy{remedy}
	case back > 0:
		return "Other messages of it came: it went away in the meantime, or single messages are lost, large ones first (fragments).", []Remedy{remedy}
	}
	return "Nothing came from it at all: it is down, the way there or back is cut, or a firewall drops UDP 500 and 4500.", []Remedy{remedy}
}
