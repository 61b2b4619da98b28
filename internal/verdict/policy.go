// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// policyKinds are about the security policies: which packets they refused, and why.
func policyKinds() []Kind {
	return []Kind{
		{PolicyTemplateMismatch, "Decrypted by an SA that the policy does not accept", policyTemplateMismatch},
		{PolicyMissing, "Decrypted, and no policy lets it in", policyMissing},
		{OutboundNoSA, "A policy demands an SA that does not exist", outboundNoSA},
		{OutboundBundleFailed, "An SA exists, and no route to its peer", outboundBundleFailed},
		{SelectorMismatch, "An SA carries traffic that it is not for", selectorMismatch},
		{SADirectionMismatch, "An SA is used in the direction it is not for", saDirectionMismatch},
		{OutboundPolicyBlock, "A policy forbids sending", outboundPolicyBlock},
		{PlaintextRefused, "Plaintext where a policy demands protection", plaintextRefused},
		{SALarval, "Packets for an SA that is only reserved", saLarval},
		{PolicyCheckFailed, "The kernel could not carry a policy out", policyCheckFailed},
		{PolicyBlocked, "A policy forbids receiving", policyBlocked},
	}
}

// refused is flows that were refused for one cause, by one policy, and decrypted by one SA.
type refused struct {
	cause   ledger.Cause
	dir     string
	flows   []*ledger.RefusedFlow // the most packets first; none where only the total is known
	packets int64
	policy  *ledger.Policy // nil: none was found
	sa      *ledger.SA     // nil: none decrypted them, or the ledger does not have it
}

// refusedFor groups what was refused for any of the causes, in the report's order. What the totals
// hold beyond the flows makes a group without flows.
func refusedFor(r *ledger.Report, causes ...ledger.Cause) []*refused {
	type key struct {
		cause    ledger.Cause
		spi      ledger.SPI
		dst, dir string
		policy   int64
	}
	var out []*refused
	at := map[key]*refused{}
	left := map[ledger.Cause]int64{}
	for _, c := range causes {
		left[c] = totalOf(r, c)
	}
	for i := range r.Refusals {
		f := &r.Refusals[i]
		if _, asked := left[f.Cause]; !asked {
			continue
		}
		left[f.Cause] -= f.Packets
		k := key{f.Cause, 0, f.SADst, f.Dir, -1}
		if f.SPI != nil {
			k.spi = *f.SPI
		}
		if f.Policy != nil {
			k.policy = int64(*f.Policy)
		}
		g := at[k]
		if g == nil {
			g = &refused{cause: f.Cause, dir: f.Dir, policy: f.Decided(), sa: decryptedBy(r, f)}
			at[k], out = g, append(out, g)
		}
		g.flows, g.packets = append(g.flows, f), g.packets+f.Packets
	}
	for _, c := range causes {
		if left[c] > 0 {
			out = append(out, &refused{cause: c, packets: left[c]})
		}
	}
	return out
}

// totalOf is how often a cause occurred, by whatever source there is.
func totalOf(r *ledger.Report, c ledger.Cause) int64 {
	n := r.Kernel.WithoutSA[c]
	for i := range r.SAs {
		n += r.SAs[i].Xfrm[c]
	}
	if r.Kernel.WithoutSA == nil && sharesCounter(c) == 1 {
		n = max(n, r.Kernel.XfrmStat[c.Counter()])
	}
	return n
}

// sharesCounter is how many causes move the cause's counter.
func sharesCounter(c ledger.Cause) (n int) {
	for _, other := range ledger.Causes() {
		if other.Counter() == c.Counter() {
			n++
		}
	}
	return n
}

func decryptedBy(r *ledger.Report, f *ledger.RefusedFlow) *ledger.SA {
	if f.SPI == nil {
		return nil
	}
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.SPI == *f.SPI && sa.Dst.String() == f.SADst && sa.Proto == f.SAProto && sa.Direction != ledger.Out {
			return sa
		}
	}
	return nil
}

// first is the flow with the most packets, nil where no flow is known.
func (g *refused) first() *ledger.RefusedFlow {
	if len(g.flows) == 0 {
		return nil
	}
	return g.flows[0]
}

// decrypted says whether the packets had come through an SA.
func (g *refused) decrypted() bool { return g.first() != nil && g.first().SPI != nil }

// what names the flows.
func (g *refused) what() string {
	switch len(g.flows) {
	case 0:
		return "flows that are not known"
	case 1:
		return "(" + g.flows[0].String() + ")"
	}
	return fmt.Sprintf("(%s and %d other flows)", g.flows[0], len(g.flows)-1)
}

