// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// Snapshot is everything the sources knew at one moment. All counters are absolutes since their own
// beginning; the ledger subtracts. A nil slice or map means "this source is not there", an empty one
// means "it is there and has nothing": the ledger shows the first as not observed, never as zero. Slices and
// maps within an SA may be those of an earlier snapshot, where nothing has moved: they are only read.
type Snapshot struct {
	At        time.Time         // wall clock with its monotonic reading
	Mono      time.Duration     // the same moment by the clock of the durations below: CLOCK_MONOTONIC, or a capture's own
	Wire      []WireSA          // from the wire programs' maps
	Packets   *WireTotals       // classes, asides and losses of the wire programs
	Stack     []StackSA         // from the stack programs' maps; nil: not attached
	Unknown   []UnknownSPI      // dropped for want of an SA
	HostDrops []HostDrop        // dropped outside xfrm's counters; nil: not observed
	Firewall  []FirewallRule    // what drops in nftables; nil: not readable
	Clamps    []MSSClamp        // what sets TCP's segment size there; nil: not readable
	SAD       []SADEntry        // the SAs that exist now; nil: not readable
	Ended     []EndedSA         // SAs that ended since the last snapshot, with their last counters
	XfrmStat  map[string]uint64 // /proc/net/xfrm_stat by kernel counter name; nil: not readable
	Residue   map[string]uint64 // xfrm counters that moved without a packet, by kernel counter name
	Latency   *LatencyTable     // time spent in xfrm; nil: not measured
	Host      *Host             // settings and counters of the namespace and the machine; nil: not looked at
	Flows     *FlowTable        // TCP connections inside the tunnels; nil: not observed
	NAT       *NATReading       // bindings, keepalives and mappings; nil: not observed
	Self      Self

	Policies      []Policy       // the SPD in the kernel's order; nil: not readable
	PolicyDefault *PolicyDefault // nil: the kernel has none (before 5.15), and accepts
	Refusals      []Refusal      // packets that policies refused, by flow; nil: not observed

	PMTU  *PMTUInput // what did not fit, and the routes to the peers; nil: not observed
	IKE   *IKE       // IKE messages seen; nil: not observed
	Names []SAName   // what an IKE daemon calls the SAs; nil: nobody was asked
}

// SAKey is an SA's identity on the wire (RFC 4301 section 4.1 and the vantage direction).
type SAKey struct {
	Dst       netip.Addr // unmapped: IPv4 is 4 bytes
	SPI       SPI
	Proto     Proto
	Direction Direction
}

// WireSA is what the wire programs counted for one SA (struct sa_state and the sum of struct
// sa_count). Sequence numbers are 64 bits: the epochs seen on the wire joined above the 32 bits, or
// plain 32-bit numbers while the sequence has not wrapped.
type WireSA struct {
	Key              SAKey
	Src              netip.Addr
	Encap            Encap
	SrcPort          uint16
	DstPort          uint16
	Ifindex          int
	Created          time.Duration // CLOCK_MONOTONIC of the first packet; a capture's own clock
	LastSeen         time.Duration // the same of the newest packet; live to a quarter of the reader's horizon (250 ms)
	Packets          uint64
	PacketsBefore    uint64 // the same, read before the SAD was dumped: Packets was read after it
	Bytes            uint64 // outer IP packets, headers included
	LargestBytes     uint64 // the largest outer IP packet, header included
	FirstSeq         uint64
	HighestSeq       uint64
	Span             uint64 // numbers from first to highest, over all restarts
	Unique           uint64 // distinct numbers seen
	Duplicates       uint64
	Late             uint64 // unique, but after a higher number
	Stale            uint64 // outside the window: new or repeated, unknowable
	Missing          uint64 // numbers in the span never seen
	Pending          uint64 // part of Missing that is younger than the horizon
	Restarts         uint64
	Jumps            uint64
	Jumped           uint64 // numbers that these leaps passed over, part of Missing until late packets fill them
	GapEvents        uint64
	ExtentMax        uint64   // RFC 4737 reorder extent, packets
	ExtentFloor      uint64   // late packets whose extent is a lower bound
	ExtentHist       []uint64 // log2
	DisplacementMax  uint64   // highest - seq of a late packet, numbers
	DisplacementHist []uint64 // log2

	CPUs       map[int]uint64 // packets by the CPU that received them; CPUs without any are left out
	LateSpread uint64         // part of Late that came in order on its own CPU: CPUs overtook each other
	DSCPs      uint64         // set of the outer DSCPs seen, a bit each (RFC 2474)
	CE         uint64         // packets marked "congestion experienced" in the outer header (RFC 3168)
	RestartAt  time.Duration  // when the last restart was proven; the clock of Created

	// Where packets came from before Src, SrcPort, DstPort and Encap, which are those of the newest.
	Rebinds    uint64
	RebindAt   time.Duration // when that last changed
	OldSrc     netip.Addr
	OldSrcPort uint16
	OldDstPort uint16
	OldEncap   Encap

	// How numbers were skipped, late ones included. Spacing is from one gap's beginning to the next's.
	GapHist        []uint64 // log2 of a gap's length
	Spacings       uint64
	SpacingSum     uint64
	SpacingSquares uint64

	// What passed and what was sent while numbers went missing, sampled live every quarter of the
	// reader's horizon: sums of packets a second over the intervals with a loss, and of their squares.
	LossyIntervals     uint64
	LossyRate          uint64 // packets that arrived
	LossyRateSquares   uint64
	OfferedRate        uint64 // the same and those that are missing
	OfferedRateSquares uint64
	CleanRateMax       uint64 // the most packets a second that arrived in an interval without a loss
}

