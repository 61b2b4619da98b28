// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

// RekeyFailed is an SA whose lifetime ran out, whose successor was asked for and never came.
const RekeyFailed ID = "rekey-failed"

// rekeyPatience is how long after the soft limit a successor should be there, whatever happens.
const rekeyPatience = 30 * time.Second

// tunnelEnds groups the two directions of a tunnel.
type tunnelEnds struct {
	here, there netip.Addr
	reqid, ifid uint32
}

func endsOf(sa *ledger.SA) tunnelEnds {
	if sa.Direction == ledger.Out {
		return tunnelEnds{sa.Src, sa.Dst, sa.ReqID, sa.IfID}
	}
	return tunnelEnds{sa.Dst, sa.Src, sa.ReqID, sa.IfID}
}

func rekeyFailed(r *ledger.Report) []Finding {
	if r.IKE == nil {
		return nil // keyed by hand, for all that is known: nobody would rekey
	}
	var out []Finding
	done := map[tunnelEnds]bool{}
	for _, dir := range []ledger.Direction{ledger.In, ledger.Out} {
		for i := range r.SAs {
			sa := &r.SAs[i]
			ends := endsOf(sa)
			if sa.Direction != dir || done[ends] {
				continue
			}
			if f, ok := leftAlone(r, sa, ends); ok {
				done[ends] = true
				out = append(out, f)
			}
		}
	}
	return out
}

// leftAlone judges one SA.
func leftAlone(r *ledger.Report, sa *ledger.SA, ends tunnelEnds) (f Finding, ok bool) {
	end := lastEnding(sa)
	hard := end != nil && end.Why == ledger.EndExpired
	soft := sa.SoftExpired != nil
	if !soft && !hard {
		return f, false
	}
	peer := peerOf(r, ends)
	if peer == nil || succeeded(r, sa) {
		return f, false
	}
	pending := exchangesOf(r, peer, func(x *ledger.IKEExchange) bool { return x.Outcome == ledger.IKEUnanswered })
	overdue := soft && end == nil && endOf(r).Sub(*sa.SoftExpired) >= rekeyPatience
	if !(soft && (hard || overdue || len(pending) > 0)) && !(hard && len(pending) > 0) {
		return f, false
	}
	f = Finding{
		ID: RekeyFailed, Severity: Warning, Confidence: sure(witnessed, len(pending) == 0, r.IKE.Lost > 0), Subject: about(sa),
		Evidence: []Evidence{},
		Remedy:   append(expiryRemedies(sa)[:2:2], retryRemedies()...),
	}
	var said []string
	if soft {
		f.Evidence = append(f.Evidence, Evidence{"soft expiry of " + sa.SPI.String(), 1, "times", "SA database", "at " + sa.SoftExpired.Format("15:04:05.000 MST")})
		said = append(said, "asked for a successor at "+sa.SoftExpired.Format("15:04:05 MST"))
	}
	if end != nil {
		f.Severity = Critical
		f.Evidence = append(f.Evidence, Evidence{"end of " + sa.SPI.String(), 1, "times", "SA database", string(end.Why) + " at " + end.At.Format("15:04:05.000 MST")})
		said = append(said, fmt.Sprintf("was %s at %s", end.Why, end.At.Format("15:04:05 MST")))
	}
	why := "No exchange with the peer was left unanswered: look for a refusal in the IKE daemon's log (NO_PROPOSAL_CHOSEN, TS_UNACCEPTABLE, TEMPORARY_FAILURE)."
	if len(pending) > 0 {
		why = fmt.Sprintf("Not answered: %s, %s.", kindsOf(pending), between(peer, pending[0].Waiting))
		f.Evidence = append(f.Evidence, Evidence{"ike.unanswered", int64(len(pending)), "exchanges", "wire", kindsOf(pending)})
	}
	f.Summary = fmt.Sprintf("%s (%s) %s, and no other SA has taken its place. %s", who(sa), identity(sa), strings.Join(said, ", "), why)
	return f, true
}

func peerOf(r *ledger.Report, ends tunnelEnds) *ledger.IKEPeer {
	for i := range r.IKE.Peers {
		p := &r.IKE.Peers[i]
		if p.Local.Addr() == ends.here && p.Remote.Addr() == ends.there {
			return p
		}
	}
	return nil
}

// succeeded says whether another SA took over.
func succeeded(r *ledger.Report, sa *ledger.SA) bool {
	for i := range r.Rekeys {
		if k := &r.Rekeys[i]; k.Old == sa.SPI && k.Dst == sa.Dst && k.Direction == sa.Direction {
			return true
		}
	}
	return successor(r, sa) != nil
}
