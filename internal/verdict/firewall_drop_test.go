// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"testing"

	"xfrmscope/internal/ledger"
)

// TestSuspects: rules are suspected of the drops at the hooks that they are reached from, and those of ingress and
// egress of what was last at the hook beside.
func TestSuspects(t *testing.T) {
	rule := func(handle uint64, hook string, packets int64) ledger.FirewallEntry {
		return ledger.FirewallEntry{FirewallID: ledger.FirewallID{Family: "inet", Table: "t", Chain: hook, Handle: handle},
			Hooks: []string{hook}, Verdict: "drop", Packets: &packets}
	}
	r := &ledger.Report{Firewall: []ledger.FirewallEntry{
		rule(1, "ingress", 4), rule(2, "input", 4), rule(3, "egress", 4), rule(4, "prerouting", 0),
	}}
	for hook, want := range map[string]string{
		"prerouting": "firewall.inet t ingress handle 1", "input": "firewall.inet t input handle 2", "postrouting": "firewall.inet t egress handle 3",
	} {
		_, evidence := suspects(r, &losses{drops: []ledger.Drop{{Hook: hook, Packets: 4}}, packets: 4})
		var names []string
		for _, e := range evidence {
			names = append(names, e.Counter)
		}
		if !slices.Equal(names, []string{want}) {
			t.Errorf("at %s: %q, want %q", hook, names, want)
		}
	}
}

// TestLossesOfUnknownWhole: where it was not observed how many packets there were, none of them is called a part.
func TestLossesOfUnknownWhole(t *testing.T) {
	drops := []ledger.Drop{{Stage: ledger.BeforeXfrm, Packets: 40}}
	for _, c := range []struct {
		arrivals *int64
		text     string
		severity Severity
	}{
		{nil, "40 packets", Warning},
		{new(int64(400)), "40 packets of 400 (10.0 %)", Critical},
		{new(int64(400000)), "40 packets of 400000 (0.01 %)", Warning},
	} {
		l := losses{drops: drops, packets: 40, sa: &ledger.SA{Ledger: ledger.Bins{In: &ledger.Inbound{Arrivals: c.arrivals}}}}
		if l.count() != c.text || l.graded(lossSeverity) != c.severity {
			t.Errorf("%q, %v; want %q, %v", l.count(), l.graded(lossSeverity), c.text, c.severity)
		}
	}
}