// WireTotals are the wire programs' own counters, by the names of the enums in bpf/lib/abi.h in
// lower case without prefix ("esp", "not_ipsec", …), per direction.
type WireTotals struct {
	Classes map[Direction]map[string]uint64
	Asides  map[Direction]map[string]uint64
}

// StackSA is what the stack programs counted for one SA.
type StackSA struct {
	Key      SAKey
	ReqID    uint32
	IfID     uint32
	Causes   map[Cause]uint64
	LateMax  uint64   // largest distance below the window's top of a packet dropped as late or mis-epoch
	LateHist []uint64 // log2
}

// UnknownSPI is an SPI for which packets arrived and no SA was found.
type UnknownSPI struct {
	Key     SAKey
	Packets uint64
}

// SADEntry is one SA of the kernel's database, without a byte of key material.
type SADEntry struct {
	Key             SAKey // Direction: In, Out or Unknown where neither side is local
	Src             netip.Addr
	Mode            string // tunnel, transport, beet, iptfs
	ReqID           uint32
	IfID            uint32
	MarkValue       uint32
	MarkMask        uint32
	Encap           Encap
	EncapSrcPort    uint16
	EncapDstPort    uint16
	Algorithms      []Algorithm
	ESN             bool
	ReplayWindow    uint32    // 0: no replay protection
	Seq             uint64    // highest authenticated number, ESN joined; 0 when ReplayWindow is 0
	OSeq            uint64    // last number sent, ESN joined
	Packets         uint64    // curlft.packets
	Bytes           uint64    // curlft.bytes
	ReplayLate      uint64    // stats.replay_window
	ReplayDuplicate uint64    // stats.replay
	IntegrityFailed uint64    // stats.integrity_failed
	Added           time.Time // whole seconds, as the kernel keeps it
	Announced       time.Time // when XFRM_MSG_NEWSA or UPDSA came; zero: before the run
	SoftExpired     time.Time // when the kernel asked for a new SA (XFRM_MSG_EXPIRE, soft); zero: it did not
	Lifetimes       Lifetimes
	Selector        Selector // inner traffic that the SA is for; the zero one: any
	Offload         string   // "", crypto, packet
	OffloadIfindex  int
	Flags           []string
}

// Algorithm names one algorithm of an SA; the key itself is never read, only its length.
type Algorithm struct {
	Kind    string // aead, encryption, authentication, compression
	Name    string // the kernel's, e.g. rfc4106(gcm(aes))
	KeyBits int    // including salt for AEAD, as configured
	ICVBits int    // 0 where the algorithm has none
}

// Lifetimes are an SA's limits; 0 means unlimited.
type Lifetimes struct {
	SoftPackets, HardPackets uint64
	SoftBytes, HardBytes     uint64
	SoftAdd, HardAdd         time.Duration
}

// EndedSA is an SA that was deleted or expired during the run, as the kernel reported it at its end.
type EndedSA struct {
	Last SADEntry
	At   time.Time
	Why  EndReason
}

// EndReason says how an SA ended.
type EndReason string

// The ends an SA can come to.
const (
	EndDeleted  EndReason = "deleted"      // XFRM_MSG_DELSA
	EndExpired  EndReason = "hard-expired" // XFRM_MSG_EXPIRE, hard
	EndFlushed  EndReason = "flushed"      // XFRM_MSG_FLUSHSA
	EndVanished EndReason = "vanished"     // missing from a dump, no message seen
)

// Self is xfrmscope's account of itself.
type Self struct {
	Lost            map[string]uint64  // enum lost, by name; events and packets that it could not account
	Suppressed      uint64             // events withheld by the rate limit
	EventsLost      uint64             // events lost: ring full
	RecursionMisses uint64             // program runs the kernel skipped
	Evicted         uint64             // idle SAs folded away to free their slots
	NsPerRun        map[string]float64 // per program, where the kernel measures it
	Runs            map[string]uint64  // of the same programs, while it was measured
	MapBytes        *uint64            // memory of the programs' maps; nil: the kernel does not tell
	CPUPercent      float64
}

// Hook is one place in the kernel where xfrmscope looks, and what it costs not to.
type Hook struct {
	Name     string `json:"name"`
	Attached bool   `json:"attached"`
	Why      string `json:"why,omitempty"`   // how it is attached, or why it is not
	Costs    string `json:"costs,omitempty"` // what is not observed without it
}
