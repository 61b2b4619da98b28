// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/tunnel"
)

// Pairs of the tunnel that the policies of gateway B treat each in its own way.
const (
	pairClean = iota
	pairTemplate
	pairNoPolicy
	pairBlocked
	pairSelector
	pairForwarded
	pairsOfPolicies
)

// policyLab does to gateway B what a hand that sets policies may do wrong, one fault a pair or a
// destination. Whatever is for 10.8 or 10.9 passes through B to a network behind it.
func policyLab(tun *tunnel.Tunnel) error {
	a, b := tun.A, tun.B
	pair := func(i int) tunnel.SA { return tun.AtoB[i] }
	inPolicy := func(i int) string { return fmt.Sprintf("src %s/32 dst %s/32 dir in", pair(i).Src, pair(i).Dst) }
	tmpl := func(reqid uint32) string {
		return fmt.Sprintf("tmpl src %s dst %s proto esp reqid %d mode tunnel", a.Outer, b.Outer, reqid)
	}
	key := make([]byte, 20)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	narrow, through := pair(pairSelector), pair(pairForwarded)
	state := func(dst netip.Addr, spi, reqid uint32, src netip.Addr, sel string) string {
		return fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid %d mode tunnel replay-window 32 aead rfc4106(gcm(aes)) 0x%s 128%s",
			src, dst, spi, reqid, hex.EncodeToString(key), sel)
	}
	for _, g := range []*tunnel.Gateway{a, b} {
		if err := narrow.Delete(g); err != nil {
			return err
		}
	}
	if err := a.IP(
		state(b.Outer, narrow.SPI, narrow.ReqID, a.Outer, ""),
		"route add 10.8.0.0/16 via "+b.Outer.String(), "route add 10.9.0.0/16 via "+b.Outer.String(),
		fmt.Sprintf("xfrm policy add src %s/32 dst 10.9.0.0/16 dir out %s", a.Outer, tmpl(through.ReqID)),
	); err != nil {
		return err
	}
	if err := b.Sysctl("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return b.IP(
		"link add v2 type veth peer name v3", "addr add 203.0.113.2/24 dev v2", "link set v2 up", "link set v3 up",
		"neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 nud permanent dev v2",
		"route add 10.8.0.0/16 via 203.0.113.1", "route add 10.9.0.0/16 via 203.0.113.1",
		// Decrypted, and then refused.
		"xfrm policy update "+inPolicy(pairTemplate)+" "+tmpl(77),
		"xfrm policy delete "+inPolicy(pairNoPolicy),
		"xfrm policy update "+inPolicy(pairBlocked)+" action block",
		state(b.Outer, narrow.SPI, narrow.ReqID, a.Outer, fmt.Sprintf(" sel src %s/32 dst %s/32 proto 6", narrow.Src, narrow.Dst)),
		fmt.Sprintf("xfrm policy add src %s/32 dst 10.9.0.0/16 dir in %s", a.Outer, tmpl(through.ReqID)),
		// Plaintext to a protected port; the port beside it is open to anybody.
		fmt.Sprintf("xfrm policy add src %s/32 dst %s/32 proto 17 dport 9100 dir in %s", a.Outer, pair(pairClean).Dst, tmpl(1)),
		// Forwarded, and not to be sent, each for its own reason.
		"xfrm policy add src 0.0.0.0/0 dst 10.8.1.0/24 dir out tmpl src "+b.Outer.String()+" dst 203.0.113.77 proto esp reqid 501 mode tunnel",
		"xfrm policy add src 0.0.0.0/0 dst 10.8.2.0/24 dir out action block",
		"xfrm policy add src 0.0.0.0/0 dst 10.8.3.0/24 dir fwd action block",
		"xfrm policy add src 0.0.0.0/0 dst 10.8.4.0/24 dir out tmpl src "+b.Outer.String()+" dst 198.51.100.9 proto esp reqid 504 mode tunnel",
		state(netip.MustParseAddr("198.51.100.9"), 0x9504, 504, b.Outer, ""),
		"link add xf0 type xfrm dev "+tunnel.WAN+" if_id 42", "link set xf0 up", "route add 10.8.5.0/24 dev xf0",
	)
}

