// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// InnerMaps are the maps of the inner object.
type InnerMaps struct {
	Flows *ebpf.Map // inner_flows
	Fates *ebpf.Map // inner_fates
	Names []string  // enum inner_fate
}

// Part fills in the TCP connections inside the tunnels.
func (m InnerMaps) Part(_ context.Context, snap *ledger.Snapshot) error {
	table := &ledger.FlowTable{Fates: make(map[string]uint64)}
	for i, name := range m.Names {
		var perCPU []uint64
		if err := m.Fates.Lookup(uint32(i), &perCPU); err != nil {
			return fmt.Errorf("read inner_fates: %w", err)
		}
		table.Fates[name] = Sum(perCPU, add)
	}
	flows, err := m.flows()
	if err != nil {
		return fmt.Errorf("read inner_flows: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	table.Flows, table.Clock = flows, time.Duration(now.Nano())
	snap.Flows = table
	return nil
}

// flows walks the table. Connections come and go while it does: a walk that was thrown back begins
// again, and after some tries what was met has to do.
func (m InnerMaps) flows() ([]ledger.FlowReading, error) {
	seen := make(map[bpfobj.InnerKey]ledger.FlowReading)
	for range walkTries {
		var key bpfobj.InnerKey
		var value bpfobj.InnerFlow
		it := m.Flows.Iterate()
		for it.Next(&key, &value) {
			if value.OpenedNs != 0 { // else it is being opened this moment
				seen[key] = flowReading(&key, &value)
			}
		}
		err := it.Err()
		if err == nil {
			break
		}
		if !errors.Is(err, ebpf.ErrIterationAborted) {
			return nil, err
		}
	}
	out := make([]ledger.FlowReading, 0, len(seen))
	for _, f := range seen {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b ledger.FlowReading) int {
		return cmp.Or(a.Ends[0].Addr.Compare(b.Ends[0].Addr), a.Ends[1].Addr.Compare(b.Ends[1].Addr))
	})
	return out, nil
}

func flowReading(key *bpfobj.InnerKey, f *bpfobj.InnerFlow) ledger.FlowReading {
	out := ledger.FlowReading{Opened: time.Duration(f.OpenedNs), Connections: f.Connections}
	for i := range out.Ends {
		// The words lie as the address does in memory; both targets are little-endian.
		var raw [16]byte
		binary.LittleEndian.PutUint64(raw[:8], key.Addr[i][0])
		binary.LittleEndian.PutUint64(raw[8:], key.Addr[i][1])
		out.Ends[i] = endReading(f, i, netip.AddrPortFrom(addr(raw), key.Port[i]))
	}
	return out
}

func endReading(f *bpfobj.InnerFlow, i int, at netip.AddrPort) ledger.FlowEndReading {
	e := &f.End[i]
	out := ledger.FlowEndReading{
		Addr: at, ReqID: e.Reqid,
		Local: e.Seen&bpfobj.InnerSeenLocal != 0, FIN: e.Seen&bpfobj.InnerSeenFIN != 0, RST: e.Seen&bpfobj.InnerSeenRST != 0,
		Packets: e.Packets, PayloadBytes: e.Bytes, Segments: e.Segments, Retransmissions: e.Retransmissions,
		Reordered: e.Reordered, Gaps: e.Gaps, Skipped: e.Skipped, Limited: e.Limited, Probes: e.Probes, Keepalives: e.Keepalives,
		Congested: e.Congested, SegmentMax: uint64(e.SegmentMax), InFlightMax: e.InFlightMax,
		Window: e.Window, WindowMin: e.WindowMin, WindowMax: e.WindowMax, WindowSeen: e.Seen&bpfobj.InnerSeenWindow != 0,
		ZeroEpisodes: e.ZeroEpisodes, ZeroPackets: e.ZeroPackets, ZeroTotal: time.Duration(e.ZeroNs),
		ZeroLongest: time.Duration(e.ZeroLongestNs), ZeroSince: time.Duration(e.ZeroSinceNs),
		First: time.Duration(e.FirstNs), Last: time.Duration(e.LastNs),
		RTT: rttReading(e.Ahead), Back: rttReading(e.Back), EdgeChecked: e.EdgeChecked, EdgeHit: e.EdgeHit,
	}
	if e.Vantage != 0 {
		proto, ok := protos[e.SaProto]
		if !ok {
			proto = ledger.Proto(fmt.Sprintf("proto_%d", e.SaProto))
		}
		out.SA = ledger.SAKey{Dst: addr(e.SaDst), SPI: ledger.SPI(e.Spi), Proto: proto, Direction: direction(e.Vantage - 1)}
	}
	if bpfobj.InnerScaleKnown(e.Scale) {
		out.Scale = new(e.Scale)
	}
	// The ring holds the newest; the next one to be written is the oldest.
	for n := range uint64(len(e.Zeros)) {
		z := e.Zeros[(e.ZeroEpisodes+n)%uint64(len(e.Zeros))]
		if z.StartNs != 0 {
			out.Zeros = append(out.Zeros, ledger.ZeroReading{Start: time.Duration(z.StartNs), Lasted: time.Duration(z.LastedNs)})
		}
	}
	return out
}

func rttReading(r bpfobj.InnerRTT) ledger.RTTReading {
	return ledger.RTTReading{
		Samples: r.Samples, Steady: r.Steady, Sum: time.Duration(r.SumNs), Early: time.Duration(r.EarlyNs), Min: time.Duration(r.MinNs),
		Max: time.Duration(r.MaxNs), Smoothed: time.Duration(r.SmoothNs), SmoothedMax: time.Duration(r.SmoothMaxNs),
	}
}
