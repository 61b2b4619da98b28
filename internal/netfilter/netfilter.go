// SPDX-License-Identifier: Apache-2.0

// Package netfilter reads which nftables rules and chains of a network namespace drop packets, and
// which set TCP's segment size. It changes nothing: it asks only where nf_tables is loaded, since the
// question alone would load it.
package netfilter

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"xfrmscope/internal/ledger"
)

// module is there once nf_tables is loaded.
const module = "/sys/module/nf_tables"

// Ruleset is what of a ruleset matters to tunnels, ARP's tables not. Where nf_tables is not loaded both lists
// are empty. Rules of iptables-legacy are not nftables' and not listed.
type Ruleset struct {
	Drops  []ledger.FirewallRule // rules with the verdict drop or reject, and base chains whose policy is drop
	Clamps []ledger.MSSClamp
}

// Read reads the ruleset of the calling thread's network namespace.
func Read() (Ruleset, error) {
	none := Ruleset{Drops: []ledger.FirewallRule{}, Clamps: []ledger.MSSClamp{}}
	if _, err := os.Stat(module); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return none, nil
		}
		return Ruleset{}, fmt.Errorf("look for nf_tables: %w", err)
	}
	conn, err := nftables.New()
	if err != nil {
		return Ruleset{}, fmt.Errorf("open netfilter socket: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return Ruleset{}, fmt.Errorf("list nftables chains (needs CAP_NET_ADMIN): %w", err)
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table.Family == nftables.TableFamilyARP })
	rules := map[chainKey][]*nftables.Rule{}
	for _, c := range chains {
		if rules[keyOf(c.Table, c.Name)], err = conn.GetRules(c.Table, c); err != nil {
			return Ruleset{}, fmt.Errorf("list nftables rules of chain %s %s: %w", c.Table.Name, c.Name, err)
		}
	}
	return Ruleset{Drops: droppers(chains, rules), Clamps: clamps(chains, rules)}, nil
}

type chainKey struct {
	family      nftables.TableFamily
	table, name string
}

func keyOf(t *nftables.Table, chain string) chainKey { return chainKey{t.Family, t.Name, chain} }

// droppers picks out of a ruleset what drops.
func droppers(chains []*nftables.Chain, rules map[chainKey][]*nftables.Rule) []ledger.FirewallRule {
	hooks := hooksOf(chains, rules)
	out := []ledger.FirewallRule{}
	for _, c := range chains {
		key := keyOf(c.Table, c.Name)
		base := ledger.FirewallID{Family: familyName(c.Table.Family), Table: c.Table.Name, Chain: c.Name}
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			out = append(out, ledger.FirewallRule{FirewallID: base, Hooks: hooks[key], Verdict: "policy drop"})
		}
		for _, r := range rules[key] {
			verdict := verdictOf(r)
			if verdict == "" {
				continue
			}
			rule := ledger.FirewallRule{FirewallID: base, Hooks: hooks[key], Verdict: verdict, Match: matchOf(r)}
			rule.Handle = r.Handle
			rule.Packets = counterOf(r)
			rule.Comment, _ = userdata.GetString(r.UserData, userdata.TypeComment)
			out = append(out, rule)
		}
	}
	slices.SortFunc(out, func(a, b ledger.FirewallRule) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Handle, b.Handle))
	})
	return out
}

// hookNames are the hooks by their numbers: enum nf_inet_hooks, which bridges share, and for netdev enum
// nf_dev_hooks.
var (
	hookNames       = []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	netdevHookNames = []string{"ingress", "egress"}
)

// hooksOf says from which hooks each chain is reached: a base chain from its own, others from where
// chains with a jump or goto to them are.
func hooksOf(chains []*nftables.Chain, rules map[chainKey][]*nftables.Rule) map[chainKey][]string {
	hooks := map[chainKey][]string{}
	var reach func(key chainKey, hook string)
	reach = func(key chainKey, hook string) {
		if slices.Contains(hooks[key], hook) {
			return
		}
		hooks[key] = append(hooks[key], hook)
		for _, r := range rules[key] {
			for _, e := range r.Exprs {
				if v, ok := e.(*expr.Verdict); ok && v.Chain != "" {
					reach(chainKey{key.family, key.table, v.Chain}, hook)
				}
			}
		}
	}
	for _, c := range chains {
		names := hookNames
		if c.Table.Family == nftables.TableFamilyNetdev {
			names = netdevHookNames
		}
		if c.Hooknum != nil && int(*c.Hooknum) < len(names) {
			reach(keyOf(c.Table, c.Name), names[*c.Hooknum])
		}
	}
	return hooks
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyBridge:
		return "bridge"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprintf("family %d", f)
}

// verdictOf is drop, reject or "": iptables-nft rejects by way of an extension of iptables.
func verdictOf(r *nftables.Rule) string {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return "drop"
			}
		case *expr.Reject:
			return "reject"
		case *expr.Target:
			if e.Name == "REJECT" {
				return "reject"
			}
		}
	}
	return ""
}

func counterOf(r *nftables.Rule) *uint64 {
	for _, e := range r.Exprs {
		if c, ok := e.(*expr.Counter); ok {
			return &c.Packets
		}
	}
	return nil
}
