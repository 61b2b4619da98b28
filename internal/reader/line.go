// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"net/netip"
	"strings"

	"xfrmscope/internal/printable"
)

// Line writes an event as one line of `trace`: when, what, which SA, which number, and the rest as
// key=value. Below it stands the kernel stack, if there is one.
func (e Event) Line(when string) string {
	var b strings.Builder
	if e.IKE != nil {
		return e.ikeLine(when)
	}
	fmt.Fprintf(&b, "%s %-9s %-3s", when, e.Kind, e.Direction)
	if e.SPI != 0 || e.Kind != KindHostDrop && e.Kind != KindPMTU {
		fmt.Fprintf(&b, " spi=%s", e.SPI)
	}
	fmt.Fprintf(&b, " %s > %s", endpoint(e.Src, e.SrcPort), endpoint(e.Dst, e.DstPort))
	if e.Seq != 0 || e.Kind != KindXfrmDrop && e.Kind != KindHostDrop && e.Kind != KindPMTU {
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
	case KindHostDrop:
		e.hostDropFields(&b)
	case KindPMTU:
		e.pmtuFields(&b)
	}
	if e.ReqID != 0 {
		fmt.Fprintf(&b, " reqid=%d", e.ReqID)
	}
	if e.Interface != "" {
		fmt.Fprintf(&b, " dev=%s", printable.Name(e.Interface))
	}
	fmt.Fprintf(&b, " cpu=%d", e.CPU)
	for _, f := range e.Stack {
		fmt.Fprintf(&b, "\n    %s", f)
	}
	return b.String()
}

func (e Event) hostDropFields(b *strings.Builder) {
	fmt.Fprintf(b, " stage=%s place=%s bytes=%d", e.Stage, e.Place, e.Bytes)
	for _, f := range []struct{ key, value string }{{"reason", e.Reason}, {"at", e.Location}, {"hook", e.Hook}} {
		if f.value != "" {
			fmt.Fprintf(b, " %s=%s", f.key, f.value)
		}
	}
}

func (e Event) pmtuFields(b *strings.Builder) {
	fmt.Fprintf(b, " what=%s", e.What)
	if e.MTU != 0 {
		fmt.Fprintf(b, " mtu=%d", e.MTU)
	}
	if e.Bytes != 0 {
		fmt.Fprintf(b, " bytes=%d", e.Bytes)
	}
	if e.Reporter.IsValid() {
		fmt.Fprintf(b, " reporter=%s", e.Reporter)
	}
}

// ikeLine writes an IKE header.
func (e Event) ikeLine(when string) string {
	h := e.IKE
	line := fmt.Sprintf("%s %-9s %-3s %s > %s v%d.%d exchange=%d flags=0x%02x id=%d spi=%016x/%016x length=%d",
		when, e.Kind, e.Direction, endpoint(e.Src, e.SrcPort), endpoint(e.Dst, e.DstPort),
		h.Version>>4, h.Version&0xf, h.Exchange, h.Flags, h.MessageID, uint64(h.Initiator), uint64(h.Responder), h.Length)
	if e.Interface != "" {
		line += " dev=" + printable.Name(e.Interface)
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
}

func endpoint(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
