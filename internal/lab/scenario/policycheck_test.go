// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// beyond gives gateway B a network behind it, 10.8.0.0/16, that gateway A sends to through it, and the policies.
func beyond(tun *tunnel.Tunnel, policies ...string) error {
	if err := tun.B.Sysctl("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return errors.Join(tun.A.IP("route add 10.8.0.0/16 via "+tun.B.Outer.String()), tun.B.IP(append([]string{
		"link add v2 type veth peer name v3", "addr add 203.0.113.2/24 dev v2", "link set v2 up", "link set v3 up",
		"neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 nud permanent dev v2", "route add 10.8.0.0/16 via 203.0.113.1",
	}, policies...)...))
}

// TestPolicyCheckFailed has policies that the kernel cannot find an SA for, though it does not ask for one
// either: one whose template leaves the source open and to whose peer no route leads, and one that
// demands by its SPI an SA that has another reqid. Beside them is one with the source left open and a route.
func TestPolicyCheckFailed(t *testing.T) {
	tunnel.Need(t)
	const unreachable, strange, fine = 13, 17, 30
	b := openPrepared(t, tunnel.Options{}, func(tun *tunnel.Tunnel) error {
		back := tun.BtoA[0]
		return beyond(tun,
			"xfrm policy add src 0.0.0.0/0 dst 10.8.1.0/24 dir out tmpl src 0.0.0.0 dst 198.51.100.9 proto esp reqid 501 mode tunnel",
			fmt.Sprintf("xfrm policy add src 0.0.0.0/0 dst 10.8.2.0/24 dir out tmpl src %s dst %s proto esp spi %#x reqid 502 mode tunnel", tun.B.Outer, tun.A.Outer, back.SPI),
			fmt.Sprintf("xfrm policy add src 0.0.0.0/0 dst 10.8.3.0/24 dir out tmpl src 0.0.0.0 dst %s proto esp reqid %d mode tunnel", tun.A.Outer, back.ReqID))
	}, nil)
	for dst, n := range map[string]int{"10.8.1.1": unreachable, "10.8.2.1": strange, "10.8.3.1": fine} {
		b.throw(b.tunnel.A, b.tunnel.A.Outer, netip.AddrPortFrom(netip.MustParseAddr(dst), 9000), n)
	}
	o := b.finish()
	b.checkStat(o, cause("out_pol_error", unreachable+strange))
	diff(t, "flows refused", []string{
		fmt.Sprintf("out_pol_error out 192.0.2.1 10.8.1.1 %d", unreachable), fmt.Sprintf("out_pol_error out 192.0.2.1 10.8.2.1 %d; reqid 502 for %d", strange, b.tunnel.BtoA[0].ReqID),
	}, refusalLines(o))
	b.checkOut(o, b.tunnel.BtoA[0].SPI, fine)
	o.checkFindings(t, "policy-check-failed", "policy-check-failed")
	o.checkSays(t, "policy-check-failed", "no route to 198.51.100.9")
	o.checkSays(t, "policy-check-failed", "but the policy wants reqid 502 where the SA has")
	o.checkSelf(t)
}
