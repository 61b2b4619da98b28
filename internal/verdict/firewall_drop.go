// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// FirewallDrop is netfilter of this host dropping ESP, IKE, or what came out of ESP.
const FirewallDrop ID = "firewall-drop"

func firewallDrop(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range lost(r, func(d *ledger.Drop) bool { return d.Place == ledger.PlaceNetfilter }) {
		d := &l.drops[0]
		peer, known := dropPeer(r, d)
		f := Finding{
			ID: FirewallDrop, Severity: firewallSeverity(&l, known), Confidence: l.sure(r), Subject: l.subject(),
			Evidence: l.evidence(), Remedy: firewallRemedies(&l, peer.String()),
		}
		count := l.count()
		if !known {
			count = packets(l.packets)
		}
		f.Summary = fmt.Sprintf("Netfilter on this host dropped %s: %s, at the %s.", count, l.whose(), hooksOf(&l))
		if !known && d.Direction == ledger.In {
			f.Summary += " This host has no SA and no policy with that peer, so this may be what the firewall is for."
		}
		rules, evidence := suspects(r, &l)
		f.Summary += rules
		f.Evidence = append(f.Evidence, evidence...)
		out = append(out, f)
	}
	return out
}

// firewallSeverity: ESP and IKE of a peer of this host are never meant to be dropped. Of decrypted
// packets a firewall may well refuse some, so only where nothing passes it is a fault for sure.
func firewallSeverity(l *losses, known bool) Severity {
	d := &l.drops[0]
	switch {
	case d.Stage == ledger.AfterDecap:
		return l.graded(refusedSeverity)
	case d.Direction == ledger.In && !known:
		return Info
	case d.Stage == ledger.IKEPacket || d.Stage == ledger.Keepalive:
		return Warning
	}
	return l.graded(lossSeverity)
}

func refusedSeverity(lost, of int64) Severity {
	switch {
	case lost >= of:
		return Critical
	case lost*2 >= of:
		return Warning
	}
	return Info
}

