// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Overhead is what an SA adds to a packet, octet by octet (RFC 4303 section 2).
type Overhead struct {
	OuterIP int `json:"outer_ip"` // 20 or 40 where the packet gets a new IP header, else 0
	UDP     int `json:"udp"`      // RFC 3948
	ESP     int `json:"esp"`      // SPI and sequence number
	IV      int `json:"iv"`
	Mode    int `json:"mode"`    // what the mode itself adds: IP-TFS header, BEET pseudo header at most
	Trailer int `json:"trailer"` // padding length and next header
	ICV     int `json:"icv"`
	Block   int `json:"block"` // the encrypted part is padded to a multiple of it
	// InnerIP is the packet's own IP header where ESP does not cover it (transport and BEET mode).
	InnerIP int `json:"inner_ip"`
}

// Octets of headers.
const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
	tcpHeader  = 20
	espHeader  = 8
	espTrailer = 2
	// beetPseudo is IPV4_BEET_PHMAXLEN: the kernel sets it aside for every packet (esp_init_state).
	beetPseudo = 8
	// iptfsHeader is the basic header of RFC 9347 section 2.2.1.
	iptfsHeader = 4
)

// cipher is what an encryption algorithm costs a packet.
type cipher struct{ iv, block, icv int }

// ciphers lists the kernel's encryption algorithms by name (net/xfrm/xfrm_algo.c). icv is that of an
// authenticated algorithm when the SA does not say.
var ciphers = map[string]cipher{
	"rfc4106(gcm(aes))":             {8, 1, 16},  // RFC 4106 section 4: explicit IV of 8
	"rfc4309(ccm(aes))":             {8, 1, 16},  // RFC 4309 section 4
	"rfc4543(gcm(aes))":             {8, 1, 16},  // RFC 4543 section 3.1: ENCR_NULL_AUTH_AES_GMAC
	"rfc7539esp(chacha20,poly1305)": {8, 1, 16},  // RFC 7634 section 2
	"cbc(aes)":                      {16, 16, 0}, // RFC 3602 sections 2.4 and 3
	"cbc(camellia)":                 {16, 16, 0}, // RFC 4312
	"cbc(serpent)":                  {16, 16, 0},
	"cbc(twofish)":                  {16, 16, 0},
	"cbc(sm4)":                      {16, 16, 0},
	"cbc(des)":                      {8, 8, 0}, // RFC 2405
	"cbc(des3_ede)":                 {8, 8, 0}, // RFC 2451
	"cbc(cast5)":                    {8, 8, 0},
	"cbc(blowfish)":                 {8, 8, 0},
	"rfc3686(ctr(aes))":             {8, 1, 0}, // RFC 3686 section 4
	"rfc3686(ctr(sm4))":             {8, 1, 0},
	"ecb(cipher_null)":              {0, 1, 0}, // RFC 2410
	"cipher_null":                   {0, 1, 0},
}

// icvs are the lengths to which authentication algorithms are cut when the SA does not say, in octets
// (icv_truncbits of net/xfrm/xfrm_algo.c). HMAC-SHA-256 is cut to 96 bits there; daemons that follow
// RFC 4868 ask for 128, and then the SA says so.
var icvs = map[string]int{
	"digest_null": 0, "hmac(md5)": 12, "hmac(sha1)": 12, "hmac(sha256)": 12, "hmac(sha384)": 24,
	"hmac(sha512)": 32, "hmac(rmd160)": 12, "xcbc(aes)": 12, "cmac(aes)": 12, "hmac(sm3)": 12,
}

// OverheadOf computes what an SA adds to each packet. It fails for what is not ESP and for algorithms
// that it does not know, rather than to guess.
func OverheadOf(e *SADEntry) (Overhead, error) {
	o := Overhead{ESP: espHeader, Trailer: espTrailer, Block: 1}
	if e.Key.Proto != ESP {
		return o, fmt.Errorf("compute overhead: the protocol is %s, not esp", e.Key.Proto)
	}
	if e.Encap == EncapUDP {
		o.UDP = udpHeader
	}
	ip := ipHeader(e.Key.Dst)
	switch e.Mode {
	case "tunnel":
		o.OuterIP = ip
	case "iptfs":
		o.OuterIP, o.Mode = ip, iptfsHeader
	case "transport":
		o.InnerIP = ip
	case "beet":
		o.InnerIP = ip
		if ip == ipv4Header {
			o.Mode = beetPseudo
		}
	default:
		return o, fmt.Errorf("compute overhead: mode %q is not known", e.Mode)
	}
	for _, a := range e.Algorithms {
		if err := o.algorithm(a); err != nil {
			return o, err
		}
	}
	// RFC 4303 section 2.4: the trailer ends on a multiple of four octets in any case.
	o.Block = max(4, o.Block)
	return o, nil
}

func (o *Overhead) algorithm(a Algorithm) error {
	switch a.Kind {
	case "aead", "encryption":
		c, ok := ciphers[a.Name]
		if !ok {
			return fmt.Errorf("compute overhead: %s is not known", a.Name)
		}
		o.IV, o.Block = c.iv, c.block
		o.ICV += cmp.Or(a.ICVBits/8, c.icv)
	case "authentication":
		icv, ok := icvs[a.Name]
		if !ok && a.ICVBits == 0 {
			return fmt.Errorf("compute overhead: %s is not known and the SA does not say to what it is cut", a.Name)
		}
		o.ICV += cmp.Or(a.ICVBits/8, icv)
	case "compression":
		// IPComp is an SA of its own and only ever makes packets smaller (RFC 3173 section 2.2).
	default:
		return fmt.Errorf("compute overhead: %s algorithm %s is not known", a.Kind, strings.TrimSpace(a.Name))
	}
	return nil
}

func ipHeader(a netip.Addr) int {
	if a.Is4() {
		return ipv4Header
	}
	return ipv6Header
}

// Outer is the size of the packet on the wire that carries an inner packet of that size, IP headers
// included in both.
func (o Overhead) Outer(inner int) int {
	sealed := o.Mode + inner - o.InnerIP + o.Trailer
	if rest := sealed % o.Block; rest != 0 {
		sealed += o.Block - rest
	}
	return o.OuterIP + o.InnerIP + o.UDP + o.ESP + o.IV + sealed + o.ICV
}

// Inner is the largest packet that goes through the SA without being cut where the path takes packets
// of that size: what the kernel's xfrm_state_mtu() gives, which sets the mode's part aside before it
// rounds. 0: not even an empty one does.
func (o Overhead) Inner(path int) int {
	room := path - o.OuterIP - o.InnerIP - o.UDP - o.ESP - o.IV - o.Mode - o.ICV
	room -= room % o.Block
	return max(0, room-o.Trailer+o.InnerIP)
}

// Most is the largest number of octets that the SA adds to a packet: that with the most padding.
func (o Overhead) Most() int {
	return o.OuterIP + o.UDP + o.ESP + o.IV + o.Mode + o.Trailer + o.ICV + o.Block - 1
}

// MSS is the TCP maximum segment size that fits an MTU (RFC 9293 section 3.7.1), for inner packets of
// the given family.
func MSS(mtu, family int) int {
	ip := ipv4Header
	if family == 6 {
		ip = ipv6Header
	}
	return max(0, mtu-ip-tcpHeader)
}
