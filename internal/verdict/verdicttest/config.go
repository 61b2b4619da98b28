// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// configScenarios are settings that may hurt, and those that only look like it.
var configScenarios = []Scenario{
	{Name: "an SA with DES and MD5", Prepare: algorithms("cbc(des)", "hmac(md5)"),
		Want: []verdict.ID{verdict.ConfigWeakAlgorithm, verdict.ConfigWeakAlgorithm}, Says: []string{"DES is broken"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "an SA with 3DES", Prepare: algorithms("cbc(des3_ede)", "hmac(sha256)"),
		Want: []verdict.ID{verdict.ConfigWeakAlgorithm}, Says: []string{"3DES"}, Grade: verdict.Info, Sure: 0.8},
	{Name: "an SA without integrity protection", Prepare: algorithms("cbc(aes)"),
		Want: []verdict.ID{verdict.ConfigWeakAlgorithm}, Says: []string{"Encryption without authentication"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "an SA with AES-CBC and HMAC-SHA-256", Prepare: algorithms("cbc(aes)", "hmac(sha256)")},
	{Name: "an SA with an algorithm to come", Prepare: algorithms("quantum(aes)")},
	{Name: "a weak SA that is gone", Prepare: inbound(32, false, func(sa *ledgertest.SA) {
		sa.Entry.Algorithms = []ledger.Algorithm{{Kind: "encryption", Name: "cbc(des)"}}
		sa.End(ledger.EndDeleted)
	})},
	{Name: "a policy behind a wider one that blocks", Prepare: twoPolicies(func(first, second *ledger.Policy) {
		first.Action, first.Templates = "block", nil
		second.Selector.Proto = 6
	}), Want: []verdict.ID{verdict.ConfigShadowedPolicy}, Says: []string{"Policy index 16", "is never asked: policy index 8", "block instead of protect by an SA"},
		Grade: verdict.Warning, Sure: 0.8},
	{Name: "the same policy twice", Prepare: twoPolicies(func(_, _ *ledger.Policy) {}),
		Want: []verdict.ID{verdict.ConfigRedundantPolicy}, Says: []string{"Policy index 16", "does nothing"}, Grade: verdict.Info, Sure: 0.6},
	{Name: "a narrow policy before a wide one", Prepare: twoPolicies(func(first, _ *ledger.Policy) { first.Selector.Proto = 6 })},
	{Name: "two policies of one priority", Prepare: twoPolicies(func(first, second *ledger.Policy) { first.Action, second.Priority = "block", 0 })},
	{Name: "two policies for different marks", Prepare: twoPolicies(func(_, second *ledger.Policy) { second.MarkValue, second.MarkMask = 1, 0xff })},
	{Name: "a covered policy that was asked before the other came", Prepare: twoPolicies(func(_, second *ledger.Policy) { second.Used = ledgertest.Start })},
	{Name: "no forward policy for a network", Prepare: letsIn(true, ledgertest.Inside),
		Want: []verdict.ID{verdict.ConfigMissingForwardPolicy}, Says: []string{"no fwd policy covers it"}, Grade: verdict.Info, Sure: 0.6},
	{Name: "no forward policy, and packets that want one", Prepare: func(w *ledgertest.World) func() {
		w.Furnish()
		sa := w.Inbound(0xc0ffee01, 32, false)
		w.Demand("in", sa)
		return func() { w.Deny(5, sa, ledgertest.Flow(ledger.NoPols, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.PolicyMissing}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "no forward policy where nothing is forwarded", Prepare: letsIn(false, ledgertest.Inside)},
	{Name: "no forward policy for one address", Prepare: letsIn(true, netip.MustParsePrefix("10.2.0.9/32"))},
	{Name: "a window of 32 at 20,000 packets a second", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(600000) }),
		Want: []verdict.ID{verdict.ConfigReplayWindow}, Says: []string{"1.6 ms at 20000 packets/s", "256 spans 10 ms"}, Grade: verdict.Info, Sure: 0.6},
	{Name: "a window of 256 at 20,000 packets a second", Prepare: inbound(256, false, func(sa *ledgertest.SA) { sa.Deliver(600000) })},
	{Name: "a window of 32 at 5,000 packets a second", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(150000) })},
	{Name: "settings as the kernel comes", Prepare: settings(map[string]string{
		"net/ipv4/tcp_rmem": "4096\t131072\t6291456", "net/ipv4/tcp_wmem": "4096\t16384\t4194304", "net/core/rmem_max": "212992",
		"net/core/netdev_max_backlog": "1000", "net/ipv4/ip_no_pmtu_disc": "0",
	})},
	{Name: "hardened path MTU discovery", Prepare: settings(map[string]string{"net/ipv4/ip_no_pmtu_disc": "3"})},
	{Name: "path MTU discovery off", Prepare: settings(map[string]string{"net/ipv4/ip_no_pmtu_disc": "2"}),
		Want: []verdict.ID{verdict.ConfigPMTUDiscoveryOff}, Says: []string{"ignores what routers say"}, Grade: verdict.Info, Sure: 0.6},
	{Name: "small and huge buffers", Prepare: settings(map[string]string{
		"net/ipv4/tcp_rmem": "4096 65536 131072", "net/ipv4/tcp_wmem": "4096 16384 1073741824", "net/core/netdev_max_backlog": "300000",
	}), Want: []verdict.ID{verdict.ConfigSocketBuffers},
		Says:  []string{"net.ipv4.tcp_rmem has 131072", "20 Mbit/s over 50 ms", "net.ipv4.tcp_wmem has 1073741824", "up to 300 ms"},
		Grade: verdict.Info, Sure: 0.6},
	{Name: "twelve SAs set up together", Prepare: together(12, 3600, 0),
		Want: []verdict.ID{verdict.ConfigEqualLifetimes}, Says: []string{"12 inbound SAs", "lifetime of 3600 s"}, Grade: verdict.Info, Sure: 0.6},
	{Name: "twelve SAs with margins drawn by lot", Prepare: together(12, 3600, 7)},
	{Name: "nine SAs set up together", Prepare: together(9, 3600, 0)},
	{Name: "an xfrm interface wider than its SA", Prepare: behindInterface(1500),
		Want: []verdict.ID{verdict.ConfigMTU}, Says: []string{"eth1 has an MTU of 1500", "more than 1446 octets"}, Grade: verdict.Info, Sure: 0.6},
	{Name: "an xfrm interface as wide as its SA", Prepare: behindInterface(1446)},
	{Name: "a segment size that no SA lets through", Prepare: clamped(1460),
		Want: []verdict.ID{verdict.ConfigMTU}, Says: []string{"inet mangle fwd handle 4", "segments of 1460 octets", "more than 1406"}, Grade: verdict.Info, Sure: 0.6},
	{Name: "a segment size that fits", Prepare: clamped(1360)},
	{Name: "a segment size that follows the route", Prepare: clamped(0)},
}

func algorithms(names ...string) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		sa.Entry.Algorithms = nil
		for _, n := range names {
			sa.Entry.Algorithms = append(sa.Entry.Algorithms, ledger.Algorithm{Name: n})
		}
		return func() {}
	}
}

