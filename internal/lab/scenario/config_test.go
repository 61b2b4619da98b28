// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// badConfiguration sets on gateway B what a review should find, beside a tunnel that is well.
func badConfiguration(tun *tunnel.Tunnel) error {
	a, b := tun.A, tun.B
	key := make([]byte, 52)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	secret := func(from, n int) string { return "0x" + hex.EncodeToString(key[from:from+n]) }
	gcm := " aead rfc4106(gcm(aes)) " + secret(0, 20) + " 128"
	state := func(src, dst any, spi int, algorithms, more string) string {
		return fmt.Sprintf("xfrm state add src %v dst %v proto esp spi %#x reqid %d mode tunnel%s%s", src, dst, spi, spi, algorithms, more)
	}
	tmpl := fmt.Sprintf("tmpl src %s dst %s proto esp reqid 77 mode tunnel", a.Outer, b.Outer)
	lines := []string{
		// Algorithms: 3DES with HMAC-SHA-1, and AES-CBC with nothing to protect integrity.
		state(a.Outer, b.Outer, 0x5001, " enc cbc(des3_ede) "+secret(0, 24)+" auth-trunc hmac(sha1) "+secret(24, 20)+" 96", " replay-window 32"),
		state(a.Outer, b.Outer, 0x5002, " enc cbc(aes) "+secret(0, 16)+" auth-trunc digest_null 0x 0", " replay-window 32"),
		// A narrow policy behind a wide one that blocks, and one that only repeats.
		"xfrm policy add src 10.70.0.0/16 dst 10.80.0.0/16 dir out priority 10 action block",
		"xfrm policy add src 10.70.1.0/24 dst 10.80.1.0/24 dir out priority 20 tmpl src " + b.Outer.String() + " dst " + a.Outer.String() + " proto esp mode tunnel",
		"xfrm policy add src 10.70.2.0/24 dst 10.80.2.0/24 dir out priority 30 action block",
		// A network is let in, and nothing is let through to it.
		"xfrm policy add src 10.90.0.0/16 dst 10.91.0.0/16 dir in " + tmpl,
		// An interface that promises what its SA does not hold.
		"link add xf0 type xfrm dev " + tunnel.WAN + " if_id 42", "link set xf0 mtu 1500 up",
		state(b.Outer, a.Outer, 0x5003, gcm, " replay-window 32 if_id 42"),
	}
	for i := range 12 {
		lines = append(lines, state(a.Outer, b.Outer, 0x6000+i, gcm, " replay-window 32 limit time-soft 3600 limit time-hard 4000"))
	}
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv4/ip_no_pmtu_disc": "2", "ipv4/tcp_rmem": "4096 65536 131072",
	} {
		if err := b.Sysctl(name, value); err != nil {
			return err
		}
	}
	return b.IP(lines...)
}

// TestConfiguration reviews a bad configuration, with hardly a packet. The good one is every clean run.
func TestConfiguration(t *testing.T) {
	tunnel.Need(t)
	b := openPrepared(t, tunnel.Options{}, badConfiguration, nil)
	// The first rule sets a segment size that no SA lets through; the second follows the route.
	b.run("nft", `table inet mangle {
	chain clamp {
		type filter hook forward priority mangle
		tcp flags syn tcp option maxseg size set 1460
		oifname "ppp0" tcp flags syn tcp option maxseg size set rt mtu
	}
}`, "-f", "-")
	b.send(b.tunnel.AtoB[0], 20)
	o := b.finish()
	b.checkOne(o, b.tunnel.AtoB[0], map[string]int64{})
	o.checkFindings(t,
		"config-weak-algorithm "+name(0x5001), "config-weak-algorithm "+name(0x5001), "config-weak-algorithm "+name(0x5002),
		"config-shadowed-policy", "config-redundant-policy", "config-missing-forward-policy",
		"config-mtu-mss", "config-mtu-mss", "config-equal-lifetimes", "config-pmtu-discovery-off", "config-socket-buffers")
	o.checkSays(t, "config-weak-algorithm", "cbc(des3_ede)")
	o.checkSays(t, "config-weak-algorithm", "no integrity protection")
	o.checkSays(t, "config-mtu-mss", "xf0 has an MTU of 1500")
	o.checkSays(t, "config-mtu-mss", "segments of 1460 octets")
	o.checkSays(t, "config-equal-lifetimes", "12 inbound SAs")
	o.checkSays(t, "config-socket-buffers", "tcp_rmem has 131072")
}
