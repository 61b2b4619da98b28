// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// PMTUKind is what happened to a packet that did not fit (enum pmtu_kind of bpf/lib/pmtu_abi.h).
type PMTUKind string

// The kinds of events.
const (
	PMTUTellSender PMTUKind = "tell_sender"   // too big: an ICMP message for its sender is called for
	PMTUTellSocket PMTUKind = "tell_socket"   // too big: a socket of this host is told without ICMP
	PMTUTold       PMTUKind = "told"          // ICMP arrived: ESP of this host was too big on its way
	PMTUApplied    PMTUKind = "applied"       // a route of this host takes the MTU
	PMTUFragmented PMTUKind = "fragmented"    // cut into fragments on its way out
	PMTUExpired    PMTUKind = "reasm_expired" // its first fragment came, others did not come in time
)

// PMTUInput is what the path MTU programs counted and what the routes to the peers say, in absolutes.
type PMTUInput struct {
	// Totals are exact even where Events could not hold everything: by kind, and "too_big_v6" (part
	// of tell_sender) and "unrecorded" (events that found no room).
	Totals map[string]uint64
	Events []PMTUEventInput // nil: the programs are not attached
	Routes []RouteInput     // nil: not readable
}

// PMTUKey tells events apart. Addresses are those of the packet; for PMTUTold those of the packet that
// the ICMP message quotes. Src is not valid for PMTUApplied.
type PMTUKey struct {
	Kind  PMTUKind
	Src   netip.Addr
	Dst   netip.Addr
	Proto uint8
	SPI   SPI // of a packet that is ESP or ESP in UDP, else 0
	MTU   int // what it has to fit; 0: not known
}

// PMTUEventInput counts one kind of event for one flow.
type PMTUEventInput struct {
	Key      PMTUKey
	Packets  uint64
	Sent     uint64 // tell_sender, IPv4: ICMP messages that left
	Late     uint64 // packets more than two seconds after the first of their connection, one connection followed at a time
	Size     int    // of the last one; merged TCP segments count as one of them
	SizeMax  int
	Took     int        // told: what the kernel reads from the message; 0 with ip_no_pmtu_disc
	SA       SAKey      // the SA that the packet was to take; SPI 0: not known
	Ifindex  int        // tell_sender: the device that the packet came in on, or the tunnel device that it was to take
	Reporter netip.Addr // told: who sent the ICMP message
	First    time.Time
	Last     time.Time
}

// RouteInput is the route to a peer's outer address.
type RouteInput struct {
	Src     netip.Addr
	Dst     netip.Addr
	MTU     int  // of the route itself, learned or configured; 0: it has none
	Locked  bool // configured with "lock": nothing is learned
	Ifindex int
	LinkMTU int // of its device
}
