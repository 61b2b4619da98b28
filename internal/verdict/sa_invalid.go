// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// SAInvalid is packets that met an SA whose state is not valid, and which neither expired nor ended
// under them.
const SAInvalid ID = "sa-invalid"

func saInvalid(r *ledger.Report) []Finding {
	var out []Finding
	for i := range r.SAs {
		sa := &r.SAs[i]
		n := sa.Xfrm[ledger.StateInvalid] + sa.Xfrm[ledger.OutInvalid]
		if n == 0 || expired(sa) || sa.Xfrm[ledger.NoState] > 0 && lastEnding(sa) != nil {
			continue
		}
		then, severity := afterwards(r, sa)
		base := witnessed
		if r.Kernel.XfrmStat["XfrmInStateInvalid"]+r.Kernel.XfrmStat["XfrmOutStateInvalid"] == n {
			base = corroborated
		}
		how := "which is in the SA database but not valid"
		if e := lastEnding(sa); e != nil {
			how = fmt.Sprintf("while it was being removed (%s at %s)", e.Why, e.At.Format("15:04:05.000 MST"))
		}
		summary := fmt.Sprintf("%s: %s met this SA %s.", who(sa), packets(n), how)
		if then != "" {
			summary += " " + then
		}
		out = append(out, Finding{
			ID: SAInvalid, Severity: severity, Confidence: sure(base, blurred(r)), Subject: about(sa),
			Summary:  summary,
			Evidence: []Evidence{{"xfrm.state_invalid", n, "packets", sourceOf(sa), "km.state is not XFRM_STATE_VALID"}},
			Remedy: append([]Remedy{{For: forIproute2, Text: "Look at the SA; one that stays invalid has to be deleted and negotiated anew.",
				Commands: []string{fmt.Sprintf("ip xfrm state delete dst %s proto %s spi %s", sa.Dst, sa.Proto, sa.SPI)}}}, renegotiate()...),
		})
	}
	n := r.Kernel.XfrmStat["XfrmInStateInvalid"] + r.Kernel.XfrmStat["XfrmOutStateInvalid"]
	if n > 0 && r.Kernel.WithoutSA == nil && len(expiredSomewhere(r)) == 0 && r.Kernel.XfrmStat["XfrmInNoStates"] == 0 {
		out = append(out, Finding{
			ID: SAInvalid, Severity: Warning, Confidence: sure(counted),
			Summary:  fmt.Sprintf("%s met an SA that is not valid; which one is not known, because the stack hooks are not attached.", packets(n)),
			Evidence: []Evidence{{"XfrmInStateInvalid + XfrmOutStateInvalid", n, "packets", "/proc/net/xfrm_stat", ""}},
			Remedy:   renegotiate(),
		})
	}
	return out
}
