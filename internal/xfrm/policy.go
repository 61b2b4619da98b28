// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"fmt"
	"net/netip"

	"xfrmscope/internal/ledger"
)

// Policy is one entry of the SPD (struct xfrm_userpolicy_info and its attributes).
type Policy struct {
	Dir       string // in, out, fwd; "socket in", "socket out" for a single socket's own
	Sub       bool   // of the sub policy database, which is asked after the main one
	Action    string // allow, block
	Priority  uint32 // lower is asked first
	Index     uint32
	Selector  Selector
	Templates []Template
	IfID      uint32
	MarkValue uint32
	MarkMask  uint32
	Flags     []string
	Offload   int // ifindex of a device that applies it, 0: none
	Packets   uint64
	Bytes     uint64
}

// Template names the SA that a policy demands (struct xfrm_user_tmpl).
type Template struct {
	Src, Dst netip.Addr // zero address in transport mode: as in the packet
	SPI      ledger.SPI // 0: any
	Proto    ledger.Proto
	ReqID    uint32 // 0: any
	Mode     string
	Optional bool
}

// decodePolicy reads struct xfrm_userpolicy_info and the attributes behind it.
func decodePolicy(b []byte) (Policy, error) {
	if len(b) < sizePolicyInfo {
		return Policy{}, fmt.Errorf("decode policy: %w: %d bytes of %d", ErrMalformed, len(b), sizePolicyInfo)
	}
	p := Policy{
		Selector: decodeSelector(b),
		Bytes:    u64(b[sizeSelector+sizeLifetime:]),
		Packets:  u64(b[sizeSelector+sizeLifetime+8:]),
		Priority: u32(b[152:]),
		Index:    u32(b[156:]),
		Dir:      policyDir(b[160]),
		Action:   policyAction(b[161]),
		Flags:    flagNames(uint32(b[162]), []string{"localok", "icmp"}),
	}
	if err := p.readAttributes(b[sizePolicyInfo:]); err != nil {
		return Policy{}, fmt.Errorf("decode policy %d: %w", p.Index, err)
	}
	return p, nil
}

func (p *Policy) readAttributes(b []byte) error {
	a := attributes{rest: b}
	for a.next() {
		switch a.typ {
		case attrTmpl:
			// The templates are an array without a count.
			for t := a.data; len(t) > 0; t = t[sizeTmpl:] {
				if len(t) < sizeTmpl {
					return fmt.Errorf("%w: template of %d bytes", ErrMalformed, len(t))
				}
				p.Templates = append(p.Templates, decodeTemplate(t))
			}
		case attrMark:
			if a.need(8) {
				p.MarkValue, p.MarkMask = u32(a.data), u32(a.data[4:])
			}
		case attrIfID:
			if a.need(4) {
				p.IfID = u32(a.data)
			}
		case attrPolicyType:
			if a.need(1) {
				p.Sub = a.data[0] == 1 // XFRM_POLICY_TYPE_SUB
			}
		case attrOffloadDev:
			if a.need(4) {
				p.Offload = int(int32(u32(a.data)))
			}
		}
	}
	return a.err
}

func decodeTemplate(b []byte) Template {
	family := u16(b[24:])
	return Template{
		Dst:      address(b, family),
		Src:      address(b[28:], family),
		SPI:      ledger.SPI(be32(b[16:])),
		Proto:    protoName(b[20]),
		ReqID:    u32(b[44:]),
		Mode:     modeName(b[48]),
		Optional: b[50] != 0,
	}
}

// fits says whether an SA can fill the template (xfrm_state_ok, xfrm_state_find).
func (t Template) fits(sa *SA) bool {
	same := func(tmpl, have netip.Addr) bool {
		return !tmpl.IsValid() || tmpl.IsUnspecified() || tmpl == have
	}
	return t.Proto == sa.Key.Proto && t.Mode == sa.Mode &&
		(t.SPI == 0 || t.SPI == sa.Key.SPI) && (t.ReqID == 0 || t.ReqID == sa.ReqID) &&
		same(t.Dst, sa.Key.Dst) && same(t.Src, sa.Src)
}

func policyDir(d uint8) string {
	// A socket's policies count on from XFRM_POLICY_MAX.
	names := []string{"in", "out", "fwd", "socket in", "socket out", "socket fwd"}
	if int(d) < len(names) {
		return names[d]
	}
	return fmt.Sprintf("dir-%d", d)
}

func policyAction(a uint8) string {
	switch a {
	case 0:
		return "allow"
	case 1:
		return "block"
	}
	return fmt.Sprintf("action-%d", a)
}
