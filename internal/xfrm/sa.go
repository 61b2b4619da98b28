// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
)

// SA is one entry of the SAD: what the ledger wants of it, and what only doctor and the curious want.
type SA struct {
	ledger.SADEntry
	SeqBitmapBits uint32        // length of the kernel's replay bitmap; 0 with the legacy 32-bit window
	SoftUse       time.Duration // lifetimes since first use, which the ledger does not judge
	HardUse       time.Duration
	FirstUsed     time.Time // zero: never used
	LastUsed      time.Time // zero: not told
	KernelDir     ledger.Direction
	PCPU          int // CPU that a per-CPU SA (RFC 9611) belongs to; -1: none
	NATKeepalive  time.Duration
	MappingMaxAge time.Duration // XFRMA_MTIMER_THRESH: least time between two mapping messages
	IPTFS         *IPTFS        // nil: not an IP-TFS SA (RFC 9347)

	// proto and family are the kernel's numbers, needed to match FLUSHSA and to tell SAs apart.
	proto  uint8
	family uint16
}

// IPTFS holds the parameters of RFC 9347 that the kernel tells.
type IPTFS struct {
	DropTime      time.Duration
	ReorderWindow uint16
	DontFragment  bool
	InitDelay     time.Duration
	MaxQueueBytes uint32
	PacketBytes   uint32
}

// saFlags and saExtraFlags are in iproute2's spelling, lowest bit first.
var (
	saFlags = []string{"noecn", "decap-dscp", "nopmtudisc", "wildrecv", "icmp", "af-unspec", "align4", "esn"}

	saExtraFlags = []string{"dont-encap-dscp", "oseq-may-wrap"}
)

// decodeSA reads struct xfrm_usersa_info and the attributes behind it.
func decodeSA(b []byte) (SA, error) {
	if len(b) < sizeSAInfo {
		return SA{}, fmt.Errorf("decode SA: %w: %d bytes of %d", ErrMalformed, len(b), sizeSAInfo)
	}
	sa := decodeSAInfo(b)
	if err := sa.readAttributes(b[sizeSAInfo:]); err != nil {
		return SA{}, fmt.Errorf("decode SA %v: %w", sa.Key.SPI, err)
	}
	return sa, nil
}

// decodeSAInfo reads struct xfrm_usersa_info, whose length the caller has checked.
func decodeSAInfo(b []byte) SA {
	family := u16(b[212:])
	cur, stats := b[offSACurrent:], b[offSAStats:]
	sa := SA{proto: b[offSAID+20], family: family, PCPU: -1}
	sa.SADEntry = ledger.SADEntry{
		Key: ledger.SAKey{
			Dst:       address(b[offSAID:], family),
			SPI:       ledger.SPI(be32(b[offSAID+16:])),
			Proto:     protoName(b[offSAID+20]),
			Direction: ledger.Unknown,
		},
		Src:             address(b[offSASrc:], family),
		Mode:            modeName(b[214]),
		ReqID:           u32(b[208:]),
		Encap:           ledger.EncapNone,
		ReplayWindow:    uint32(b[215]),
		ESN:             b[216]&flagESN != 0,
		Bytes:           u64(cur),
		Packets:         u64(cur[8:]),
		Added:           unixTime(u64(cur[16:])),
		ReplayLate:      uint64(u32(stats)),
		ReplayDuplicate: uint64(u32(stats[4:])),
		IntegrityFailed: uint64(u32(stats[8:])),
		Flags:           flagNames(uint32(b[216]), saFlags),
	}
	sa.FirstUsed = unixTime(u64(cur[24:]))
	sa.Selector = decodeSelector(b)
	sa.Lifetimes, sa.SoftUse, sa.HardUse = decodeLifetime(b[offSALifetime:])
	return sa
}

