// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"net/netip"
	"strings"
)

// Line writes an event as one line of `trace`: when, what, which SA, which number, and the rest as
// key=value.
func (e Event) Line() string {
	var b strings.Builder
	if e.IKE != nil {
		return e.ikeLine()
	}
	fmt.Fprintf(&b, "%s %-9s %-3s spi=%s %s > %s", e.Time.Local().Format("15:04:05.000000"), e.Kind, e.Direction,
		e.SPI, endpoint(e.Src, e.SrcPort), endpoint(e.Dst, e.DstPort))
	if e.Seq != 0 || e.Kind != KindXfrmDrop {
		fmt.Fprintf(&b, " seq=%d", e.Seq)
	}
	switch e.Kind {
	case KindGap, KindJump:
		fmt.Fprintf(&b, " skipped=%d after=%d", e.Value, e.Top)
	case KindDuplicate:
		fmt.Fprintf(&b, " below=%d top=%d", e.Value, e.Top)
	case KindLate:
		fmt.Fprintf(&b, " below=%d extent=%d top=%d", e.Value, e.Extent, e.Top)
	case KindStale:
		fmt.Fprintf(&b, " distance=%d top=%d", e.Value, e.Top)
	case KindRestart:
		fmt.Fprintf(&b, " top=%d", e.Top)
	case KindRebind:
		fmt.Fprintf(&b, " old_sport=%d old_dport=%d old_encap=%s", uint16(e.Value), uint16(e.Value>>16), encap(uint8(e.Value>>32)))
	case KindXfrmDrop:
		e.dropFields(&b)
	}
	if e.Interface != "" {
		fmt.Fprintf(&b, " dev=%s", e.Interface)
	}
	fmt.Fprintf(&b, " cpu=%d", e.CPU)
	return b.String()
}

// ikeLine writes an IKE header.
func (e Event) ikeLine() string {
	h := e.IKE
	line := fmt.Sprintf("%s %-9s %-3s %s > %s v%d.%d exchange=%d flags=0x%02x id=%d spi=%016x/%016x length=%d",
		e.Time.Local().Format("15:04:05.000000"), e.Kind, e.Direction, endpoint(e.Src, e.SrcPort), endpoint(e.Dst, e.DstPort),
		h.Version>>4, h.Version&0xf, h.Exchange, h.Flags, h.MessageID, uint64(h.Initiator), uint64(h.Responder), h.Length)
	if e.Interface != "" {
		line += " dev=" + e.Interface
	}
	return line + fmt.Sprintf(" cpu=%d", e.CPU)
}

func (e Event) dropFields(b *strings.Builder) {
	fmt.Fprintf(b, " cause=%s", e.Cause)
	if e.Top != 0 {
		fmt.Fprintf(b, " top=%d", e.Top)
	}
	if e.Value != 0 {
		fmt.Fprintf(b, " below=%d", e.Value)
	}
	if e.ReplayWindow != 0 {
		fmt.Fprintf(b, " replay_window=%d", e.ReplayWindow)
	}
	for _, f := range []struct{ key, value string }{
		{"counter", e.Counter}, {"reason", e.Reason}, {"at", e.Location},
	} {
		if f.value != "" {
			fmt.Fprintf(b, " %s=%s", f.key, f.value)
		}
	}
	if e.ReqID != 0 {
		fmt.Fprintf(b, " reqid=%d", e.ReqID)
	}
}

func endpoint(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