func hooksOf(l *losses) string {
	var names []string
	for _, d := range l.drops {
		name := d.Hook + " hook"
		if d.Hook == "" {
			name = "hook unknown"
		}
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	return strings.Join(names, " and the ")
}

// chainOf is the chain that a rule for this hook belongs into.
func chainOf(hook string) string {
	if hook == "" {
		return "<chain>"
	}
	return hook
}

// firewallRemedies lets through what was dropped, and no more.
func firewallRemedies(l *losses, peer string) []Remedy {
	d := &l.drops[0]
	word, chain := "ip", chainOf(d.Hook)
	if d.Dst.Is6() {
		word = "ip6"
	}
	addr, iptAddr := "saddr "+peer, "-s "+peer
	if d.Direction == ledger.Out && d.Stage != ledger.AfterDecap {
		addr, iptAddr = "daddr "+peer, "-d "+peer
	}
	ipt := "iptables"
	if word == "ip6" {
		ipt = "ip6tables"
	}
	var what, iptWhat string
	switch {
	case d.Stage == ledger.AfterDecap && d.ReqID != 0:
		what = fmt.Sprintf("ipsec in reqid %d", d.ReqID)
		addr, iptAddr = "", ""
		iptWhat = fmt.Sprintf("-m policy --dir in --pol ipsec --reqid %d", d.ReqID)
	case d.Stage == ledger.AfterDecap:
		what, addr, iptAddr, iptWhat = "meta ipsec exists", "", "", "-m policy --dir in --pol ipsec"
	case d.Stage == ledger.IKEPacket || d.Stage == ledger.Keepalive || l.sa != nil && l.sa.Encap == ledger.EncapUDP || d.DstPort != 0:
		what, iptWhat = "udp dport { 500, 4500 }", "-p udp -m multiport --dports 500,4500"
		if d.Direction == ledger.Out || d.DstPort != 0 && d.DstPort != 500 && d.DstPort != 4500 {
			what, iptWhat = "udp sport { 500, 4500 }", "-p udp -m multiport --sports 500,4500"
		}
	case d.Proto == ledger.AH:
		what, iptWhat = "meta l4proto ah", "-p ah"
	default:
		what, iptWhat = "meta l4proto esp", "-p esp"
	}
	if addr != "" {
		what = word + " " + addr + " " + what
		iptWhat = iptAddr + " " + iptWhat
	}
	out := []Remedy{
		{For: forNftables, Text: "Find the rule, then let the packets pass in front of it: in nftables a drop in any table and chain of a hook is final, so the rule belongs into the chain that drops. Handles and counters show which.",
			Commands: []string{
				"nft -a list ruleset | grep -E 'hook " + chain + "|drop|reject'",
				fmt.Sprintf("nft insert rule inet <table> <%s chain> %s accept", chain, what),
			}},
		{For: forIptables, Text: "The same with iptables, by the number of the chain's first rule; keep it with the distribution's tool (netfilter-persistent, firewalld, ufw).",
			Commands: []string{
				fmt.Sprintf("%s -L %s -v -n --line-numbers", ipt, strings.ToUpper(chain)),
				fmt.Sprintf("%s -I %s 1 %s -j ACCEPT", ipt, strings.ToUpper(chain), iptWhat),
			}},
	}
	if d.Stage == ledger.AfterDecap {
		return append(out, Remedy{For: forStrongSwan, Text: "charon lets the updown script add such rules for each tunnel, and take them away with it.",
			Commands: []string{"connections.<conn>.children.<child>.updown = /usr/lib/ipsec/_updown iptables"}})
	}
	return append(out, Remedy{For: forPeer, Text: "Nothing to change there: the packets arrive, or are this host's own."})
}

// suspectsMax bounds the candidates that are named; JSON holds the whole list.
const suspectsMax = 4

// beside are the hooks that a packet's state cannot be told apart from these by: it has no route yet, or is at
// the device that it leaves by.
var beside = map[string]string{"ingress": "prerouting", "egress": "postrouting"}

// suspects names rules that may have done it: those at the hook whose counter moved, and those that
// have none. The kernel does not say which rule dropped a packet; a counter that moved by exactly as
// many packets is as close as one gets.
func suspects(r *ledger.Report, l *losses) (sentence string, evidence []Evidence) {
	hooks := map[string]int64{}
	for _, d := range l.drops {
		hooks[d.Hook] += d.Packets
	}
	exact := 0
	for i := range r.Firewall {
		rule := &r.Firewall[i]
		n := int64(0)
		for _, h := range rule.Hooks {
			n = max(n, hooks[h], hooks[beside[h]])
		}
		if n == 0 || rule.Packets != nil && *rule.Packets == 0 || len(evidence) == suspectsMax {
			continue
		}
		name := ruleName(rule)
		if rule.Packets == nil {
			evidence = append(evidence, Evidence{"firewall." + name, 0, "packets", "nftables", "a candidate: it has no counter" + matching(rule)})
			continue
		}
		note := "a candidate: its counter moved" + matching(rule)
		if *rule.Packets == n {
			exact++
			note = "its counter moved by as many" + matching(rule)
			sentence = fmt.Sprintf(" The counter of %s moved by as many.", name)
		}
		evidence = append(evidence, Evidence{"firewall." + name, *rule.Packets, "packets", "nftables", note})
	}
	if exact != 1 {
		sentence = ""
	}
	return sentence, evidence
}

func ruleName(rule *ledger.FirewallEntry) string {
	if rule.Handle == 0 {
		return fmt.Sprintf("%s %s %s policy drop", rule.Family, rule.Table, rule.Chain)
	}
	return fmt.Sprintf("%s %s %s handle %d", rule.Family, rule.Table, rule.Chain, rule.Handle)
}

func matching(rule *ledger.FirewallEntry) string {
	s := ""
	if rule.Match != "" {
		s += "; matches " + rule.Match
	}
	if rule.Comment != "" {
		s += fmt.Sprintf("; comment %q", rule.Comment)
	}
	return s
}