// readAttributes reads the attributes on the allow-list; all others, keys in unknown wrappings
// included, are passed over.
func (sa *SA) readAttributes(b []byte) error {
	a := attributes{rest: b}
	for a.next() {
		switch a.typ {
		case attrAlgAEAD, attrAlgCrypt, attrAlgAuth, attrAlgAuthTrunc, attrAlgComp:
			sa.readAlgorithm(&a)
		case attrReplayVal, attrReplayESNVal:
			sa.readReplay(&a)
		case attrIPTFSDropTime, attrIPTFSReorderWin, attrIPTFSDontFrag, attrIPTFSInitDelay,
			attrIPTFSMaxQueueSize, attrIPTFSPacketSize:
			sa.readIPTFS(&a)
		default:
			sa.readPlain(&a)
		}
	}
	return a.err
}

// larval says whether the SA is a mere reservation: an SPI that an IKE daemon has allocated and not
// filled yet (XFRM_STATE_ACQ). The messages do not tell the state, but only such an SA has no algorithm.
func (sa *SA) larval() bool {
	return len(sa.Algorithms) == 0 && (sa.proto == protoESP || sa.proto == protoAH)
}

// matches says whether a flush of proto concerns the SA (xfrm_id_proto_match).
func (sa *SA) matches(proto uint8) bool {
	ipsec := sa.proto == protoESP || sa.proto == protoAH || sa.proto == protoIPComp
	return proto == 0 || proto == sa.proto || proto == protoAny && ipsec
}

// readPlain reads the attributes that are a number or a few.
func (sa *SA) readPlain(a *attributes) {
	switch a.typ {
	case attrEncap:
		if a.need(6) {
			sa.readEncap(a.data)
		}
	case attrMark:
		if a.need(8) {
			sa.MarkValue, sa.MarkMask = u32(a.data), u32(a.data[4:])
		}
	case attrIfID:
		if a.need(4) {
			sa.IfID = u32(a.data)
		}
	case attrOffloadDev:
		if a.need(5) {
			sa.OffloadIfindex, sa.Offload = int(int32(u32(a.data))), "crypto"
			if a.data[4]&4 != 0 { // XFRM_OFFLOAD_PACKET
				sa.Offload = "packet"
			}
		}
	case attrLtimeVal:
		if a.need(sizeCurrent) {
			sa.Bytes, sa.Packets = u64(a.data), u64(a.data[8:])
			sa.Added, sa.FirstUsed = unixTime(u64(a.data[16:])), unixTime(u64(a.data[24:]))
		}
	case attrLastUsed:
		if a.need(8) {
			sa.LastUsed = unixTime(u64(a.data))
		}
	case attrSAExtraFlags:
		if a.need(4) {
			sa.Flags = append(sa.Flags, flagNames(u32(a.data), saExtraFlags)...)
		}
	case attrMTimerThresh:
		if a.need(4) {
			sa.MappingMaxAge = seconds(uint64(u32(a.data)))
		}
	case attrNATKeepalive:
		if a.need(4) {
			sa.NATKeepalive = seconds(uint64(u32(a.data)))
		}
	case attrSAPCPU:
		if a.need(4) {
			sa.PCPU = int(u32(a.data))
		}
	case attrSADir:
		if a.need(1) {
			sa.KernelDir = map[byte]ledger.Direction{1: ledger.In, 2: ledger.Out}[a.data[0]]
		}
	}
}

// readEncap reads struct xfrm_encap_tmpl. The ledger knows only UDP (RFC 3948); the old non-IKE UDP
// form is the same on the wire as far as the ports go, and ESP in TCP (RFC 8229) has a name of its own.
func (sa *SA) readEncap(b []byte) {
	switch typ := u16(b); typ {
	case 1, 2: // UDP_ENCAP_ESPINUDP_NON_IKE, UDP_ENCAP_ESPINUDP
		sa.Encap = ledger.EncapUDP
	case 7: // TCP_ENCAP_ESPINTCP
		sa.Encap = "tcp"
	default:
		sa.Encap = ledger.Encap(fmt.Sprintf("type-%d", typ))
	}
	sa.EncapSrcPort, sa.EncapDstPort = be16(b[2:]), be16(b[4:])
}

