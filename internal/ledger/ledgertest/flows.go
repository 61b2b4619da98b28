// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"net/netip"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// uptime is CLOCK_MONOTONIC at Start.
const uptime = time.Hour

// Clock is the world's CLOCK_MONOTONIC.
func (w *World) Clock() time.Duration { return uptime + w.now.Sub(Start) }

// Talk adds a connection whose sender's packets the SA carries, and whose reader's another one carries
// back. It lasts from now on for ten seconds: a thousand segments of 1,000 bytes, a round trip of 2 ms
// behind this host and 20 ms behind the peer, and a window that grows to 1 MiB.
func (w *World) Talk(carries, back *SA) (sender, reader *ledger.FlowEndReading) {
	if w.Flows == nil {
		w.Flows = &ledger.FlowTable{Fates: map[string]uint64{}}
	}
	n := len(w.Flows.Flows)
	now := w.Clock()
	end := func(sa *SA, port uint16) ledger.FlowEndReading {
		address := netip.AddrFrom4([4]byte{10, 1, 0, 1}) // behind this host
		rtt := 20 * time.Millisecond
		if sa.Key.Direction == ledger.In {
			address, rtt = netip.AddrFrom4([4]byte{10, 2, 0, 1}), 2*time.Millisecond
		}
		return ledger.FlowEndReading{
			Addr: netip.AddrPortFrom(address, port), SA: sa.Key, ReqID: sa.Entry.ReqID, Packets: 500,
			Scale: new(uint8(7)), Window: 1 << 20, WindowMin: 64 << 10, WindowMax: 1 << 20, WindowSeen: true,
			First: now, Last: now + 10*time.Second,
			RTT: ledger.RTTReading{Samples: 1, Sum: rtt, Early: rtt, Min: rtt, Max: rtt, Smoothed: rtt, SmoothedMax: rtt},
		}
	}
	f := ledger.FlowReading{Opened: now, Connections: 1, Ends: [2]ledger.FlowEndReading{end(carries, uint16(40000+n)), end(back, 443)}}
	w.Flows.Flows = append(w.Flows.Flows, f)
	ends := &w.Flows.Flows[n].Ends
	sender, reader = &ends[0], &ends[1]
	sender.Packets, sender.Segments, sender.PayloadBytes, sender.SegmentMax, sender.InFlightMax = 1002, 1000, 1_000_000, 1000, 100_000
	Trips(sender, 100, sender.RTT.Min, sender.RTT.Min*3/2)
	w.Flows.Fates["opened"]++
	w.Flows.Fates["tcp"] += 1502
	return sender, reader
}

// Trips sets how long the segments of an end took to be acknowledged: at least, and on average.
func Trips(e *ledger.FlowEndReading, samples uint64, least, mean time.Duration) {
	e.RTT = ledger.RTTReading{
		Samples: samples, Steady: samples, Min: least, Max: 2 * mean, Sum: time.Duration(samples) * mean, Early: time.Duration(min(samples, ledger.RTTEarly)) * mean,
		Smoothed: mean, SmoothedMax: mean,
	}
}

// Stall closes an end's window so often and for so long each; the other end probes it.
func (w *World) Stall(reader, sender *ledger.FlowEndReading, episodes uint64, each time.Duration) {
	for n := range episodes {
		reader.Zeros = append(reader.Zeros, ledger.ZeroReading{Start: w.Clock() + time.Duration(n)*2*each, Lasted: each})
	}
	reader.ZeroEpisodes += episodes
	reader.ZeroPackets += 3 * episodes
	reader.ZeroTotal += time.Duration(episodes) * each
	reader.ZeroLongest = max(reader.ZeroLongest, each)
	sender.Probes += 3 * episodes
}

func (w *World) flows() *ledger.FlowTable {
	if w.Flows == nil {
		return nil
	}
	t := *w.Flows
	t.Clock, t.Flows = w.Clock(), slices.Clone(t.Flows)
	return &t
}
