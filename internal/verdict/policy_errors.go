// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"

	"xfrmscope/internal/ledger"
)

// Kinds of findings about policies that could not be carried out.
const (
	OutboundBundleFailed ID = "outbound-bundle-failed"
	SALarval             ID = "sa-larval"
	SADirectionMismatch  ID = "sa-direction-mismatch"
	PolicyCheckFailed    ID = "policy-check-failed"
)

// outboundBundleFailed is packets with policy and SA, but without a way to the peer
// (xfrm_bundle_create: no route to the SA's destination, or no source address for it).
func outboundBundleFailed(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.OutBundleGenError) {
		f := g.finding(r, OutboundBundleFailed, Critical)
		peer := "<peer>"
		if g.policy != nil {
			f.Subject = templateSubject(g.policy)
			if t := g.policy.Required(); t != nil && t.Dst.IsValid() && !t.Dst.IsUnspecified() {
				peer = t.Dst.String()
			}
		}
		f.Summary = fmt.Sprintf("%s to be sent %s have a policy and an SA, and the kernel found no way to send them by: most often there is no route to %s.",
			packets(g.packets), g.what(), peer)
		f.Confidence = sure(f.Confidence, true)
		f.Remedy = routeRemedies(peer)
		out = append(out, f)
	}
	return out
}

func routeRemedies(peer string) []Remedy {
	return []Remedy{
		{For: forIproute2, Text: "There must be a route to the peer that does not lead into the tunnel itself.", Commands: []string{"ip route get " + peer, "ip xfrm policy list dir out"}},
		{For: forStrongSwan, Text: "Where it installs routes itself, see what they say.", Commands: []string{"ip route show table 220", "charon.install_routes = yes"}},
		{For: forLibreswan, Text: "The same; leftnexthop= and rightnexthop= override what it concludes.", Commands: []string{"ipsec status | grep nexthop"}},
	}
}

// saLarval is packets that met an SA which is only reserved (XFRM_STATE_ACQ): its SPI was handed out,
// its keys are not there yet.
func saLarval(r *ledger.Report) []Finding {
	var out []Finding
	for _, c := range occurrences(r, ledger.AcquireError) {
		f := c.finding(SALarval, Warning)
		f.Summary = fmt.Sprintf("%s met an SA that is only reserved%s: the peer began to send before the negotiation was over on this side, or it never ended.", packets(c.n), c.named)
		f.Remedy = append([]Remedy{{For: forIproute2, Text: "SAs that stay reserved belong to negotiations that hang.", Commands: []string{"ip xfrm state list nokeys"}}}, renegotiate()...)
		out = append(out, f)
	}
	return out
}

// saDirectionMismatch is SAs with a direction (XFRMA_SA_DIR, 6.10) that are used in the other one.
func saDirectionMismatch(r *ledger.Report) []Finding {
	var out []Finding
	for _, c := range occurrences(r, ledger.StateDirError, ledger.OutDirError) {
		f := c.finding(SADirectionMismatch, Critical)
		f.Summary = fmt.Sprintf("%s met an SA that is for the other direction%s.", packets(c.n), c.named)
		f.Remedy = append([]Remedy{{For: forIproute2, Text: "The SA was added with the wrong dir, or both ends use one SPI for both directions.",
			Commands: []string{"ip -d xfrm state list nokeys | grep -E '^src|dir'"}}}, renegotiate()...)
		out = append(out, f)
	}
	return out
}

// policyCheckFailed is what the kernel could not decide: headers that it could not read, memory that
// it did not get, a bundle or policy that went while it was used, a template that no SA can be asked for by.
func policyCheckFailed(r *ledger.Report) []Finding {
	why := map[ledger.Cause]string{
		ledger.PolError:            "the policy look-up failed",
		ledger.FwdHdrError:         "their headers could not be read for the look-up",
		ledger.OutPolDead:          "the policy went while it was used",
		ledger.OutBundleCheckError: "the bundle was not valid any more",
	}
	out := templateUnresolved(r)
	for _, c := range occurrences(r, ledger.PolError, ledger.FwdHdrError, ledger.OutPolDead, ledger.OutBundleCheckError) {
		f := c.finding(PolicyCheckFailed, Warning)
		f.Summary = fmt.Sprintf("%s were dropped, because %s%s.", packets(c.n), why[c.cause], c.named)
		f.Remedy = shortageRemedies()
		out = append(out, f)
	}
	return out
}

