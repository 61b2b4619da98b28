// SPDX-License-Identifier: Apache-2.0

package export

import "xfrmscope/internal/ledger"

// bin is one line of the ledger: its metric, and where a tunnel has it. nil: not observed.
type bin struct {
	metric *Metric
	of     func(*ledger.Tunnel) *int64
}

func inbound(f func(*ledger.Inbound) *int64) func(*ledger.Tunnel) *int64 {
	return func(t *ledger.Tunnel) *int64 {
		if t.In == nil {
			return nil
		}
		return f(t.In)
	}
}

func outbound(f func(*ledger.Outbound) *int64) func(*ledger.Tunnel) *int64 {
	return func(t *ledger.Tunnel) *int64 {
		if t.Out == nil {
			return nil
		}
		return f(t.Out)
	}
}

// both takes a bin that either direction has.
func both(in func(*ledger.Inbound) *int64, out func(*ledger.Outbound) *int64) func(*ledger.Tunnel) *int64 {
	return func(t *ledger.Tunnel) *int64 {
		if t.In != nil {
			return in(t.In)
		}
		return outbound(out)(t)
	}
}

// arriving takes a figure of the wire that only arrivals have.
func arriving(f func(*ledger.WireSums) *int64) func(*ledger.Tunnel) *int64 {
	return func(t *ledger.Tunnel) *int64 {
		if t.Direction == ledger.Out || t.Wire == nil {
			return nil
		}
		return f(t.Wire)
	}
}

// inboundBins are named as in the report's JSON.
var inboundBins = []bin{
	{packetsOf("sent", "Sequence numbers that the peer used, whether or not the packets arrived."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Sent })},
	{packetsOf("lost_on_path", "Sequence numbers that never came and are older than the reorder horizon of one second. "+
		"A packet that comes later still is taken off again: the series then stands still until it is overtaken."),
		inbound(func(b *ledger.Inbound) *int64 { return b.LostOnPath })},
	{packetsNow("pending", "Sequence numbers that have not come yet and still may."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Pending })},
	{packetsOf("unique", "Packets that arrived, each sequence number once."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Unique })},
	{packetsOf("arrivals", "Packets that arrived at the wire hook, repeated ones included."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Arrivals })},
	{packetsOf("duplicates", "Packets whose sequence number had come before."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Duplicates })},
	{packetsOf("stale", "Packets so far from the others that new cannot be told from repeated."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Stale })},
	{packetsOf("late", "Packets that arrived after a higher sequence number, and for the first time."),
		arriving(func(w *ledger.WireSums) *int64 { return &w.Late })},
	{packetsOf("lost_in_host", "Packets dropped between the wire hook and xfrm: firewall, reverse path filter, traffic control, reassembly."),
		inbound(func(b *ledger.Inbound) *int64 { return b.LostInHost })},
	{packetsOf("xfrm_dropped", "Packets that xfrm dropped before they were decrypted."),
		inbound(func(b *ledger.Inbound) *int64 { return b.XfrmDropped })},
	{packetsOf("decapsulated", "Packets that the SA decrypted and counted."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Decapsulated })},
	{packetsOf("policy_dropped", "Packets dropped by a policy check after they were decrypted."),
		inbound(func(b *ledger.Inbound) *int64 { return b.PolicyDropped })},
	{packetsOf("inner_dropped", "Packets dropped on the inner path after they were decrypted: firewall, route, hop limit, socket, queue."),
		inbound(func(b *ledger.Inbound) *int64 { return b.InnerDropped })},
	{packetsOf("delivered", "Packets that reached their socket or left by another interface."),
		inbound(func(b *ledger.Inbound) *int64 { return b.Delivered })},
}

var outboundBins = []bin{
	{packetsOf("offered", "Packets that were to be sent through the tunnel."),
		outbound(func(b *ledger.Outbound) *int64 { return b.Offered })},
	{packetsOf("xfrm_out_dropped", "Packets that xfrm dropped before they had a sequence number."),
		outbound(func(b *ledger.Outbound) *int64 { return b.XfrmOutDropped })},
	{packetsOf("encapsulated", "Sequence numbers assigned."),
		outbound(func(b *ledger.Outbound) *int64 { return b.Encapsulated })},
	{packetsOf("encrypt_failed", "Packets that had a sequence number and could not be encrypted."),
		outbound(func(b *ledger.Outbound) *int64 { return b.EncryptFailed })},
	{packetsOf("lost_in_host_egress", "Packets dropped between xfrm and the wire: firewall, route, neighbour, traffic control, queue, device."),
		outbound(func(b *ledger.Outbound) *int64 { return b.LostInHostEgress })},
	{packetsOf("on_wire", "Packets that left by the wire hook. What becomes of them on the path, the other end knows."),
		outbound(func(b *ledger.Outbound) *int64 { return b.OnWire })},
}

// bothBins are of both directions.
var bothBins = []bin{
	{packetsNow("in_flight", "Packets that were under way between the two readings of one snapshot."),
		both(func(b *ledger.Inbound) *int64 { return b.InFlight }, func(b *ledger.Outbound) *int64 { return b.InFlight })},
	{packetsNow("unattributed", "Packets that no bin explains (positive), or that came out without having been seen to go in (negative). "+
		"0 is normal."),
		both(func(b *ledger.Inbound) *int64 { return b.Unattributed }, func(b *ledger.Outbound) *int64 { return b.Unattributed })},
	{&Metric{Name: "xfrmscope_wire_bytes_total", Kind: Counter, Unit: unitBytes, Labels: tunnelLabels,
		Help: "Bytes of the outer IP packets at the wire hook, IP header included."},
		func(t *ledger.Tunnel) *int64 {
			if t.Wire == nil {
				return nil
			}
			return &t.Wire.Bytes
		}},
}

func metricsOf(bins []bin) []*Metric {
	out := make([]*Metric, len(bins))
	for i, b := range bins {
		out[i] = b.metric
	}
	return out
}
