// SPDX-License-Identifier: Apache-2.0

package ledger

// FirewallID names a rule of nftables, or with handle 0 a chain for its policy.
type FirewallID struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Handle uint64 `json:"handle,omitempty"`
}

// FirewallRule is a rule or a chain's policy that drops packets, as it was at one moment.
type FirewallRule struct {
	FirewallID
	Hooks   []string // from which it is reached
	Verdict string   // drop, reject, policy drop
	Match   string   // what it matches by, as far as that is told simply
	Comment string
	Packets *uint64 // absolute, of its counter; nil: it has none
}

// FirewallEntry is the same in a report.
type FirewallEntry struct {
	FirewallID
	Hooks   []string `json:"hooks"`
	Verdict string   `json:"verdict"`
	Match   string   `json:"match,omitempty"`
	Comment string   `json:"comment,omitempty"`
	Packets *int64   `json:"packets"` // during the run; null: it has no counter
}

// MSSClamp is a rule that sets the maximum segment size of TCP connections on their way through (RFC
// 9293 section 3.7.1).
type MSSClamp struct {
	FirewallID
	Hooks []string `json:"hooks"`
	Size  int      `json:"size"` // octets; 0: what the MTU of each connection's route allows
}

func (l *Ledger) observeFirewall(s Snapshot, baseline bool) {
	if s.Clamps != nil {
		l.clamps = s.Clamps
	}
	if s.Firewall == nil {
		return
	}
	now := map[FirewallID]uint64{}
	for _, r := range s.Firewall {
		if r.Packets != nil {
			now[r.FirewallID] = *r.Packets
		}
	}
	l.firewallCount.observe(now, baseline)
	l.firewall = s.Firewall
}

// firewallEntries lists what drops at the end of the run; nil: not readable.
func (l *Ledger) firewallEntries() []FirewallEntry {
	if l.firewall == nil {
		return nil
	}
	out := []FirewallEntry{}
	counted := l.firewallCount.total()
	for _, r := range l.firewall {
		e := FirewallEntry{FirewallID: r.FirewallID, Hooks: r.Hooks, Verdict: r.Verdict, Match: r.Match, Comment: r.Comment}
		if e.Hooks == nil {
			e.Hooks = []string{}
		}
		if r.Packets != nil {
			e.Packets = new(counted[r.FirewallID])
		}
		out = append(out, e)
	}
	return out
}
