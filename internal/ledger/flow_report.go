// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// Flows are the TCP connections inside the tunnels.
type Flows struct {
	Seen      int64            `json:"seen"`      // flows met during the run
	Forgotten int64            `json:"forgotten"` // of these, thrown out of the kernel's table before they were read
	Packets   map[string]int64 `json:"packets"`   // met at the tunnels' edge, by what became of them
	List      []Flow           `json:"list"`      // those with most trouble, at most FlowsListed by each measure
	Sums      []FlowSums       `json:"sums"`      // all of them, by the SA that carried each end last
}

// FlowSums is what the ends that one SA carries did together.
type FlowSums struct {
	SA              FlowSA `json:"sa"`
	Segments        int64  `json:"segments"`
	Retransmissions int64  `json:"retransmissions"`
	ZeroWindowUS    int64  `json:"zero_window_us"` // connections by time
}

// Flow is one connection. Which end comes first means nothing.
type Flow struct {
	Ends        [2]FlowEnd `json:"ends"`
	Connections int64      `json:"connections"` // that used these addresses and ports during the run
	Closed      bool       `json:"closed"`      // both ends sent FIN, or one sent RST
}

// FlowEnd is one end of a flow: what it sent, as it passed here, and the receive window that it
// advertised. Counts are of the run; least and largest values, and round-trip times, since the flow was
// first seen.
type FlowEnd struct {
	Addr  netip.Addr `json:"addr"`
	Port  uint16     `json:"port"`
	Local bool       `json:"local"` // a socket of this host; false also for an end that sent nothing
	SA    *FlowSA    `json:"sa"`    // that carries what this end sends; null: it sent nothing

	Packets         int64 `json:"packets"`
	PayloadBytes    int64 `json:"payload_bytes"`
	Segments        int64 `json:"segments"`
	Retransmissions int64 `json:"retransmissions"`
	Reordered       int64 `json:"reordered"`
	Gaps            int64 `json:"gaps"`
	Skipped         int64 `json:"skipped"`
	Limited         int64 `json:"window_limited"`
	Probes          int64 `json:"window_probes"`
	Keepalives      int64 `json:"keepalives"`
	Congested       int64 `json:"ecn_ce"`
	EdgeChecked     int64 `json:"edge_checked"` // acknowledgements to this end whose echo was followed
	EdgeHit         int64 `json:"edge_hit"`     // of these, those whose window it then used up
	SegmentMax      int64 `json:"segment_max"`
	InFlightMax     int64 `json:"in_flight_max"`
	ActiveUS        int64 `json:"active_us"` // from its first packet to its last

	Window *FlowWindow `json:"window"` // null: it advertised none
	Zero   ZeroWindow  `json:"zero_window"`
	RTT    *FlowRTT    `json:"rtt"`      // from here to the other end and back; null: not measured
	Back   *FlowRTT    `json:"rtt_back"` // from here to this end and back, by echoed timestamps; null: not measured
}

// FlowSA names the SA that carries an end's packets.
type FlowSA struct {
	SPI       SPI        `json:"spi"`
	Dst       netip.Addr `json:"dst"`
	Proto     Proto      `json:"proto"`
	Direction Direction  `json:"direction"`
	ReqID     uint32     `json:"reqid,omitempty"`
}

// Key is the SA's key in the ledger.
func (s *FlowSA) Key() SAKey {
	return SAKey{Dst: s.Dst, SPI: s.SPI, Proto: s.Proto, Direction: s.Direction}
}

// FlowWindow is the receive window that an end advertised, in bytes.
type FlowWindow struct {
	Last  int64 `json:"last"`
	Min   int64 `json:"min"` // zero left aside
	Max   int64 `json:"max"`
	Scale *int  `json:"scale"` // null: the handshake was not seen, and the figures lack the scale's factor
}

// ZeroWindow is when that window was zero.
type ZeroWindow struct {
	Episodes  int64         `json:"episodes"`
	Packets   int64         `json:"packets"` // that advertised zero
	TotalUS   int64         `json:"total_us"`
	LongestUS int64         `json:"longest_us"`
	OpenUS    int64         `json:"open_us"` // how long the one lasts that is not over; 0: none is
	Newest    []ZeroEpisode `json:"newest"`  // the newest few, oldest first
}

// ZeroEpisode is one stretch of it.
type ZeroEpisode struct {
	Start    time.Time `json:"start"`
	LastedUS int64     `json:"lasted_us"` // so far, where it is not over
}

// FlowRTT is a round trip from here.
type FlowRTT struct {
	Samples       int64 `json:"samples"`
	Steady        int64 `json:"steady"` // those without a wait of an end's own making; the smoothed values are theirs
	MinUS         int64 `json:"min_us"`
	MeanUS        int64 `json:"mean_us"`
	EarlyUS       int64 `json:"early_us"` // mean of the first samples
	MaxUS         int64 `json:"max_us"`
	SmoothedUS    int64 `json:"smoothed_us"`     // at the end, by RFC 6298
	SmoothedMaxUS int64 `json:"smoothed_max_us"` // from the eighth on
}
