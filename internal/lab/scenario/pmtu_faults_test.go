// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/tunnel"
)

// pmtuFamily are the findings that these tests are about. What else a fault makes visible, such as
// repeated segments, is other tests' to judge.
var pmtuFamily = []string{"mtu-black-hole", "outer-fragmentation", "pmtu-ptb-ignored", "pmtu-ptb-not-applied", "pmtu-ptb-swallowed", "pmtu-reduced", "reassembly-failed"}

// checkPMTU demands exactly these findings of the family, each written "id spi".
func (o observation) checkPMTU(t *testing.T, want ...string) {
	t.Helper()
	got := []string{}
	for _, f := range o.report.Findings {
		t.Logf("found %s %s, which explains %v: %s", f.ID, f.Subject.SPI, f.Folded, f.Summary)
		if slices.Contains(pmtuFamily, f.ID) {
			got = append(got, strings.TrimSpace(f.ID+" "+f.Subject.SPI))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	diff(t, "findings about packets that do not fit", append([]string{}, want...), got)
}

// TestPMTUGateway has gateway B meet, each on an SA of its own: a sender that does not listen, one that
// is not told because a policy swallows the message, one whose ESP is cut, and one that does all right;
// and towards it ESP in fragments that do and do not become whole.
func TestPMTUGateway(t *testing.T) {
	tunnel.Need(t)
	const deaf, untold, cut, whole, torn = 40, 20, 25, 10, 12
	p := openPMTU(t, tunnel.Options{Pairs: 4})
	tn, b := p.tunnel, p.tunnel.B.Namespace
	p.must(b.Sysctl("ipv4/ipfrag_time", "2"))
	p.must(b.IP(fmt.Sprintf("xfrm policy add src 10.255.255.1/32 dst %s/32 dir out action block", tn.BtoA[1].Src)))

	p.datagrams(tn.BtoA[0], linkMTU, deaf, true, 100*time.Millisecond)
	p.datagrams(tn.BtoA[1], linkMTU, untold, true, 20*time.Millisecond)
	p.datagrams(tn.BtoA[2], linkMTU, cut, false, 5*time.Millisecond)
	p.datagrams(tn.BtoA[3], innerMTU, 25, true, 5*time.Millisecond)
	diff(t, "octets of a transfer that arrived", 100000, p.transfer(tn.BtoA[3], 100000, patience))

	p.datagrams(tn.AtoB[1], linkMTU, whole, false, 5*time.Millisecond)
	time.Sleep(calm)
	p.nft(tn.Path, "add table ip torn", "add chain ip torn forward { type filter hook forward priority 0; }",
		"add rule ip torn forward ip protocol esp ip frag-off & 0x1fff != 0 counter drop")
	p.datagrams(tn.AtoB[0], linkMTU, torn, false, 5*time.Millisecond)
	p.must(swan.Until("the end of reassembly", func() (bool, error) { return p.rose(b, "Ip.ReasmFails") >= torn, nil }))
	o := p.finish()

	told := o.events("tell_sender")
	for i, want := range map[int][2]int64{0: {deaf, deaf}, 1: {untold, 0}} {
		of := through(told, tn.BtoA[i])
		if len(of) != 1 || of[0].Sent == nil {
			t.Fatalf("events of SA %s: %+v, want one with the messages that left", name(tn.BtoA[i].SPI), of)
		}
		diff(t, "too big, told, MTU, size of "+name(tn.BtoA[i].SPI), []int64{want[0], want[1], innerMTU, linkMTU},
			[]int64{of[0].Packets, *of[0].Sent, int64(of[0].MTU), int64(of[0].SizeMax)})
	}
	// What the kernels of both namespaces counted on their own is the truth.
	diff(t, "packets that did not fit, all of them", p.rose(b, "Ip.FragFails"), packetsOf(told))
	sent := int64(0)
	for _, e := range told {
		sent += *e.Sent
	}
	diff(t, "messages that left", p.rose(b, "Icmp.OutDestUnreachs"), sent)
	diff(t, "messages that the hosts heard", p.rose(p.from, "Icmp.InDestUnreachs"), sent)

	pieces := through(o.events("fragmented"), tn.BtoA[2])
	diff(t, "ESP cut, of all SAs, of the one", []int64{cut, cut}, []int64{packetsOf(o.events("fragmented")), packetsOf(pieces)})
	diff(t, "fragments made", int64(2*cut), p.rose(b, "Ip.FragCreates"))
	expired := o.events("reasm_expired")
	diff(t, "ESP that never became whole, of all SAs, of the one", []int64{torn, torn},
		[]int64{packetsOf(expired), packetsOf(through(expired, tn.AtoB[0]))})
	diff(t, "reassembly by the kernel's account: whole, failed", []int64{whole, torn},
		[]int64{p.rose(b, "Ip.ReasmOKs"), p.rose(b, "Ip.ReasmFails")})
	o.checkPMTU(t, "pmtu-ptb-ignored "+name(tn.BtoA[0].SPI), "pmtu-ptb-swallowed "+name(tn.BtoA[1].SPI),
		"outer-fragmentation "+name(tn.BtoA[2].SPI), "outer-fragmentation", "reassembly-failed "+name(tn.AtoB[0].SPI))
}

// TestPMTUPath narrows the path while everybody does as RFC 1191 and RFC 8201 want: the router says so,
// gateway B goes by it and tells the host behind it, and a transfer passes. That is worth a remark and
// no alarm.
func TestPMTUPath(t *testing.T) {
	tunnel.Need(t)
	for _, tc := range []struct {
		options    tunnel.Options
		inner, mss int
	}{
		{tunnel.Options{}, squeezed, squeezed - 40},
		// 1400 less 40 of IPv6, 8 of UDP, 8 of ESP, 8 of IV and 16 of ICV is 1320, less 2.
		{tunnel.Options{Family: 6, UDP: true}, 1318, 1318 - 40},
	} {
		t.Run(fmt.Sprintf("v%d UDP %v", max(4, tc.options.Family), tc.options.UDP), func(t *testing.T) {
			p := openPMTU(t, tc.options)
			p.narrowPath()
			diff(t, "octets that arrived", 200000, p.transfer(p.sa, 200000, patience))
			o := p.finish()
			p.checkTold(o, tc.inner)
			diff(t, "paths", []pmtuPath{{SPI: name(p.sa.SPI), LinkMTU: linkMTU, RouteMTU: narrow, PathMTU: narrow, ToldMTU: narrow,
				InnerMTU: tc.inner, MSS4: tc.mss}}, o.report.PMTU.Paths)
			// The kernel's own arithmetic: what the host behind was told is in its route.
			route, err := p.from.Output("route", "get", p.sa.Dst.String())
			p.must(err)
			if want := fmt.Sprintf("mtu %d", tc.inner); !strings.Contains(route, want) {
				t.Errorf("the host's route has no %q: %s", want, route)
			}
			o.checkFindings(t, "pmtu-reduced "+name(p.sa.SPI))
		})
	}
}

// checkTold demands that what the router said, what gateway B heard and what it passed on agree.
func (p *pmtuBench) checkTold(o observation, inner int) {
	p.t.Helper()
	said, heard := "Icmp.OutDestUnreachs", "Icmp.InDestUnreachs"
	if p.sa.Dst.Is6() {
		said, heard = "Icmp6OutPktTooBigs", "Icmp6InPktTooBigs"
	}
	told := o.events("told")
	if len(told) != 1 {
		p.t.Fatalf("told: %+v, want one entry", told)
	}
	diff(p.t, "the router's messages: said, heard, noted", []int64{told[0].Packets, told[0].Packets},
		[]int64{p.rose(p.tunnel.Path, said), p.rose(p.tunnel.B.Namespace, heard)})
	diff(p.t, "quoted SPI, MTU", []any{name(p.sa.SPI), narrow}, []any{told[0].SPI, told[0].MTU})
	applied := told[0].Packets
	if p.sa.Dst.Is6() {
		applied = 1 // __ip6_rt_update_pmtu() looks first whether the route knows it already
	}
	diff(p.t, "applied", applied, packetsOf(o.events("applied")))
	on := o.events("tell_sender")
	diff(p.t, "this gateway's messages: noted, said, heard", []int64{packetsOf(on), packetsOf(on)},
		[]int64{p.rose(p.tunnel.B.Namespace, said), p.rose(p.from, heard)})
	if !slices.ContainsFunc(on, func(e pmtuEvent) bool { return e.MTU == inner }) {
		p.t.Errorf("the host was not told of %d: %+v", inner, on)
	}
}

// TestPMTUNotApplied locks gateway B's route, so that the router talks to the wall.
func TestPMTUNotApplied(t *testing.T) {
	tunnel.Need(t)
	p := openPMTU(t, tunnel.Options{})
	p.narrowPath()
	p.must(p.tunnel.B.IP(fmt.Sprintf("route replace default via 198.51.100.254 dev %s mtu lock %d", tunnel.WAN, linkMTU)))
	diff(t, "octets that arrived", 0, p.transfer(p.sa, 100000, 6*time.Second))
	o := p.finish()
	diff(t, "messages: said, noted", p.rose(p.tunnel.Path, "Icmp.OutDestUnreachs"), packetsOf(o.events("told")))
	o.checkPMTU(t, "pmtu-ptb-not-applied "+name(p.sa.SPI))
}

// TestMTUBlackHole lets the router drop what does not fit and keep silent. Before that, packets get
// lost whatever their size, which must not be taken for it.
func TestMTUBlackHole(t *testing.T) {
	tunnel.Need(t)
	t.Run("loss", func(t *testing.T) {
		p := openPMTU(t, tunnel.Options{})
		p.nft(p.tunnel.Path, "add table ip lossy", "add chain ip lossy forward { type filter hook forward priority 0; }",
			fmt.Sprintf("add rule ip lossy forward ip saddr %s ip protocol esp numgen inc mod 15 == 7 counter drop comment \"lossy\"", p.tunnel.B.Outer))
		diff(t, "octets that arrived", 100000, p.transfer(p.sa, 100000, patience))
		if n := p.nftCounters(p.tunnel.Path)["lossy"]; n == 0 {
			t.Fatal("invalid run: the path lost nothing")
		}
		p.finish().checkPMTU(t)
	})
	t.Run("hole", func(t *testing.T) {
		p := openPMTU(t, tunnel.Options{})
		p.narrowPath()
		p.nft(p.tunnel.Path, "add table ip mute", "add chain ip mute output { type filter hook output priority 0; }",
			"add rule ip mute output icmp type destination-unreachable counter drop")
		diff(t, "octets in small segments that arrived", 40000, p.segments(p.sa, 40000, 400, patience))
		diff(t, "octets of a large transfer that arrived", 0, p.transfer(p.sa, 100000, 8*time.Second))
		o := p.finish()
		if n := p.rose(p.tunnel.Path, "Icmp.OutDestUnreachs"); n < 4 {
			t.Errorf("the router dropped %d packets that were too big, want the first ones and their repeats", n)
		}
		diff(t, "messages that arrived", 0, len(o.events("told")))
		o.checkPMTU(t, "mtu-black-hole "+name(p.sa.SPI))
		if t.Failed() {
			return
		}
		// The advice is taken as it stands there.
		for _, command := range o.commands(t, "mtu-black-hole", "nftables") {
			p.must(inside(p.tunnel.B.Namespace, "sh", "-c", command))
		}
		diff(t, "octets that arrive once the MSS is clamped", 100000, p.transfer(p.sa, 100000, patience))
	})
}

// commands are those that a finding's remedy gives for somebody.
func (o observation) commands(t *testing.T, id, who string) (out []string) {
	t.Helper()
	for _, f := range o.report.Findings {
		for _, r := range f.Remedy {
			remedy, ok := r.(map[string]any)
			if !ok || f.ID != id || remedy["for"] != who {
				continue
			}
			lines, _ := remedy["commands"].([]any)
			for _, line := range lines {
				out = append(out, fmt.Sprint(line))
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s gives no commands for %s", id, who)
	}
	return out
}
