// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// lastEnding is how the SA went, nil while it lives.
func lastEnding(sa *ledger.SA) *ledger.Ending {
	if sa.State != ledger.Gone || len(sa.Endings) == 0 {
		return nil
	}
	return &sa.Endings[len(sa.Endings)-1]
}

// expired says whether the SA reached a hard limit.
func expired(sa *ledger.SA) bool {
	if e := lastEnding(sa); e != nil && e.Why == ledger.EndExpired {
		return true
	}
	return sa.Xfrm[ledger.StateExpired] > 0 || sa.Xfrm[ledger.OutExpired] > 0
}

// successor finds the SA that took over: same ends, same direction, same request, still there.
func successor(r *ledger.Report, sa *ledger.SA) *ledger.SA {
	for i := range r.SAs {
		s := &r.SAs[i]
		if s.State == ledger.Alive && s.SPI != sa.SPI && s.Direction == sa.Direction && s.Proto == sa.Proto &&
			s.Src == sa.Src && s.Dst == sa.Dst && s.ReqID == sa.ReqID && s.IfID == sa.IfID && s.Mark == sa.Mark &&
			younger(s, sa) {
			return s
		}
	}
	return nil
}

// younger says whether an SA came after another. The kernel keeps the time in seconds, so within one
// second it takes the ledger to have seen it come.
func younger(a, b *ledger.SA) bool {
	if a.Added == nil || b.Added == nil {
		return a.AddedDuring && !b.AddedDuring
	}
	return a.Added.After(*b.Added) || a.Added.Equal(*b.Added) && a.AddedDuring && !b.AddedDuring
}

// afterwards says whether traffic has somewhere to go now, and grades the finding by that.
func afterwards(r *ledger.Report, sa *ledger.SA) (string, Severity) {
	if s := successor(r, sa); s != nil {
		return fmt.Sprintf("SA %s has taken over.", s.SPI), Warning
	}
	for i := range r.Rekeys {
		// One that came and went in its turn.
		if k := &r.Rekeys[i]; k.Old == sa.SPI && k.Dst == sa.Dst && k.Direction == sa.Direction {
			return fmt.Sprintf("SA %s took over.", k.New), Warning
		}
	}
	if sa.State == ledger.Alive {
		return "", Warning
	}
	return "No other SA has taken its place.", Critical
}

// renegotiate sets an SA up anew from either end.
func renegotiate() []Remedy {
	return []Remedy{
		{For: forStrongSwan, Text: "Set the child SA up anew, and let dead peers be noticed.",
			Commands: []string{"swanctl --list-sas", "swanctl --initiate --child <child>", "connections.<conn>.dpd_delay = 30s"}},
		{For: forLibreswan, Text: "Set the connection up anew.",
			Commands: []string{"ipsec status | grep <conn>", "ipsec auto --up <conn>", "dpddelay=30"}},
		{For: forPeer, Text: "If the far side keeps sending on an SA that is gone here, clear it there.",
			Commands: []string{"clear crypto sa peer <address>   (Cisco)", "Get-NetIPsecQuickModeSA | Remove-NetIPsecQuickModeSA   (Windows)"}},
	}
}
