// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// ConfigWeakAlgorithm is SAs whose algorithms RFC 8221 forbids or advises against.
const ConfigWeakAlgorithm ID = "config-weak-algorithm"

// weakness is what RFC 8221 says of an algorithm (sections 5 and 6), by the kernel's name.
type weakness struct {
	severity Severity
	says     string
}

var weaknesses = map[string]weakness{
	"cbc(des)":         {Warning, "DES is broken: RFC 8221 says MUST NOT"},
	"hmac(md5)":        {Warning, "HMAC-MD5 must not be used any more: RFC 8221 says MUST NOT"},
	"cbc(des3_ede)":    {Info, "3DES has blocks of 64 bits, which a few dozen gigabytes under one key give away: RFC 8221 says SHOULD NOT"},
	"cbc(blowfish)":    {Info, "Blowfish has blocks of 64 bits, which a few dozen gigabytes under one key give away"},
	"cbc(cast5)":       {Info, "CAST-128 has blocks of 64 bits, which a few dozen gigabytes under one key give away"},
	"hmac(sha1)":       {Info, "HMAC-SHA-1 is not broken, and on its way out: RFC 8221 says MUST-"},
	"ecb(cipher_null)": {Info, "NULL does not encrypt: right only where integrity alone is wanted"},
	"cipher_null":      {Info, "NULL does not encrypt: right only where integrity alone is wanted"},
}

// noIntegrity stands for encryption without authentication, which RFC 8221 section 4 forbids.
const noIntegrity = "no integrity protection"

func configWeakAlgorithm(r *ledger.Report) []Finding {
	users := map[string][]*ledger.SA{}
	for _, sa := range alive(r) {
		for _, name := range sa.Algorithms {
			if _, weak := weaknesses[name]; weak {
				users[name] = append(users[name], sa)
			}
		}
		if sa.Proto == ledger.ESP && unauthenticated(sa.Algorithms) {
			users[noIntegrity] = append(users[noIntegrity], sa)
		}
	}
	var out []Finding
	names := []string{}
	for name := range users {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		w := weaknesses[name]
		if name == noIntegrity {
			w = weakness{Warning, "encryption without authentication lets anybody on the path change packets unnoticed: RFC 8221 section 4 says MUST NOT"}
		}
		sas := users[name]
		out = append(out, Finding{
			ID: ConfigWeakAlgorithm, Severity: w.severity, Confidence: sure(weighed), Subject: aboutAll(sas),
			Summary:  fmt.Sprintf("%d SAs (%s) use %s. %s.", len(sas), listSAs(sas), name, upper(w.says)),
			Evidence: []Evidence{{"sas.algorithms", int64(len(sas)), "SAs", "SA database", name}},
			Remedy:   algorithmRemedies(),
		})
	}
	return out
}

// unauthenticated says whether nothing among an ESP SA's algorithms protects integrity.
func unauthenticated(algorithms []string) bool {
	for _, a := range algorithms {
		aead := strings.HasPrefix(a, "rfc4106(") || strings.HasPrefix(a, "rfc4309(") || strings.HasPrefix(a, "rfc4543(") || strings.HasPrefix(a, "rfc7539esp(")
		mac := strings.HasPrefix(a, "hmac(") || strings.HasPrefix(a, "cmac(") || strings.HasPrefix(a, "xcbc(")
		// A name that is not known may be either: then nothing is said.
		cipher := strings.HasPrefix(a, "cbc(") || strings.HasPrefix(a, "rfc3686(") || a == "digest_null" || a == "ecb(cipher_null)" || a == "cipher_null"
		if aead || mac || !cipher {
			return false
		}
	}
	return len(algorithms) > 0
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func algorithmRemedies() []Remedy {
	return []Remedy{
		{For: forStrongSwan, Text: "Name the proposals, on both ends.", Commands: []string{"connections.<conn>.children.<child>.esp_proposals = aes256gcm16-ecp256, aes128gcm16-ecp256"}},
		{For: forLibreswan, Text: "The same.", Commands: []string{"esp=aes_gcm256;dh19,aes_gcm128;dh19", "ipsec auto --replace <conn> && ipsec auto --up <conn>"}},
		{For: forPeer, Text: "Both know AES-GCM.", Commands: []string{"crypto ipsec transform-set <name> esp-gcm 256   (Cisco)",
			"Set-VpnConnectionIPsecConfiguration -ConnectionName <name> -CipherTransformConstants GCMAES256 -AuthenticationTransformConstants GCMAES256 …   (Windows)"}},
	}
}
