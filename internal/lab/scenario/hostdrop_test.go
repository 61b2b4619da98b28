// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/tunnel"
)

// ruleset is loaded into gateway B under xfrmscope's eyes. Each rule that drops has a counter, which
// is the truth that the ledger is held against.
const ruleset = `
table inet lab {
	chain at_input {
		type filter hook input priority 0; policy accept;
		esp spi 0xa2b00002 numgen inc mod 4 0 counter drop comment "esp-in"
		udp dport 9999 counter drop comment "plain"
	}
	chain at_forward {
		type filter hook forward priority 0; policy accept;
		ip saddr 10.1.2.1 numgen inc mod 5 0 counter drop comment "inner"
		ip saddr 10.1.0.1 udp dport 1 counter drop comment "other"
	}
	chain at_output {
		type filter hook output priority 0; policy accept;
		esp spi 0xb2a00004 numgen inc mod 3 0 counter drop comment "esp-out"
	}
	chain at_prerouting {
		type filter hook prerouting priority -300; policy accept;
		esp spi 0xa2b00007 numgen inc mod 2 0 counter drop comment "esp-pre"
	}
}
`

// TestHostDrops has eight tunnels between hosts, each with another place where gateway B loses their
// packets, and healthy ones beside them under rules that look alike.
func TestHostDrops(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{Hosts: true, Pairs: 8}, nil)
	b.run("nft", ruleset, "-f", "-")
	b.run("ip", "", "route", "replace", "blackhole", b.tunnel.AtoB[4].Dst.String())
	b.run("tc", "", "qdisc", "replace", "dev", tunnel.WAN, "clsact")
	b.run("tc", "", "filter", "add", "dev", tunnel.WAN, "egress", "protocol", "ip", "u32",
		"match", "ip", "protocol", "50", "0xff", "match", "u32", "0xb2a00006", "0xffffffff", "at", "20", "action", "drop")
	b.run("tc", "", "filter", "add", "dev", tunnel.WAN, "ingress", "protocol", "ip", "u32",
		"match", "ip", "protocol", "50", "0xff", "match", "u32", "0xa2b00008", "0xffffffff", "at", "20", "action", "drop")
	const each = 60
	for range each / 10 {
		for i := range b.tunnel.AtoB {
			b.send(b.tunnel.AtoB[i], 10)
			b.send(b.tunnel.BtoA[i], 10)
		}
	}
	// Packets without an SA that the rules let pass.
	for seq := range uint32(5) {
		b.path.Send(inject.AtoB, inject.Crafted{
			SrcMAC: b.tunnel.A.MAC, DstMAC: b.tunnel.B.MAC, Src: b.tunnel.A.Outer, Dst: b.tunnel.B.Outer,
			SPI: 0xdeadbeef, Seq: 1 + seq, Payload: bytes.Repeat([]byte{0x5a}, 120), UDP: false,
		})
	}
	b.settle()
	counted := b.nftCounters(b.tunnel.B.Namespace)
	o := b.finish()
	diff(t, "packets that nftables dropped", map[string]int64{"esp-in": 15, "inner": 12, "esp-out": 20, "esp-pre": 30, "plain": 0, "other": 0}, counted)

	in := func(lostInHost, inner int64) bins {
		return bins{
			Sent: new(int64(each)), LostOnPath: new(int64(0)), Pending: new(int64(0)), Arrivals: new(int64(each)), Duplicates: new(int64(0)),
			LostInHost: &lostInHost, XfrmDropped: new(int64(0)), Decapsulated: new(each - lostInHost), PolicyDropped: new(int64(0)),
			InnerDropped: &inner, Delivered: new(each - lostInHost - inner), InFlight: new(int64(0)), Unattributed: new(int64(0)),
		}
	}
	out := func(lost int64) bins {
		return bins{Offered: new(int64(each)), XfrmOutDropped: new(int64(0)), Encapsulated: new(int64(each)), OnWire: new(each - lost),
			LostOnEgress: &lost, InFlight: new(int64(0)), Unattributed: new(int64(0))}
	}
	wantIn := map[int]bins{1: in(15, 0), 2: in(0, 12), 4: in(0, each), 6: in(30, 0), 7: in(each, 0)}
	wantOut := map[int]bins{3: out(20), 5: out(each)}
	for i := range b.tunnel.AtoB {
		w, ok := wantIn[i]
		if !ok {
			w = in(0, 0)
		}
		diff(t, fmt.Sprintf("inbound ledger of pair %d", i), w, o.find(t, b.tunnel.AtoB[i].SPI, "in").Ledger)
		if w, ok = wantOut[i]; !ok {
			w = out(0)
		}
		diff(t, fmt.Sprintf("outbound ledger of pair %d", i), w, o.find(t, b.tunnel.BtoA[i].SPI, "out").Ledger)
		distinct, _ := b.flows[b.tunnel.AtoB[i].SPI].Delivered()
		if got := o.find(t, b.tunnel.AtoB[i].SPI, "in").Ledger.Delivered; got != nil {
			diff(t, fmt.Sprintf("datagrams delivered of pair %d", i), int64(distinct), *got)
		}
	}
	places := map[string]int64{}
	for _, d := range o.report.Drops {
		if d.Function == "" || !d.Lost {
			t.Errorf("a drop without a function, or in no bin: %+v", d)
		}
		places[strings.TrimSpace(d.Stage+" "+d.Place+" "+d.Hook)] += d.Packets
	}
	diff(t, "drops by place", map[string]int64{
		"before_xfrm netfilter input": 15, "before_xfrm netfilter prerouting": 30, "after_decap netfilter forward": 12,
		"egress netfilter output": 20, "after_decap route": each, "egress tc": each, "before_xfrm tc": each,
	}, places)
	spi := func(s tunnel.SA) string { return " " + name(s.SPI) }
	o.checkFindings(t, "firewall-drop"+spi(b.tunnel.AtoB[1]), "firewall-drop"+spi(b.tunnel.AtoB[2]), "firewall-drop"+spi(b.tunnel.AtoB[6]),
		"firewall-drop"+spi(b.tunnel.BtoA[3]), "no-route-after-decap"+spi(b.tunnel.AtoB[4]), "egress-drop"+spi(b.tunnel.BtoA[5]), "host-ingress-drop"+spi(b.tunnel.AtoB[7]),
		"spi-unknown "+name(0xdeadbeef))
	o.checkSelf(t)
}