// TestPolicies lets every kind of refusal happen in one run, each with a count of its own, beside a
// tunnel and plaintext that nothing is wrong with.
func TestPolicies(t *testing.T) {
	tunnel.Need(t)
	b := openPrepared(t, tunnel.Options{Pairs: pairsOfPolicies}, policyLab, nil)
	outer, open := b.tunnel.A.Outer, b.tunnel.AtoB[pairClean].Dst
	listener := b.listen(open, 9101)
	for pair, n := range map[int]int{pairClean: 60, pairTemplate: 40, pairNoPolicy: 30, pairBlocked: 20, pairSelector: 25} {
		b.send(b.tunnel.AtoB[pair], n)
	}
	to := func(dst string, port uint16, n int) {
		b.throw(b.tunnel.A, outer, netip.AddrPortFrom(netip.MustParseAddr(dst), port), n)
	}
	to("10.9.0.1", 9000, 35) // through the tunnel, to be forwarded
	to(open.String(), 9100, 14)
	to(open.String(), 9101, 30)
	to("10.8.0.1", 9000, 50) // forwarded as it should be
	to("10.8.1.1", 9000, 12)
	to("10.8.2.1", 9000, 16)
	to("10.8.3.1", 9000, 18)
	to("10.8.4.1", 9000, 22)
	thrown := func() uint64 { // what xf0 has thrown away
		c, err := b.tunnel.B.Link("xf0")
		b.must(err)
		return c.TxDropped
	}
	const toInterface = 24
	before := thrown()
	to("10.8.5.1", 9000, toInterface)
	// What a refused sender's look-up counts is told from a packet's by the drops in between, of which an
	// interface's own, the last ones, leave none: the interface has to have thrown them all away before.
	b.settle()
	b.must(swan.Until("the last packets at xf0", func() (bool, error) { return thrown()-before >= toInterface, nil }))
	for range 7 { // a sender on the gateway itself has no packet yet when it is refused
		if err := b.tunnel.B.Do(func() error {
			conn, err := net.Dial("udp", "10.8.2.1:9000")
			if err == nil {
				return errors.Join(errors.New("the policy let the socket connect"), conn.Close())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	o := b.finish()

	b.checkStat(o, map[string]int64{
		"tmpl_mismatch": 40 + 14, "no_pols": 30 + 35, "pol_block": 20 + 18, "state_mismatch": 25,
		"out_no_states": 12, "out_pol_block": 16 + 7, "out_bundle_gen_error": 22,
	})
	for pair, want := range map[int]struct {
		cause   string
		packets int64
	}{
		pairClean: {"", 60}, pairTemplate: {"tmpl_mismatch", 40}, pairNoPolicy: {"no_pols", 30}, pairBlocked: {"pol_block", 20},
		pairSelector: {"state_mismatch", 25}, pairForwarded: {"no_pols", 35},
	} {
		b.checkRefusedSA(o, b.tunnel.AtoB[pair], want.cause, want.packets)
	}
	diff(t, "flows refused", []string{
		"no_pols fwd 192.0.2.1 10.9.0.1 35 without policy",
		"no_pols in 10.1.2.1 10.2.2.1 30 without policy",
		"out_bundle_gen_error out 192.0.2.1 10.8.4.1 22",
		fmt.Sprintf("out_interface out 192.0.2.1 10.8.5.1 %d without policy", toInterface),
		"out_no_states out 192.0.2.1 10.8.1.1 12",
		"out_pol_block out 192.0.2.1 10.8.2.1 16",
		"pol_block fwd 192.0.2.1 10.8.3.1 18",
		"pol_block in 10.1.3.1 10.2.3.1 20",
		"state_mismatch in 10.1.4.1 10.2.4.1 25; selector",
		"tmpl_mismatch in 10.1.1.1 10.2.1.1 40; reqid 77 for 3",
		"tmpl_mismatch in 192.0.2.1 10.2.0.1 14",
	}, refusalLines(o))
	diff(t, "plaintext delivered to the open port", 30, listener())
	spi := func(pair int) string { return name(b.tunnel.AtoB[pair].SPI) }
	o.checkFindings(t,
		"policy-template-mismatch "+spi(pairTemplate), "policy-missing "+spi(pairNoPolicy), "policy-missing "+spi(pairForwarded),
		"policy-blocked "+spi(pairBlocked), "policy-blocked", "selector-mismatch "+spi(pairSelector),
		"plaintext-where-protection-required", "outbound-no-sa", "outbound-no-sa", "outbound-policy-block", "outbound-policy-block", "outbound-bundle-failed")
	o.checkSays(t, "policy-template-mismatch", "demands reqid 77 where the SA has 3")
	o.checkSays(t, "policy-missing", "no fwd policy is for them, while policy index")
	o.checkSays(t, "selector-mismatch", "proto tcp only")
	o.checkSays(t, "outbound-policy-block", "Senders on this host were refused 7 times")
	o.checkSays(t, "outbound-no-sa", "thrown away by xf0")
	o.checkSelf(t)
}

// TestDefaultPolicy blocks what no policy is for, which moves no counter for packets to be sent.
func TestDefaultPolicy(t *testing.T) {
	tunnel.Need(t)
	if !kernelSince(t, 5, 11) {
		t.Skip("what the default policy of 5.10 blocks is not seen: docs/verdicts/policy.md says so")
	}
	b := openPrepared(t, tunnel.Options{}, func(tun *tunnel.Tunnel) error {
		if err := tun.A.IP("route add 10.8.0.0/16 via " + tun.B.Outer.String()); err != nil {
			return err
		}
		if err := tun.B.Sysctl("ipv4/ip_forward", "1"); err != nil {
			return err
		}
		return tun.B.IP("link add v2 type veth peer name v3", "addr add 203.0.113.2/24 dev v2", "link set v2 up", "link set v3 up",
			"route add 10.8.0.0/16 dev v2", "neigh replace 10.8.0.1 lladdr 02:00:00:00:00:01 nud permanent dev v2",
			"xfrm policy setdefault out block")
	}, nil)
	b.send(b.tunnel.AtoB[0], 40)
	b.throw(b.tunnel.A, b.tunnel.A.Outer, netip.MustParseAddrPort("10.8.0.1:9000"), 30)
	o := b.finish()
	b.checkIn(o, b.tunnel.AtoB[0], map[string]int64{})
	b.checkStat(o, nil)
	diff(t, "flows refused", []string{"out_default_block out 192.0.2.1 10.8.0.1 30 without policy"}, refusalLines(o))
	o.checkFindings(t, "outbound-policy-block")
	o.checkSays(t, "outbound-policy-block", "the default for out is to block")
	o.checkSelf(t)
}

// checkRefusedSA demands that the ledger of an SA at gateway B holds what was refused after decryption,
// and that nothing is missing from it.
func (b *bench) checkRefusedSA(o observation, s tunnel.SA, cause string, packets int64) {
	b.t.Helper()
	diff(b.t, "packets on the path of "+name(s.SPI), packets, int64(len(b.path.Truth(inject.AtoB, s.SPI).In)))
	got, refused := o.find(b.t, s.SPI, "in"), int64(0)
	want := map[string]int64{}
	if cause != "" {
		want[cause], refused = packets, packets
	}
	diff(b.t, "causes of "+name(s.SPI), want, nonzero(got.Xfrm))
	diff(b.t, "bins of "+name(s.SPI)+": dropped by xfrm, decapsulated, dropped by policy, delivered, unattributed",
		[]int64{0, packets, refused, packets - refused, 0},
		values(got.Ledger.XfrmDropped, got.Ledger.Decapsulated, got.Ledger.PolicyDropped, got.Ledger.Delivered, got.Ledger.Unattributed))
}

// values reads bins; one that is not observed is -1.
func values(bins ...*int64) (out []int64) {
	for _, v := range bins {
		if v == nil {
			v = new(int64(-1))
		}
		out = append(out, *v)
	}
	return out
}

// refusalLines are the refused flows, a line each.
func refusalLines(o observation) []string {
	out := []string{}
	for _, r := range o.report.Refusals {
		line := fmt.Sprintf("%s %s %s %s %d", r.Cause, r.Dir, r.Src, r.Dst, r.Packets)
		if r.Policy == nil && r.Cause != "state_mismatch" {
			line += " without policy"
		}
		for _, d := range r.Differs {
			line += "; " + d.Field
			if d.Field != "selector" {
				line += " " + d.Wanted + " for " + d.Found
			}
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// checkSays demands that some finding of a kind says something.
func (o observation) checkSays(t *testing.T, id, part string) {
	t.Helper()
	for _, f := range o.report.Findings {
		if f.ID == id && strings.Contains(f.Summary, part) {
			return
		}
	}
	t.Errorf("no finding %s says %q", id, part)
}

// throw sends datagrams that need not arrive anywhere, from a socket that no ICMP error stops.
func (b *bench) throw(from *tunnel.Gateway, src netip.Addr, to netip.AddrPort, count int) {
	b.t.Helper()
	var conn *net.UDPConn
	if err := from.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0)))
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	for range count {
		if _, err := conn.WriteToUDPAddrPort(make([]byte, 200), to); err != nil {
			b.t.Fatalf("send to %s: %v", to, err)
		}
		time.Sleep(pace)
	}
}

// listen counts datagrams to a port of gateway B.
func (b *bench) listen(addr netip.Addr, port uint16) (count func() int) {
	b.t.Helper()
	var conn *net.UDPConn
	if err := b.tunnel.B.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	b.closing("listener", conn.Close)
	return func() (n int) {
		buf := make([]byte, 2048)
		for {
			if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				b.t.Fatal(err)
			}
			if _, err := conn.Read(buf); err != nil {
				return n
			}
			n++
		}
	}
}