// readReplay reads the replay state. The kernel sends the ESN form for ESN and for windows beyond 32,
// the legacy form for all others (copy_to_user_state_extra).
func (sa *SA) readReplay(a *attributes) {
	if a.typ == attrReplayVal {
		if a.need(sizeReplay) {
			sa.OSeq, sa.Seq = uint64(u32(a.data)), uint64(u32(a.data[4:]))
		}
		return
	}
	if !a.need(sizeReplayESN) {
		return
	}
	sa.SeqBitmapBits = 32 * u32(a.data)
	sa.OSeq, sa.Seq = uint64(u32(a.data[4:])), uint64(u32(a.data[8:]))
	if sa.ESN {
		sa.OSeq |= uint64(u32(a.data[12:])) << 32
		sa.Seq |= uint64(u32(a.data[16:])) << 32
	}
	sa.ReplayWindow = u32(a.data[20:])
}

func (sa *SA) readIPTFS(a *attributes) {
	if sa.IPTFS == nil {
		sa.IPTFS = &IPTFS{}
	}
	t := sa.IPTFS
	switch a.typ {
	case attrIPTFSDropTime:
		if a.need(4) {
			t.DropTime = time.Duration(u32(a.data)) * time.Microsecond
		}
	case attrIPTFSReorderWin:
		if a.need(2) {
			t.ReorderWindow = u16(a.data)
		}
	case attrIPTFSDontFrag:
		t.DontFragment = true
	case attrIPTFSInitDelay:
		if a.need(4) {
			t.InitDelay = time.Duration(u32(a.data)) * time.Microsecond
		}
	case attrIPTFSMaxQueueSize:
		if a.need(4) {
			t.MaxQueueBytes = u32(a.data)
		}
	case attrIPTFSPacketSize:
		if a.need(4) {
			t.PacketBytes = u32(a.data)
		}
	}
}

func decodeSelector(b []byte) Selector {
	family := u16(b[40:])
	return Selector{
		Dst: prefix(b, family, b[42]), Src: prefix(b[16:], family, b[43]),
		DstPort: be16(b[32:]), DstMask: be16(b[34:]),
		SrcPort: be16(b[36:]), SrcMask: be16(b[38:]),
		Proto: b[44], Ifindex: int(int32(u32(b[48:]))),
	}
}

// prefix gives the zero Prefix for a selector without a family, which matches everything.
func prefix(b []byte, family uint16, bits byte) netip.Prefix {
	return netip.PrefixFrom(address(b, family), int(bits))
}

// decodeLifetime reads struct xfrm_lifetime_cfg.
func decodeLifetime(b []byte) (l ledger.Lifetimes, softUse, hardUse time.Duration) {
	limit := func(i int) uint64 {
		if v := u64(b[8*i:]); v != unlimited {
			return v
		}
		return 0
	}
	l = ledger.Lifetimes{
		SoftBytes: limit(0), HardBytes: limit(1),
		SoftPackets: limit(2), HardPackets: limit(3),
		SoftAdd: seconds(limit(4)), HardAdd: seconds(limit(5)),
	}
	return l, seconds(limit(6)), seconds(limit(7))
}

func seconds(n uint64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/uint64(time.Second))) * time.Second
}

// unixTime gives the zero time for 0, which the kernel uses for "never".
func unixTime(s uint64) time.Time {
	if s == 0 || s > math.MaxInt64 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0)
}

func flagNames(bits uint32, names []string) []string {
	var out []string
	for i, name := range names {
		if bits&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	if rest := bits &^ (1<<len(names) - 1); rest != 0 {
		out = append(out, fmt.Sprintf("0x%x", rest))
	}
	return out
}

func protoName(p uint8) ledger.Proto {
	switch p {
	case protoESP:
		return ledger.ESP
	case protoAH:
		return ledger.AH
	case protoIPComp:
		return ledger.IPComp
	}
	return ledger.Proto(fmt.Sprintf("proto_%d", p))
}

// modeName gives the kernel's modes (XFRM_MODE_*) in iproute2's spelling.
func modeName(m uint8) string {
	names := []string{"transport", "tunnel", "ro", "in_trigger", "beet", "iptfs"}
	if int(m) < len(names) {
		return names[m]
	}
	return fmt.Sprintf("mode-%d", m)
}