// twoPolicies are one policy twice, but for what change makes of them.
func twoPolicies(change func(first, second *ledger.Policy)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		sa := w.Outbound(0xc0ffee02)
		w.Demand("out", sa)
		w.Demand("out", sa)
		w.Policies[1].Priority = 7
		change(&w.Policies[0], &w.Policies[1])
		return func() {}
	}
}

func letsIn(forwarding bool, dst netip.Prefix) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.Furnish()
		if !forwarding {
			w.Host.Sysctls["net/ipv4/ip_forward"] = "0"
		}
		w.Demand("in", w.Inbound(0xc0ffee01, 32, false)).Selector.Dst = dst
		return func() {}
	}
}

func settings(values map[string]string) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.Furnish()
		w.Inbound(0xc0ffee01, 32, false)
		for name, v := range values {
			w.Host.Sysctls[name] = v
		}
		return func() {}
	}
}

// together are SAs set up seconds apart, whose lifetimes differ by lot seconds from one to the next.
func together(n int, life, lot time.Duration) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		for i := range n {
			sa := w.Inbound(ledger.SPI(0xc0ffee01+i), 32, false)
			sa.Entry.Added = ledgertest.Start.Add(-time.Duration(i) * time.Second)
			sa.Entry.Lifetimes.SoftAdd = (life + time.Duration(i)*lot) * time.Second
			sa.Entry.Lifetimes.HardAdd = 2 * life * time.Second
		}
		return func() {}
	}
}

// behindInterface is an SA of an xfrm interface over a link of 1500 octets.
func behindInterface(mtu int) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.Furnish()
		w.Link(ledgertest.Other).Kind, w.Link(ledgertest.Other).MTU = "xfrm", mtu
		w.Outbound(0xc0ffee02).Entry.IfID = 42
		w.WatchPMTU()
		return func() {}
	}
}

// clamped is an SA over a link of 1500 octets, with a rule that sets TCP's segment size.
func clamped(size int) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.Furnish()
		w.Outbound(0xc0ffee02)
		w.WatchPMTU()
		w.Clamps = []ledger.MSSClamp{{
			FirewallID: ledger.FirewallID{Family: "inet", Table: "mangle", Chain: "fwd", Handle: 4}, Hooks: []string{"forward"}, Size: size,
		}}
		return func() {}
	}
}