// by names the SA that decrypted them.
func (g *refused) by() string {
	f := g.first()
	if g.sa != nil {
		return who(g.sa)
	}
	return fmt.Sprintf("SA %s to %s", *f.SPI, f.SADst)
}

// finding begins a finding about the group with what all of them have in common.
func (g *refused) finding(r *ledger.Report, id ID, severity Severity) Finding {
	base := witnessed
	switch {
	case len(g.flows) == 0:
		base = counted
	case r.Kernel.Reconciled != nil && *r.Kernel.Reconciled && g.cause.Counter() != "":
		base = corroborated
	}
	f := Finding{ID: id, Severity: severity, Confidence: sure(base, blurred(r)), Subject: g.subject()}
	source := "stack hooks"
	if len(g.flows) == 0 && r.Refusals == nil {
		source = "/proc/net/xfrm_stat"
	}
	f.Evidence = append(f.Evidence, Evidence{"refusals." + string(g.cause), g.packets, "packets", source, g.what()})
	if name := g.cause.Counter(); name != "" && source != "/proc/net/xfrm_stat" {
		if n := r.Kernel.XfrmStat[name]; n > 0 {
			f.Evidence = append(f.Evidence, Evidence{name, n, "packets", "/proc/net/xfrm_stat", "all flows together"})
		}
	}
	if g.policy != nil {
		f.Evidence = append(f.Evidence, Evidence{"policies.index", int64(g.policy.Index), "index", "SPD", policyText(g.policy)})
	}
	if d := g.first(); d != nil {
		for _, x := range d.Differs {
			f.Evidence = append(f.Evidence, Evidence{"refusals.differs", 1, "fields", "SPD and SA database",
				fmt.Sprintf("%s: %s demanded, %s found", x.Field, x.Wanted, x.Found)})
		}
	}
	return f
}

func (g *refused) subject() Subject {
	f := g.first()
	switch {
	case g.sa != nil:
		return about(g.sa)
	case f == nil:
		return Subject{}
	case f.SPI != nil:
		return Subject{SPI: f.SPI, Proto: f.SAProto, Direction: ledger.In, ReqID: f.ReqID, IfID: f.IfID, Ifindex: f.Ifindex}
	}
	s := Subject{Src: new(f.Src), Dst: new(f.Dst), Direction: ledger.In, Ifindex: f.Ifindex}
	if f.Dir == "out" {
		s.Direction = ledger.Out
	}
	return s
}

// severityOfDecrypted grades by what share of the SA's packets was refused.
func (g *refused) severityOfDecrypted() Severity {
	if g.sa == nil || g.sa.Ledger.In == nil || g.sa.Ledger.In.Decapsulated == nil {
		return Warning
	}
	return lossSeverity(g.packets, *g.sa.Ledger.In.Decapsulated)
}

// policyText names a policy as an operator finds it.
func policyText(p *ledger.Policy) string {
	return fmt.Sprintf("policy index %d (dir %s, %s, priority %d)", p.Index, p.Dir, p.Selector, p.Priority)
}

// policyCommand is the ip command that sets a policy with one template; an empty one is left out.
func policyCommand(verb, dir string, s ledger.Selector, p *ledger.Policy, tmpl string) string {
	parts := []string{"ip xfrm policy " + verb, s.String(), "dir " + dir}
	if p != nil && p.Priority != 0 {
		parts = append(parts, fmt.Sprintf("priority %d", p.Priority))
	}
	if p != nil && p.MarkMask != 0 {
		parts = append(parts, fmt.Sprintf("mark 0x%x mask 0x%x", p.MarkValue, p.MarkMask))
	}
	if p != nil && p.IfID != 0 {
		parts = append(parts, fmt.Sprintf("if_id %d", p.IfID))
	}
	if tmpl != "" {
		parts = append(parts, "tmpl", tmpl)
	}
	return strings.Join(parts, " ")
}

// templateOf is the template that an SA fulfils.
func templateOf(sa *ledger.SA) string {
	text := fmt.Sprintf("src %s dst %s proto %s", address(sa), sa.Dst, sa.Proto)
	if sa.Mode == "transport" {
		text = "proto " + string(sa.Proto)
	}
	if sa.ReqID != 0 {
		text += fmt.Sprintf(" reqid %d", sa.ReqID)
	}
	return text + " mode " + sa.Mode
}

// listPolicies shows what the kernel has.
func listPolicies(dir string) string {
	if dir == "" {
		return "ip xfrm policy"
	}
	return "ip xfrm policy list dir " + dir
}
