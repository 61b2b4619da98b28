// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// FlowTable is what the programs at the edge of the tunnels saw of the TCP connections inside them
// (bpf/inner.bpf.c).
type FlowTable struct {
	Flows []FlowReading
	Fates map[string]uint64 // packets by enum inner_fate, in lower case without prefix, and flows "opened"
	Clock time.Duration     // CLOCK_MONOTONIC when the table was read
}

// FlowReading is one connection by its addresses and ports, with both ends.
type FlowReading struct {
	Ends        [2]FlowEndReading
	Opened      time.Duration // CLOCK_MONOTONIC of the first packet: tells an entry from one that took its place
	Connections uint64        // that used these addresses and ports, one after the other
}

// FlowEndReading is what one end sent, where it crosses this host's IPsec, and what it advertised.
// Times are CLOCK_MONOTONIC or durations; counters are since Opened.
type FlowEndReading struct {
	Addr  netip.AddrPort
	SA    SAKey // that carried its last packet; the zero key: it sent none
	ReqID uint32
	Local bool // a socket of this host sends
	FIN   bool
	RST   bool

	Packets, PayloadBytes uint64
	Segments              uint64 // that carry payload
	Retransmissions       uint64 // segments whose numbers had passed before
	Reordered             uint64 // segments that filled a gap before anybody can have asked for them
	Gaps                  uint64 // times that numbers were skipped
	Skipped               uint64 // segments that these numbers filled
	Limited               uint64 // segments that left the other end's window no room for one more
	Probes                uint64 // sent into a window of zero
	Keepalives            uint64
	Congested             uint64 // packets marked CE (RFC 3168)
	SegmentMax            uint64 // bytes of the largest segment
	InFlightMax           uint64 // bytes sent and not acknowledged

	Scale      *uint8 // window scale (RFC 7323); nil: the handshake was not seen, windows are not scaled
	Window     uint64 // last one advertised, bytes
	WindowMin  uint64 // of those that were not zero
	WindowMax  uint64
	WindowSeen bool

	ZeroEpisodes uint64
	ZeroPackets  uint64
	ZeroTotal    time.Duration // of the episodes that are over
	ZeroLongest  time.Duration // of those
	ZeroSince    time.Duration // start of the one that is not; 0: none
	Zeros        []ZeroReading // the newest, oldest first

	First, Last time.Duration
	RTT         RTTReading // from here to the other end and back, by its acknowledgements
	Back        RTTReading // from here to this end and back, by echoed timestamps (RFC 7323)
	EdgeChecked uint64     // acknowledgements for this end whose echo was followed
	EdgeHit     uint64     // of these, those whose window this end then used up
}

// ZeroReading is one zero-window episode.
type ZeroReading struct {
	Start  time.Duration // CLOCK_MONOTONIC
	Lasted time.Duration // 0: not over
}

// RTTReading is how long something took, there and back.
type RTTReading struct {
	Samples, Steady                             uint64        // Steady: of which Smoothed was made
	Sum, Early, Min, Max, Smoothed, SmoothedMax time.Duration // Early: sum of the first RTTEarly samples
}

// RTTEarly is how many samples make up the early average (RTT_EARLY of bpf/lib/inner_abi.h).
const RTTEarly = 32
