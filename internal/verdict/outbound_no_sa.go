// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strings"

	"xfrmscope/internal/ledger"
)

// OutboundNoSA is packets to be sent under a policy for which there is no SA.
const OutboundNoSA ID = "outbound-no-sa"

func outboundNoSA(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.OutNoStates) {
		f := g.finding(r, OutboundNoSA, noSASeverity(r, g.policy))
		switch {
		case g.first() == nil:
			f.Summary = fmt.Sprintf("%s to be sent found no SA; which flows is not known.%s", packets(g.packets), candidates(r))
		case g.policy == nil:
			f.Confidence = sure(f.Confidence, true)
			f.Summary = fmt.Sprintf("%s to be sent %s found no SA; the policy that demands one is not in the SPD any more.", packets(g.packets), g.what())
		default:
			f.Subject = templateSubject(g.policy)
			f.Summary = fmt.Sprintf("%s to be sent %s found no SA: %s demands one to %s.%s%s", packets(g.packets), g.what(), policyText(g.policy),
				templateText(g.policy), nearestText(g.first()), cameLater(r, g.policy))
		}
		f.Remedy = noSARemedies(g.policy)
		out = append(out, f)
	}
	out = append(out, interfaceWithoutSA(r)...)
	return append(out, localSendersWithoutSA(r)...)
}

// noSASeverity: nothing can be sent while there is no SA; one that was set up on demand cost the first
// packets, which is how traps work.
func noSASeverity(r *ledger.Report, p *ledger.Policy) Severity {
	switch {
	case p == nil:
		return Warning
	case cameLater(r, p) != "":
		return Info
	}
	return Critical
}

// cameLater says which SA of the run fits the policy, "" if none.
func cameLater(r *ledger.Report, p *ledger.Policy) string {
	t := p.Required()
	if t == nil {
		return ""
	}
	for i := range r.SAs {
		sa := &r.SAs[i]
		to := !t.Dst.IsValid() || t.Dst.IsUnspecified() || t.Dst == sa.Dst
		if sa.Direction == ledger.Out && sa.AddedDuring && sa.State == ledger.Alive && to && (t.ReqID == 0 || t.ReqID == sa.ReqID) && p.IfID == sa.IfID {
			return fmt.Sprintf(" SA %s was set up during the run; what came before it was lost.", sa.SPI)
		}
	}
	return ""
}

func nearestText(f *ledger.RefusedFlow) string {
	if f.Nearest == nil || len(f.Differs) == 0 {
		return ""
	}
	return fmt.Sprintf(" SA %s comes nearest, but the policy wants %s.", *f.Nearest, differences(f.Differs))
}

func templateText(p *ledger.Policy) string {
	t := p.Required()
	if t == nil {
		return "a peer that it does not name"
	}
	to := "the packet's own destination"
	if t.Dst.IsValid() && !t.Dst.IsUnspecified() {
		to = t.Dst.String()
	}
	if t.ReqID != 0 {
		to += fmt.Sprintf(" with reqid %d", t.ReqID)
	}
	return to + " in " + t.Mode + " mode"
}

// templateSubject is the tunnel that a policy wants.
func templateSubject(p *ledger.Policy) Subject {
	s := Subject{Direction: ledger.Out, IfID: p.IfID}
	if t := p.Required(); t != nil {
		s.Proto, s.ReqID = t.Proto, t.ReqID
		for to, a := range map[**netip.Addr]netip.Addr{&s.Src: t.Src, &s.Dst: t.Dst} {
			if a.IsValid() && !a.IsUnspecified() {
				*to = new(a)
			}
		}
	}
	return s
}

// idlePolicies are the outbound policies for which no SA exists.
func idlePolicies(r *ledger.Report) (out []*ledger.Policy) {
	for i := range r.Policies {
		e := &r.Policies[i]
		if e.Dir == "out" && e.SAs != nil && *e.SAs == 0 {
			out = append(out, e.Policy())
		}
	}
	return out
}

func candidates(r *ledger.Report) string {
	idle := idlePolicies(r)
	if len(idle) == 0 {
		return ""
	}
	var names []string
	for _, p := range idle[:min(len(idle), 3)] {
		names = append(names, policyText(p))
	}
	more := ""
	if len(idle) > 3 {
		more = fmt.Sprintf(" and %d others", len(idle)-3)
	}
	return " Outbound policies without an SA: " + strings.Join(names, ", ") + more + "."
}

