// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netfilter"
)

// ruleset is what nftables drops and clamps, as last read.
type ruleset struct {
	pace   time.Duration // 0: read for each snapshot
	at     time.Time
	drops  []ledger.FirewallRule
	clamps []ledger.MSSClamp
}

// firewall fills in a snapshot's share of nftables. It only helps to name a rule, so a ruleset that cannot
// be read fails nothing: the report then says that it is not known.
func (s *session) firewall(_ context.Context, snap *ledger.Snapshot) error {
	r := &s.rules
	if r.at.IsZero() || time.Since(r.at) >= r.pace {
		r.at, r.drops, r.clamps = time.Now(), nil, nil
		_ = s.ns.Do(func() error {
			rules, err := netfilter.Read()
			r.drops, r.clamps = rules.Drops, rules.Clamps
			return err
		})
	}
	snap.Firewall, snap.Clamps = r.drops, r.clamps
	return nil
}
