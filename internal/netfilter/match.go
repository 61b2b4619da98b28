// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// matchOf puts into words what a rule matches by, as far as it compares one field with one value; "…"
// stands for the rest. It is for people to find the rule by, who then look it up.
func matchOf(r *nftables.Rule) string {
	fields := map[uint32]string{} // by register: what was loaded into it
	var parts []string
	other := func() {
		if len(parts) == 0 || parts[len(parts)-1] != "…" {
			parts = append(parts, "…")
		}
	}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			fields[e.Register] = metaName(e)
		case *expr.Payload:
			fields[e.DestRegister] = payloadName(e)
		case *expr.Cmp:
			name := fields[e.Register]
			if name == "" || e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
				other()
				continue
			}
			op := " "
			if e.Op == expr.CmpOpNeq {
				op = " != "
			}
			parts = append(parts, name+op+value(name, e.Data))
		case *expr.Counter, *expr.Verdict, *expr.Reject, *expr.Log:
		case *expr.Bitwise:
			fields[e.DestRegister] = ""
		default:
			other()
		}
	}
	return strings.Join(parts, " ")
}

func metaName(m *expr.Meta) string {
	switch m.Key {
	case expr.MetaKeyL4PROTO:
		return "l4proto"
	case expr.MetaKeyNFPROTO:
		return "nfproto"
	case expr.MetaKeyIIFNAME:
		return "iifname"
	case expr.MetaKeyOIFNAME:
		return "oifname"
	case expr.MetaKeyMARK:
		return "mark"
	}
	return ""
}

// payloadName names header fields by base, offset and length. The first words behind the IP header
// are ports or, of ESP, the SPI.
func payloadName(p *expr.Payload) string {
	type at struct {
		base     expr.PayloadBase
		off, len uint32
	}
	switch (at{p.Base, p.Offset, p.Len}) {
	case at{expr.PayloadBaseNetworkHeader, 9, 1}, at{expr.PayloadBaseNetworkHeader, 6, 1}:
		return "protocol"
	case at{expr.PayloadBaseNetworkHeader, 12, 4}, at{expr.PayloadBaseNetworkHeader, 8, 16}:
		return "saddr"
	case at{expr.PayloadBaseNetworkHeader, 16, 4}, at{expr.PayloadBaseNetworkHeader, 24, 16}:
		return "daddr"
	case at{expr.PayloadBaseTransportHeader, 0, 2}:
		return "sport"
	case at{expr.PayloadBaseTransportHeader, 2, 2}:
		return "dport"
	case at{expr.PayloadBaseTransportHeader, 0, 4}:
		return "spi"
	}
	return ""
}

var protocols = map[byte]string{1: "icmp", 6: "tcp", 17: "udp", 50: "esp", 51: "ah", 58: "icmpv6", 108: "comp"}

func value(name string, data []byte) string {
	switch name {
	case "l4proto", "protocol":
		if len(data) == 1 && protocols[data[0]] != "" {
			return protocols[data[0]]
		}
	case "nfproto":
		if slices.Equal(data, []byte{2}) {
			return "ipv4"
		}
		return "ipv6"
	case "saddr", "daddr":
		if a, ok := netip.AddrFromSlice(data); ok {
			return a.String()
		}
	case "sport", "dport":
		if len(data) == 2 {
			return fmt.Sprint(binary.BigEndian.Uint16(data))
		}
	case "iifname", "oifname":
		return strings.TrimRight(string(data), "\x00")
	}
	return fmt.Sprintf("0x%x", data)
}
