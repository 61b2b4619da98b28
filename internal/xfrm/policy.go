// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/mdlayher/netlink"

	"xfrmscope/internal/ledger"
)

// The SPD's types are the ledger's.
type (
	Policy   = ledger.Policy
	Template = ledger.Template
	Selector = ledger.Selector
)

// decodePolicy reads struct xfrm_userpolicy_info and the attributes behind it.
func decodePolicy(b []byte) (Policy, error) {
	if len(b) < sizePolicyInfo {
		return Policy{}, fmt.Errorf("decode policy: %w: %d bytes of %d", ErrMalformed, len(b), sizePolicyInfo)
	}
	p := Policy{
		Selector: decodeSelector(b),
		Bytes:    u64(b[sizeSelector+sizeLifetime:]),
		Packets:  u64(b[sizeSelector+sizeLifetime+8:]),
		Added:    unixTime(u64(b[sizeSelector+sizeLifetime+16:])),
		Used:     unixTime(u64(b[sizeSelector+sizeLifetime+24:])),
		Priority: u32(b[152:]),
		Index:    u32(b[156:]),
		Dir:      policyDir(b[160]),
		Action:   policyAction(b[161]),
		Flags:    flagNames(uint32(b[162]), []string{"localok", "icmp"}),
	}
	if err := readPolicyAttributes(&p, b[sizePolicyInfo:]); err != nil {
		return Policy{}, fmt.Errorf("decode policy %d: %w", p.Index, err)
	}
	return p, nil
}

func readPolicyAttributes(p *Policy, b []byte) error {
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
func fits(t Template, sa *SA) bool {
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

// DefaultPolicy reads what happens to packets that no policy is for. A kernel without the message (5.10
// has none) gives nil: it accepts them.
func (c *Client) DefaultPolicy(ctx context.Context) (*ledger.PolicyDefault, error) {
	var found *ledger.PolicyDefault
	err := c.dump(ctx, netlinkXfrm, netlink.Message{
		Header: netlink.Header{Type: msgGetDefault, Flags: netlink.Request},
		Data:   make([]byte, sizePolDefault),
	}, func(m netlink.Message) error {
		if m.Header.Type != msgGetDefault {
			return nil
		}
		if err := enough(m.Data, sizePolDefault); err != nil {
			return err
		}
		found = &ledger.PolicyDefault{
			In: defaultAction(m.Data[0]), Fwd: defaultAction(m.Data[1]), Out: defaultAction(m.Data[2]),
		}
		return nil
	})
	// xfrm_user_rcv_msg() refuses types beyond its own.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read default policy: %w", err)
	}
	return found, nil
}

func defaultAction(a uint8) string {
	switch a {
	case 1: // XFRM_USERPOLICY_BLOCK
		return "block"
	case 2: // XFRM_USERPOLICY_ACCEPT
		return "accept"
	}
	return fmt.Sprintf("action-%d", a)
}
