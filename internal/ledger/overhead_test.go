// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"xfrmscope/internal/ledger"
)

func sealed(mode string, family int, encap ledger.Encap, algorithms ...ledger.Algorithm) ledger.SADEntry {
	dst := netip.MustParseAddr("192.0.2.2")
	if family == 6 {
		dst = netip.MustParseAddr("2001:db8::2")
	}
	return ledger.SADEntry{Key: ledger.SAKey{Dst: dst, SPI: 1, Proto: ledger.ESP, Direction: ledger.Out}, Mode: mode, Encap: encap, Algorithms: algorithms}
}

func aead(name string, icv int) ledger.Algorithm {
	return ledger.Algorithm{Kind: "aead", Name: name, ICVBits: icv}
}

func enc(name string) ledger.Algorithm { return ledger.Algorithm{Kind: "encryption", Name: name} }

func auth(name string, icv int) ledger.Algorithm {
	return ledger.Algorithm{Kind: "authentication", Name: name, ICVBits: icv}
}

// TestOverhead compares with values worked out by hand from the RFCs: the inner MTU is
// floor((path - headers - IV - ICV) / block) * block - 2.
func TestOverhead(t *testing.T) {
	gcm := aead("rfc4106(gcm(aes))", 128)
	cbc := enc("cbc(aes)")
	for _, tc := range []struct {
		name  string
		entry ledger.SADEntry
		path  int
		inner int
	}{
		// 1500-20-8-8-16 = 1448, a multiple of 4, less 2.
		{"AES-GCM-16, tunnel over IPv4", sealed("tunnel", 4, ledger.EncapNone, gcm), 1500, 1446},
		{"AES-GCM-16, tunnel over IPv6", sealed("tunnel", 6, ledger.EncapNone, gcm), 1500, 1426},
		{"AES-GCM-16 in UDP", sealed("tunnel", 4, ledger.EncapUDP, gcm), 1500, 1438},
		{"AES-GCM-16 in UDP over IPv6", sealed("tunnel", 6, ledger.EncapUDP, gcm), 1500, 1418},
		{"AES-GCM-8", sealed("tunnel", 4, ledger.EncapNone, aead("rfc4106(gcm(aes))", 64)), 1500, 1454},
		{"AES-CCM-16", sealed("tunnel", 4, ledger.EncapNone, aead("rfc4309(ccm(aes))", 128)), 1500, 1446},
		{"AES-GMAC", sealed("tunnel", 4, ledger.EncapNone, aead("rfc4543(gcm(aes))", 128)), 1500, 1446},
		{"ChaCha20-Poly1305", sealed("tunnel", 4, ledger.EncapNone, aead("rfc7539esp(chacha20,poly1305)", 128)), 1500, 1446},
		// 1500-20-8-16-12 = 1444 → 1440, less 2: the widely quoted 1438.
		{"AES-CBC, HMAC-SHA1-96", sealed("tunnel", 4, ledger.EncapNone, cbc, auth("hmac(sha1)", 96)), 1500, 1438},
		// 1500-20-8-16-16 = 1440.
		{"AES-CBC, HMAC-SHA-256-128", sealed("tunnel", 4, ledger.EncapNone, cbc, auth("hmac(sha256)", 128)), 1500, 1438},
		// 1500-20-8-16-32 = 1424.
		{"AES-CBC, HMAC-SHA-512-256", sealed("tunnel", 4, ledger.EncapNone, cbc, auth("hmac(sha512)", 256)), 1500, 1422},
		{"AES-CBC, HMAC-SHA-256-128 in UDP", sealed("tunnel", 4, ledger.EncapUDP, cbc, auth("hmac(sha256)", 128)), 1500, 1422},
		// 1500-20-8-8-12 = 1452 → 1448.
		{"3DES, HMAC-MD5-96", sealed("tunnel", 4, ledger.EncapNone, enc("cbc(des3_ede)"), auth("hmac(md5)", 96)), 1500, 1446},
		{"AES-CTR, XCBC-96", sealed("tunnel", 4, ledger.EncapNone, enc("rfc3686(ctr(aes))"), auth("xcbc(aes)", 96)), 1500, 1450},
		{"NULL, HMAC-SHA1-96", sealed("tunnel", 4, ledger.EncapNone, enc("ecb(cipher_null)"), auth("hmac(sha1)", 96)), 1500, 1458},
		// The kernel's truncation where the SA does not say.
		{"AES-CBC, HMAC-SHA-256 as the kernel cuts it", sealed("tunnel", 4, ledger.EncapNone, cbc, auth("hmac(sha256)", 0)), 1500, 1438},
		// Transport: (1500-20-8-8-16) = 1448, less 2, plus the packet's own header.
		{"AES-GCM-16, transport", sealed("transport", 4, ledger.EncapNone, gcm), 1500, 1466},
		{"AES-GCM-16, transport over IPv6", sealed("transport", 6, ledger.EncapNone, gcm), 1500, 1466},
		{"AES-GCM-16, BEET", sealed("beet", 4, ledger.EncapNone, gcm), 1500, 1458},
		{"AES-GCM-16, IP-TFS", sealed("iptfs", 4, ledger.EncapNone, gcm), 1500, 1442},
		{"a path of 1400", sealed("tunnel", 4, ledger.EncapNone, gcm), 1400, 1346},
		{"a path of 8500", sealed("tunnel", 4, ledger.EncapNone, cbc, auth("hmac(sha256)", 128)), 8500, 8430},
		{"no room at all", sealed("tunnel", 4, ledger.EncapNone, gcm), 50, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := ledger.OverheadOf(&tc.entry)
			if err != nil {
				t.Fatal(err)
			}
			inner := o.Inner(tc.path)
			if inner != tc.inner {
				t.Errorf("inner MTU %d, want %d: %+v", inner, tc.inner, o)
			}
			if inner == 0 {
				return
			}
			if out := o.Outer(inner); out > tc.path {
				t.Errorf("a packet of %d becomes %d, more than %d", inner, out, tc.path)
			}
			if out := o.Outer(inner + 1 + o.Mode); out <= tc.path {
				t.Errorf("a packet of %d still becomes %d", inner+1+o.Mode, out)
			}
			for size := 60; size <= inner; size++ {
				if added := o.Outer(size) - size; added > o.Most() {
					t.Fatalf("%d octets are added to %d, said were at most %d", added, size, o.Most())
				}
			}
		})
	}
}

func TestOverheadUnknown(t *testing.T) {
	for want, entry := range map[string]ledger.SADEntry{
		"rfc9999(new) is not known": sealed("tunnel", 4, ledger.EncapNone, aead("rfc9999(new)", 128)),
		`mode "ro" is not known`:    sealed("ro", 4, ledger.EncapNone, aead("rfc4106(gcm(aes))", 128)),
		"does not say to what":      sealed("tunnel", 4, ledger.EncapNone, enc("cbc(aes)"), auth("hmac(new)", 0)),
		"the protocol is ah":        {Key: ledger.SAKey{Proto: ledger.AH}},
	} {
		if _, err := ledger.OverheadOf(&entry); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestMSS(t *testing.T) {
	for in, want := range map[[2]int]int{{1446, 4}: 1406, {1446, 6}: 1386, {30, 4}: 0} {
		if got := ledger.MSS(in[0], in[1]); got != want {
			t.Errorf("MSS of %s = %d, want %d", fmt.Sprint(in), got, want)
		}
	}
}