// run runs a command in gateway B.
func (b *bench) run(name, in string, args ...string) string {
	b.t.Helper()
	var stdout, stderr bytes.Buffer
	err := b.tunnel.B.Do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		b.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.String()
}

var nftCounterPattern = regexp.MustCompile(`counter packets (\d+) bytes \d+ drop comment "([a-z-]+)"`)

// nftCounters reads the counters of the rules that have a comment.
func (b *bench) nftCounters(ns *tunnel.Namespace) map[string]int64 {
	b.t.Helper()
	out := map[string]int64{}
	for _, m := range nftCounterPattern.FindAllStringSubmatch(string(command(b.t, ns, "nft list ruleset")), -1) {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			b.t.Fatal(err)
		}
		out[m[2]] = n
	}
	return out
}

// localRuleset drops what is for gateway B itself, and IKE of its peer on one of two ports.
const localRuleset = `
table inet lab {
	chain at_input {
		type filter hook input priority 0; policy accept;
		ip saddr 10.1.1.1 counter drop comment "inner"
		udp dport 500 counter drop comment "ike"
	}
}
`

// TestLocalDrops has gateway B, as the end of its tunnels, lose packets by its firewall, for want of
// the next hop's link address, and by the reverse path filter. IKE that nobody listens for looks like
// IKE that is filtered, and is not.
func TestLocalDrops(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{Pairs: 2}, nil)
	b.run("nft", localRuleset, "-f", "-")
	there, other, back := b.tunnel.AtoB[0], b.tunnel.AtoB[1], b.tunnel.BtoA[0]
	b.send(there, 30)
	b.send(other, 30)
	b.send(back, 30)
	for port, count := range map[string]int{"500": 7, "4500": 9} {
		if err := b.tunnel.A.Do(func() error { return unheard(b.tunnel.B.Outer.String()+":"+port, count) }); err != nil {
			t.Fatal(err)
		}
	}
	b.settle()

	if err := errors.Join(b.tunnel.A.Sysctl("ipv4/conf/wan/arp_ignore", "8"), b.tunnel.B.Sysctl("ipv4/neigh/wan/retrans_time_ms", "100"),
		b.tunnel.B.IP("neigh del "+b.tunnel.A.Outer.String()+" dev "+tunnel.WAN)); err != nil {
		t.Fatal(err)
	}
	b.send(back, 3)
	b.must(swan.Until("the end of the search for the next hop", func() (bool, error) {
		out, err := b.tunnel.B.Output("neigh", "show", b.tunnel.A.Outer.String(), "dev", tunnel.WAN)
		return strings.Contains(out, "FAILED"), err
	}))
	if err := b.tunnel.B.IP(fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", b.tunnel.A.Outer, b.tunnel.A.MAC, tunnel.WAN)); err != nil {
		t.Fatal(err)
	}

	if err := errors.Join(b.tunnel.B.Sysctl("ipv4/conf/all/rp_filter", "1"), b.tunnel.B.Sysctl("ipv4/conf/wan/rp_filter", "1"),
		b.tunnel.B.IP("route add "+b.tunnel.A.Outer.String()+"/32 dev lo")); err != nil {
		t.Fatal(err)
	}
	b.send(there, 20)
	b.settle()
	if err := b.tunnel.B.IP("route del " + b.tunnel.A.Outer.String() + "/32 dev lo"); err != nil {
		t.Fatal(err)
	}
	diff(t, "packets that nftables dropped", map[string]int64{"inner": 30, "ike": 7}, b.nftCounters(b.tunnel.B.Namespace))
	o := b.finish()
	values := func(in bins) []int64 {
		return []int64{*in.Arrivals, *in.LostInHost, *in.Decapsulated, *in.InnerDropped, *in.Delivered, *in.Unattributed}
	}
	what := "arrived, lost in host, decapsulated, inner path, delivered, unattributed"
	diff(t, what, []int64{50, 20, 30, 0, 30, 0}, values(o.find(t, there.SPI, "in").Ledger))
	diff(t, what, []int64{30, 0, 30, 30, 0, 0}, values(o.find(t, other.SPI, "in").Ledger))
	out := o.find(t, back.SPI, "out").Ledger
	diff(t, "encapsulated, lost, on the wire, unattributed", []int64{33, 3, 30, 0},
		[]int64{*out.Encapsulated, *out.LostOnEgress, *out.OnWire, *out.Unattributed})
	ike := map[string]int64{}
	for _, d := range o.report.Drops {
		if d.Stage == "ike" {
			ike[fmt.Sprintf("%d %s", d.DstPort, d.Place)] += d.Packets
		}
	}
	diff(t, "IKE by port and place", map[string]int64{"500 netfilter": 7, "4500 socket": 9}, ike)
	o.checkFindings(t, "rp-filter-drop "+name(there.SPI), "firewall-drop "+name(other.SPI), "firewall-drop", "egress-drop "+name(back.SPI))
	o.checkSelf(t)
}