// localSendersWithoutSA is what the kernel counted for this host's own senders, whose look-up fails
// before there is a packet (connect() and sendmsg() return an error).
func localSendersWithoutSA(r *ledger.Report) []Finding {
	n := r.Kernel.Residue["XfrmOutNoStates"]
	if n == 0 {
		return nil
	}
	idle := idlePolicies(r)
	f := Finding{
		ID: OutboundNoSA, Severity: Critical, Confidence: sure(counted, blurred(r), len(idle) != 1),
		Evidence: []Evidence{{"kernel.residue.XfrmOutNoStates", n, "look-ups", "/proc/net/xfrm_stat", "failed without a packet: senders on this host"}},
		Remedy:   noSARemedies(nil),
	}
	if len(idle) == 1 {
		f.Subject, f.Remedy = templateSubject(idle[0]), noSARemedies(idle[0])
		f.Severity = noSASeverity(r, idle[0])
	}
	later := ""
	if len(idle) == 0 {
		f.Severity = Warning
		later = " Every outbound policy has an SA now."
	}
	f.Summary = fmt.Sprintf("Senders on this host were refused %d times, because the SA that a policy demands does not exist.%s%s", n, candidates(r), later)
	return []Finding{f}
}

// interfaceWithoutSA is what an xfrm interface or VTI threw away, which no xfrm counter shows. The
// interface counts it as carrier error, which 5.10 does not show; what was merely too large it does
// not, but that has a policy.
func interfaceWithoutSA(r *ledger.Report) []Finding {
	var out []Finding
	byDevice := map[int]*refused{}
	for _, g := range refusedFor(r, ledger.OutInterface) {
		for _, flow := range g.flows {
			d := byDevice[flow.Ifindex]
			if d == nil {
				d = &refused{cause: g.cause, dir: g.dir, policy: g.policy}
				byDevice[flow.Ifindex] = d
				out = append(out, Finding{Subject: Subject{Ifindex: flow.Ifindex}})
			}
			d.flows, d.packets = append(d.flows, flow), d.packets+flow.Packets
		}
	}
	kept := out[:0]
	for _, f := range out {
		d := byDevice[f.Subject.Ifindex]
		link := r.Host.Link(f.Subject.Ifindex)
		lost := int64(0)
		name := fmt.Sprintf("interface %d", f.Subject.Ifindex)
		if link != nil {
			lost, name = link.Counters["tx_carrier_errors"], link.Name
		}
		if lost == 0 && (d.policy != nil || r.Policies == nil) {
			continue // it has a policy, so it was too large; or nobody can tell
		}
		f = d.finding(r, OutboundNoSA, Critical)
		f.Subject = Subject{Ifindex: d.first().Ifindex, Direction: ledger.Out}
		f.Confidence = sure(witnessed, blurred(r))
		if lost == d.packets {
			f.Confidence = sure(corroborated, blurred(r))
		}
		f.Evidence = append(f.Evidence, Evidence{"tx_carrier_errors", lost, "packets", name, "the interface found no SA for them; older kernels do not tell it"})
		f.Summary = fmt.Sprintf("%s %s were thrown away by %s: no policy and SA with its interface id takes them. No xfrm counter shows it.",
			packets(d.packets), d.what(), name)
		f.Remedy = append([]Remedy{{For: forIproute2, Text: "Compare the interface's id with the if_id of policies and SAs.",
			Commands: []string{"ip -d link show " + name, "ip xfrm policy | grep -B3 if_id", "ip xfrm state list nokeys | grep -B6 if_id"}}}, noSARemedies(d.policy)[1:]...)
		kept = append(kept, f)
	}
	return kept
}

func noSARemedies(p *ledger.Policy) []Remedy {
	own := Remedy{For: forIproute2, Text: "See whether an IKE daemon listens for the kernel's requests (acquire), and which SAs there are to that peer.",
		Commands: []string{"ip xfrm monitor acquire", "ip xfrm state list nokeys"}}
	if p != nil && p.Required() != nil && p.Required().Dst.IsValid() && !p.Required().Dst.IsUnspecified() {
		own.Commands[1] += fmt.Sprintf(" dst %s", p.Required().Dst)
	}
	return []Remedy{own,
		{For: forStrongSwan, Text: "Set the child up, and let it come up by itself.", Commands: []string{"swanctl --list-sas", "swanctl --initiate --child <child>",
			"connections.<conn>.children.<child>.start_action = trap|start"}},
		{For: forLibreswan, Text: "The same.", Commands: []string{"ipsec status | grep <conn>", "ipsec auto --up <conn>", "auto=ondemand"}},
		{For: forPeer, Text: "If negotiation fails, the far side's log says why; NO_PROPOSAL_CHOSEN and TS_UNACCEPTABLE are the usual answers."},
	}
}
