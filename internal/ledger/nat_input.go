// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// NATReading is what tells of address translation between the gateways, in absolutes. Durations that are
// moments are on the clock of Snapshot.Mono.
type NATReading struct {
	Keepalives []KeepaliveReading // from the wire programs' map
	Peers      []PeerReading      // sampled by the reader; empty in a capture
	Mappings   []MappingReading   // announced by the kernel since the subscription
}

// KeepaliveReading counts the NAT keepalives of one binding (RFC 3948 section 4).
type KeepaliveReading struct {
	Src, Dst                 netip.AddrPort
	Direction                Direction
	Packets                  uint64
	First, Last              time.Duration
	IntervalMin, IntervalMax time.Duration // 0 until there were two
}

// MappingReading is a change that the kernel announced (XFRM_MSG_MAPPING): an authentic packet of the SA
// came from elsewhere than the SA knows. It repeats the announcement until the SA is updated.
type MappingReading struct {
	Key           SAKey
	ReqID         uint32
	Old, New      netip.AddrPort
	First, Last   time.Time
	Announcements uint64
}

// PeerReading is the ESP between two addresses, whatever its SAs, as the reader's samples saw it. A
// keepalive is a sign of life here, but not a packet.
type PeerReading struct {
	Local, Remote   netip.Addr
	In, Out         uint64
	LastIn, LastOut time.Duration // 0: never
	Quiet           time.Duration // the longest time without any sign of life of either end
	OutSinceIn      uint64        // packets sent since the last sign of life from there
	OutSinceQuiet   uint64        // part of these: sent since the longest silence among them ended
	OneWaySince     time.Duration // when that was
	QuietBefore     time.Duration // how long it was: nothing had passed in either direction
}

// NAT is what happened between gateways that speak ESP in UDP.
type NAT struct {
	Peers    []NATPeer    `json:"peers"`
	Mappings []NATMapping `json:"mappings"` // announced by the kernel
}

// NATPeer is the ESP in UDP between this host and another.
type NATPeer struct {
	Local         netip.Addr `json:"local"`
	Remote        netip.Addr `json:"remote"`
	InPort        uint16     `json:"in_port,omitempty"`  // from which the peer's newest packets came
	OutPort       uint16     `json:"out_port,omitempty"` // to which this host's newest packets went
	Translated    bool       `json:"translated"`         // the peer's port is not its own: a NAT stands before it
	InPackets     int64      `json:"in_packets"`
	OutPackets    int64      `json:"out_packets"`
	LastIn        *time.Time `json:"last_in,omitempty"`
	LastOut       *time.Time `json:"last_out,omitempty"`
	QuietS        float64    `json:"quiet_s"`                 // the longest time in which nothing passed at all
	OutSinceIn    int64      `json:"out_since_in"`            // packets sent since the peer's last sign of life
	OutSinceQuiet int64      `json:"out_since_quiet"`         // part of these: sent since the longest silence among them ended
	OneWaySince   *time.Time `json:"one_way_since,omitempty"` // when that was
	QuietBeforeS  float64    `json:"quiet_before_s"`          // how long it was: nothing passed in either direction
	Moves         int64      `json:"moves"`                   // changes of address, port or encapsulation, all SAs together
	KeepalivesIn  *Beat      `json:"keepalives_in,omitempty"`
	KeepalivesOut *Beat      `json:"keepalives_out,omitempty"`
}

// Beat is something that comes again and again. Intervals are known from two on.
type Beat struct {
	Count        int64      `json:"count"`
	IntervalMinS float64    `json:"interval_min_s,omitempty"`
	IntervalAvgS float64    `json:"interval_avg_s,omitempty"`
	IntervalMaxS float64    `json:"interval_max_s,omitempty"`
	Last         *time.Time `json:"last,omitempty"`
}

// NATMapping is one change that the kernel announced.
type NATMapping struct {
	SPI           SPI        `json:"spi"`
	Dst           netip.Addr `json:"dst"`
	ReqID         uint32     `json:"reqid,omitempty"`
	Old           string     `json:"old"`
	New           string     `json:"new"`
	First         time.Time  `json:"first"`
	Last          time.Time  `json:"last"`
	Announcements int64      `json:"announcements"`
}
