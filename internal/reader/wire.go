// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// Directions of bpf/lib/abi.h, by value.
var directions = [...]ledger.Direction{ledger.In, ledger.Out, ledger.Unknown}

func direction(d uint8) ledger.Direction {
	if int(d) < len(directions) {
		return directions[d]
	}
	return ledger.Unknown
}

// Addr turns 16 bytes in network order into an address, IPv4 unmapped.
func addr(b [16]byte) netip.Addr { return netip.AddrFrom16(b).Unmap() }

// WireSA turns an SA's state and the sum of its per-CPU counts into the ledger's terms. pending is
// the part of the missing numbers that may still arrive; a source that has ended passes 0.
//
// The wire programs key restarts of a sequence by giving each the next 32-bit epoch, and begin with
// SEQ_BIAS, which is epoch 1 (bpf/lib/abi.h). The epoch of the current sequence's first number is
// therefore all that stands between a joined number and the peer's own.
func (s *State) WireSA(c Count, pending uint64) ledger.WireSA {
	// One piece of memory for what were three.
	hists := &struct{ extent, displacement, gap [16]uint64 }{s.ExtentHist, s.DisplacementHist, s.GapHist}
	w := ledger.WireSA{
		Key:              s.Key(),
		Src:              addr(s.Src),
		SrcPort:          s.Sport,
		DstPort:          s.Dport,
		Ifindex:          int(s.Ifindex),
		Created:          time.Duration(s.CreatedNs),
		Packets:          c.Packets,
		PacketsBefore:    c.Packets,
		Bytes:            c.Bytes,
		LargestBytes:     uint64(c.Largest),
		LastSeen:         time.Duration(s.LastNs),
		FirstSeq:         s.OriginalFirst & (seqBias - 1),
		HighestSeq:       s.plain(s.Highest),
		Span:             s.span(),
		Unique:           s.unique(),
		Duplicates:       s.Duplicates,
		Late:             s.Late,
		Stale:            s.Stale,
		Missing:          s.holes(),
		Pending:          min(pending, s.holes()),
		Restarts:         s.Restarts,
		Jumps:            s.Jumps,
		Jumped:           s.Jumped,
		GapEvents:        s.GapEvents,
		ExtentMax:        s.ExtentMax,
		ExtentFloor:      s.ExtentUnknown,
		ExtentHist:       hists.extent[:],
		DisplacementMax:  s.DisplacementMax,
		DisplacementHist: hists.displacement[:],
		LateSpread:       s.LateSpread,
		DSCPs:            c.Dscps,
		CE:               s.Ce,
		RestartAt:        time.Duration(s.RestartNs),
		Rebinds:          s.Rebinds,
		GapHist:          hists.gap[:],
		Spacings:         s.Spacings,
		SpacingSum:       s.SpacingSum,
		SpacingSquares:   s.SpacingSquares,
	}
	if s.Rebinds > 0 {
		w.RebindAt, w.OldSrc = time.Duration(s.RebindNs), addr(s.OldSrc)
		w.OldSrcPort, w.OldDstPort, w.OldEncap = uint16(s.OldPorts), uint16(s.OldPorts>>16), encap(uint8(s.OldPorts>>32))
	}
	w.Encap = encap(s.Encap)
	return w
}

func encap(e uint8) ledger.Encap {
	if e != 0 {
		return ledger.EncapUDP
	}
	return ledger.EncapNone
}

// Key is the SA's identity on the wire. The wire programs account ESP only.
func (s *State) Key() ledger.SAKey {
	return ledger.SAKey{Dst: addr(s.Dst), SPI: ledger.SPI(s.Spi), Proto: ledger.ESP, Direction: direction(s.Dir)}
}

// plain removes the epoch in which the current sequence began, so that wraps since then stay.
func (s *State) plain(seq uint64) uint64 {
	base := s.First &^ (seqBias - 1)
	if seq < base {
		return seq & (seqBias - 1)
	}
	return seq - base
}

// merge adds what `later` counted to what `w` counted for the same SA in a slot given up before.
// The numbers between the two slots' sequences are not known and not invented.
func merge(w, later ledger.WireSA) ledger.WireSA {
	out := later
	out.Created = min(w.Created, later.Created)
	out.FirstSeq = w.FirstSeq
	for _, f := range []struct {
		dst *uint64
		add uint64
	}{
		{&out.Packets, w.Packets}, {&out.PacketsBefore, w.PacketsBefore}, {&out.Bytes, w.Bytes},
		{&out.Span, w.Span}, {&out.Unique, w.Unique}, {&out.Duplicates, w.Duplicates}, {&out.Late, w.Late},
		{&out.Stale, w.Stale}, {&out.Missing, w.Missing}, {&out.Pending, w.Pending},
		{&out.Restarts, w.Restarts}, {&out.Jumps, w.Jumps}, {&out.Jumped, w.Jumped}, {&out.GapEvents, w.GapEvents},
		{&out.ExtentFloor, w.ExtentFloor}, {&out.LateSpread, w.LateSpread}, {&out.CE, w.CE},
		{&out.Rebinds, w.Rebinds}, {&out.Spacings, w.Spacings}, {&out.SpacingSum, w.SpacingSum},
		{&out.SpacingSquares, w.SpacingSquares}, {&out.LossyIntervals, w.LossyIntervals},
		{&out.LossyRate, w.LossyRate}, {&out.LossyRateSquares, w.LossyRateSquares},
		{&out.OfferedRate, w.OfferedRate}, {&out.OfferedRateSquares, w.OfferedRateSquares},
	} {
		*f.dst += f.add
	}
	out.ExtentMax = max(w.ExtentMax, later.ExtentMax)
	out.DisplacementMax = max(w.DisplacementMax, later.DisplacementMax)
	out.LargestBytes = max(w.LargestBytes, later.LargestBytes)
	out.CleanRateMax = max(w.CleanRateMax, later.CleanRateMax)
	out.LastSeen = max(w.LastSeen, later.LastSeen)
	out.DSCPs |= w.DSCPs
	out.RestartAt = max(w.RestartAt, later.RestartAt)
	if later.Rebinds == 0 {
		out.RebindAt, out.OldSrc, out.OldEncap = w.RebindAt, w.OldSrc, w.OldEncap
		out.OldSrcPort, out.OldDstPort = w.OldSrcPort, w.OldDstPort
	}
	out.CPUs = maps.Clone(later.CPUs)
	for cpu, n := range w.CPUs {
		if out.CPUs == nil {
			out.CPUs = map[int]uint64{}
		}
		out.CPUs[cpu] += n
	}
	out.GapHist = addHist(w.GapHist, later.GapHist)
	out.ExtentHist = addHist(w.ExtentHist, later.ExtentHist)
	out.DisplacementHist = addHist(w.DisplacementHist, later.DisplacementHist)
	return out
}

func addHist(a, b []uint64) []uint64 {
	out := slices.Clone(b)
	for i := range min(len(a), len(out)) {
		out[i] += a[i]
	}
	return out
}

// compareKeys orders SAs by direction, destination and SPI, so that reports are stable.
func compareKeys(a, b ledger.SAKey) int {
	if a.Direction != b.Direction {
		if a.Direction < b.Direction {
			return -1
		}
		return 1
	}
	if c := a.Dst.Compare(b.Dst); c != 0 {
		return c
	}
	if a.SPI != b.SPI {
		if a.SPI < b.SPI {
			return -1
		}
		return 1
	}
	return 0
}