func shortageRemedies() []Remedy {
	return []Remedy{{For: forHost, Text: "The kernel lacked memory, or the packets were damaged. Look for allocation failures, and at the packets.",
		Commands: []string{"dmesg | grep -iE 'allocation failure|out of memory'", "xfrmscope trace"}}}
}

// templateUnresolved is packets to be sent whose policy's template the kernel could not make an SA of
// (xfrm_tmpl_resolve_one): no source address leads to the peer where the template leaves it open, or the
// template names an SA by its SPI that is not like the rest of it.
func templateUnresolved(r *ledger.Report) []Finding {
	var out []Finding
	for _, g := range refusedFor(r, ledger.OutPolError) {
		f := g.finding(r, PolicyCheckFailed, Warning)
		f.Summary = fmt.Sprintf("%s to be sent %s were dropped, because the policy look-up failed.", packets(g.packets), g.what())
		f.Remedy = shortageRemedies()
		var t *ledger.Template
		if g.policy != nil {
			f.Subject, t = templateSubject(g.policy), g.policy.Required()
		}
		switch {
		case t == nil:
		case t.SPI != 0 && nearestText(g.first()) != "":
			f.Severity = Critical
			f.Summary = fmt.Sprintf("%s to be sent %s were dropped: %s names an SA by its SPI that is not what it demands.%s",
				packets(g.packets), g.what(), policyText(g.policy), nearestText(g.first()))
			f.Remedy = []Remedy{{For: forIproute2, Text: "Let the template demand what the SA is, or leave the SPI out of it.",
				Commands: []string{fmt.Sprintf("ip xfrm state list dst %s proto %s spi %s nokeys", t.Dst, t.Proto, t.SPI), listPolicies("out")}}}
		case t.Mode != "transport" && t.Dst.IsValid() && (!t.Src.IsValid() || t.Src.IsUnspecified()):
			f.Severity, f.Confidence = Critical, sure(f.Confidence, true)
			f.Summary = fmt.Sprintf("%s to be sent %s were dropped: %s leaves the SA's source open, and the kernel found no address to reach %s from: most often there is no route to %s.",
				packets(g.packets), g.what(), policyText(g.policy), t.Dst, t.Dst)
			f.Remedy = routeRemedies(t.Dst.String())
		}
		out = append(out, f)
	}
	return out
}

// occurrence is one cause at one SA, or at none.
type occurrence struct {
	cause ledger.Cause
	n     int64
	sa    *ledger.SA
	named string
	where string
	conf  float64
}

func occurrences(r *ledger.Report, causes ...ledger.Cause) (out []occurrence) {
	told := map[string]int64{} // by counter
	for _, c := range causes {
		seen := int64(0)
		for i := range r.SAs {
			sa := &r.SAs[i]
			if n := sa.Xfrm[c]; n > 0 {
				out = append(out, occurrence{c, n, sa, ": " + who(sa), "stack hooks", sure(witnessed, blurred(r))})
				seen += n
			}
		}
		n := totalOf(r, c) - seen
		if r.Kernel.WithoutSA == nil && asksAll(causes, c.Counter()) {
			// The counter does not say which of the causes moved it: the first one asked for stands for all.
			n = r.Kernel.XfrmStat[c.Counter()] - told[c.Counter()] - seen
		}
		if n > 0 {
			o := occurrence{c, n, nil, "", "stack hooks", sure(witnessed, blurred(r))}
			if r.Kernel.WithoutSA == nil {
				o.where, o.conf = "/proc/net/xfrm_stat", sure(counted)
			}
			out = append(out, o)
			seen += n
		}
		told[c.Counter()] += seen
	}
	return out
}

// asksAll says whether every cause that moves a counter is among these.
func asksAll(causes []ledger.Cause, counter string) bool {
	for _, c := range ledger.Causes() {
		if c.Counter() == counter && !slices.Contains(causes, c) {
			return false
		}
	}
	return counter != ""
}

func (o occurrence) finding(id ID, severity Severity) Finding {
	f := Finding{ID: id, Severity: severity, Confidence: o.conf,
		Evidence: []Evidence{{"xfrm." + string(o.cause), o.n, "packets", o.where, o.cause.Counter()}}}
	if o.sa != nil {
		f.Subject = about(o.sa)
	}
	return f
}