// unheard sends datagrams from a socket that does not hear that they are refused.
func unheard(to string, count int) error {
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	for range count {
		if _, err := conn.WriteToUDP(make([]byte, 64), addr); err != nil {
			return errors.Join(err, conn.Close())
		}
		time.Sleep(pace)
	}
	return conn.Close()
}

// encapRuleset drops ESP in UDP both ways. What is in it is forwarded, and not the input chain's.
const encapRuleset = `
table inet lab {
	chain at_input {
		type filter hook input priority 0; policy accept;
		udp dport 4500 numgen inc mod 4 0 counter drop comment "in"
		udp dport 9000 counter drop comment "other"
	}
	chain at_postrouting {
		type filter hook postrouting priority 0; policy accept;
		udp sport 4500 numgen inc mod 5 0 counter drop comment "out"
	}
}
`

// TestHostDropsInUDP does the same to IPv6 with ESP in UDP, both ways between hosts, so that packets
// are dropped at other hooks.
func TestHostDropsInUDP(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{Family: 6, UDP: true, Hosts: true}, nil)
	b.run("nft", encapRuleset, "-f", "-")
	there, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	b.send(there, 60)
	b.send(back, 60)
	b.settle()
	diff(t, "packets that nftables dropped", map[string]int64{"in": 15, "out": 12, "other": 0}, b.nftCounters(b.tunnel.B.Namespace))
	o := b.finish()
	in, out := o.find(t, there.SPI, "in").Ledger, o.find(t, back.SPI, "out").Ledger
	diff(t, "arrived, lost in host, decapsulated, inner path, delivered, unattributed", []int64{60, 15, 45, 0, 45, 0},
		[]int64{*in.Arrivals, *in.LostInHost, *in.Decapsulated, *in.InnerDropped, *in.Delivered, *in.Unattributed})
	diff(t, "encapsulated, lost, on the wire, unattributed", []int64{60, 12, 48, 0},
		[]int64{*out.Encapsulated, *out.LostOnEgress, *out.OnWire, *out.Unattributed})
	for _, d := range o.report.Drops {
		if d.Place != "netfilter" || d.Hook != map[string]string{"before_xfrm": "input", "egress": "postrouting"}[d.Stage] {
			t.Errorf("not what the rules did: %+v", d)
		}
	}
	o.checkFindings(t, "firewall-drop "+name(there.SPI), "firewall-drop "+name(back.SPI))
	o.checkSelf(t)
}
