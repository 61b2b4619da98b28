// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// PMTU is what did not fit during the run, who was told, and what each outbound SA lets through.
type PMTU struct {
	// Totals counts events by kind; "unrecorded" is how many of them are in no entry of Events. Null:
	// the path MTU programs are not attached.
	Totals map[string]int64 `json:"totals"`
	Events []PMTUEvent      `json:"events"` // the most frequent first
	// EventsLeftOut is how many more entries there are.
	EventsLeftOut int        `json:"events_left_out"`
	Paths         []PMTUPath `json:"paths"` // one for each outbound SA that is alive
	// Counters are the namespace's own about fragments and ICMP, under the kernel's names; those that
	// did not move are left out. Null: not readable.
	Counters map[string]int64 `json:"counters"`
	// Discovery is sysctl net.ipv4.ip_no_pmtu_disc; null: not readable.
	Discovery *int `json:"ip_no_pmtu_disc"`
}

// PMTUEvent is one kind of event for one flow.
type PMTUEvent struct {
	Kind     PMTUKind   `json:"kind"`
	Src      netip.Addr `json:"src,omitzero"`
	Dst      netip.Addr `json:"dst,omitzero"`
	Protocol string     `json:"protocol,omitempty"` // by name where it has a common one, else its number
	SPI      *SPI       `json:"spi,omitempty"`      // of the packet, when it is ESP
	MTU      int        `json:"mtu,omitempty"`      // that it had to fit
	Packets  int64      `json:"packets"`
	Sent     *int64     `json:"sent,omitempty"` // tell_sender over IPv4: ICMP messages that left
	Late     int64      `json:"late,omitempty"` // more than two seconds after the first of the connection followed
	Size     int        `json:"size,omitempty"` // of the last packet
	SizeMax  int        `json:"size_max,omitempty"`
	Took     *int       `json:"took,omitempty"`   // told: the MTU that the kernel read from it
	SA       *SARef     `json:"sa,omitempty"`     // that the packet was to take
	Tunnel   string     `json:"tunnel,omitempty"` // xfrm or VTI device that it was to take; the SA is then not known
	Reporter netip.Addr `json:"reporter,omitzero"`
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`
}

// SARef names an outbound SA.
type SARef struct {
	SPI   SPI        `json:"spi"`
	Dst   netip.Addr `json:"dst"`
	ReqID uint32     `json:"reqid,omitempty"`
}

// PMTUPath is what an outbound SA adds to a packet and lets through.
type PMTUPath struct {
	SPI      SPI        `json:"spi"`
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	ReqID    uint32     `json:"reqid,omitempty"`
	Ifindex  int        `json:"ifindex,omitempty"`
	LinkMTU  int        `json:"link_mtu,omitempty"`  // of the device towards the peer; 0: not known
	RouteMTU int        `json:"route_mtu,omitempty"` // of the route, learned or configured; 0: none of its own
	Locked   bool       `json:"locked,omitempty"`
	PathMTU  int        `json:"path_mtu,omitempty"` // what the kernel goes by now: the route's, else the link's
	ToldMTU  int        `json:"told_mtu,omitempty"` // the least that a router asked for during the run
	// Overhead is null where an algorithm is not known.
	Overhead *Overhead `json:"overhead"`
	InnerMTU int       `json:"inner_mtu,omitempty"` // largest inner packet that goes through PathMTU
	MSS4     int       `json:"mss_ipv4,omitempty"`
	MSS6     int       `json:"mss_ipv6,omitempty"`
}

// Known says what the path is known to take: what a router told, where that is less than what the
// kernel goes by.
func (p *PMTUPath) Known() int {
	if p.ToldMTU > 0 && (p.PathMTU == 0 || p.ToldMTU < p.PathMTU) {
		return p.ToldMTU
	}
	return p.PathMTU
}
