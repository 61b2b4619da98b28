// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// Schema names the version of the JSON that a Report becomes. Fields may be added, never renamed.
const Schema = "xfrmscope/1"

// Report is the ledger at one moment: what happened to each SA's packets since the first snapshot.
// A nil pointer or map means "no vantage point observes this"; zero means "observed, and none".
type Report struct {
	Schema      string          `json:"schema"`
	Source      Source          `json:"source"`
	SAs         []SA            `json:"sas"`
	UnknownSPIs []Stranger      `json:"unknown_spis"` // null: not observed
	Drops       []Drop          `json:"drops"`        // outside xfrm; null: not observed
	Firewall    []FirewallEntry `json:"firewall"`     // rules and chains that drop; null: not readable
	Clamps      []MSSClamp      `json:"mss_clamps"`   // rules that set TCP's segment size; null: not readable
	Kernel      Kernel          `json:"kernel"`
	Packets     *PacketStats    `json:"packets"` // null: no wire programs
	Host        *HostReport     `json:"host"`    // null: not looked at

	Policies      []PolicyEntry  `json:"policies"`                 // the SPD; null: not readable
	PolicyDefault *PolicyDefault `json:"policy_default,omitempty"` // absent: the kernel has none and accepts
	Refusals      []RefusedFlow  `json:"refusals"`                 // null: not observed

	Flows  *Flows     `json:"flows"` // null: the inner hooks are not attached
	NAT    *NAT       `json:"nat"`   // null: not observed
	Hooks  []Hook     `json:"hooks"`
	Self   SelfReport `json:"self"`
	Notes  []string   `json:"notes,omitempty"`
	IKE    *IKE       `json:"ike"`    // null: not observed
	Rekeys []Rekey    `json:"rekeys"` // SAs that took over from others during the run, oldest first
	PMTU   *PMTU      `json:"pmtu"`   // null: not observed
}

// Kinds of source.
const (
	KindLive      = "live"
	KindCapture   = "capture"
	KindRecording = "recording"
)

// Source says where the figures come from. New takes it without Start and Duration, which the
// snapshots give; a capture's own times, when set, win over those of its snapshots.
type Source struct {
	Kind      string    `json:"kind"`
	Name      string    `json:"name,omitempty"`
	Kernel    string    `json:"kernel,omitempty"`
	Netns     string    `json:"netns,omitempty"`
	Start     time.Time `json:"start,omitzero"` // not set: a source without a clock
	DurationS float64   `json:"duration_s"`
}

// State says what the kernel's SA database knows of an SA.
type State string

// The states of an SA in a report.
const (
	Alive      State = "alive"      // in the SAD at the last snapshot
	Gone       State = "ended"      // was in the SAD during the run
	Absent     State = "absent"     // on the wire, never in the SAD
	NotCovered State = "unobserved" // no SAD to look at
)

// SA is one security association, as every source together knows it.
type SA struct {
	SPI            SPI        `json:"spi"`
	Dst            netip.Addr `json:"dst"`
	Src            netip.Addr `json:"src"`
	Proto          Proto      `json:"proto"`
	Direction      Direction  `json:"direction"`
	Encap          Encap      `json:"encap"`
	SrcPort        uint16     `json:"src_port,omitempty"` // UDP encapsulation
	DstPort        uint16     `json:"dst_port,omitempty"`
	Ifindex        int        `json:"ifindex,omitempty"` // interface where the wire programs first saw it
	Mode           string     `json:"mode,omitempty"`
	ReqID          uint32     `json:"reqid,omitempty"`
	IfID           uint32     `json:"if_id,omitempty"`
	Mark           string     `json:"mark,omitempty"`          // value/mask
	SharedBy       int        `json:"shared_by,omitempty"`     // SAs that had this key at one time, told apart by mark
	ReplayWindow   *uint32    `json:"replay_window,omitempty"` // absent: the SAD does not know
	ESN            *bool      `json:"esn,omitempty"`
	Algorithms     []string   `json:"algorithms,omitempty"`
	Offload        string     `json:"offload,omitempty"`
	OffloadIfindex int        `json:"offload_ifindex,omitempty"` // device that does it
	State          State      `json:"state"`
	Added          *time.Time `json:"added,omitempty"`
	AddedDuring    bool       `json:"added_during_run,omitempty"`
	Endings        []Ending   `json:"endings,omitempty"` // oldest first; more than one if the key was used again

	CPUs        map[int]int64   `json:"cpus,omitempty"` // packets by the CPU that received or sent them on the wire
	Wire        *Wire           `json:"wire"`           // null: not watched on the wire
	Xfrm        map[Cause]int64 `json:"xfrm"`           // null: not observed; causes that did not occur are left out
	XfrmFrom    string          `json:"xfrm_from"`      // FromStack, FromSAD or ""
	XfrmLateMax int64           `json:"xfrm_late_max,omitempty"`
	XfrmLate    []int64         `json:"xfrm_late_histogram,omitempty"`
	Own         *Own            `json:"own"`               // null: not in the SAD, or not from the start
	Latency     *Latency        `json:"latency,omitempty"` // absent: not measured, or no packets
	Ledger      Bins            `json:"ledger"`
	Connection  string          `json:"connection,omitempty"` // the IKE daemon's names
	Child       string          `json:"child,omitempty"`
	Announced   *time.Time      `json:"announced,omitempty"`    // to the millisecond; absent: it was there before the run
	SoftExpired *time.Time      `json:"soft_expired,omitempty"` // the kernel asked for a new SA
	Lifetimes   *Limits         `json:"lifetimes,omitempty"`    // absent: none, or not in the SAD
	Seq         uint64          `json:"seq,omitempty"`          // highest number accepted, at the end of the run
	OSeq        uint64          `json:"oseq,omitempty"`         // last number sent, likewise
	Notes       []string        `json:"notes,omitempty"`
}

// Sequence is the wire's account where its sequence numbers are those of one SA, else nil.
func (sa *SA) Sequence() *Wire {
	if sa.SharedBy > 1 {
		return nil
	}
	return sa.Wire
}

// Who told the causes of an SA's drops.
const (
	FromStack = "stack" // the hooks in the kernel, a cause for each packet
	FromSAD   = "sad"   // the SA's own three counters, for want of hooks
)

// Ending is how and when an SA went.
type Ending struct {
	At  time.Time `json:"at"`
	Why EndReason `json:"why"`
}

// Wire is what happened on the wire during the run. The histograms are log2: bucket b counts
// 2^b <= value < 2^(b+1), the last one is open.
type Wire struct {
	Packets               int64   `json:"packets"`
	Bytes                 int64   `json:"bytes"`
	FirstSeq              uint64  `json:"first_seq"`
	HighestSeq            uint64  `json:"highest_seq"`
	Unique                int64   `json:"unique"`
	Duplicates            int64   `json:"duplicates"`
	Late                  int64   `json:"late"`
	Stale                 int64   `json:"stale"`
	Missing               int64   `json:"missing"`
	Pending               int64   `json:"pending"`
	ReorderExtentMax      int64   `json:"reorder_extent_max"`
	ReorderExtentFloor    int64   `json:"reorder_extent_floor"` // late packets whose extent is a lower bound
	ReorderHistogram      []int64 `json:"reorder_histogram"`
	DisplacementMax       int64   `json:"displacement_max"`
	DisplacementHistogram []int64 `json:"displacement_histogram"`
	Restarts              int64   `json:"restarts"`
	Jumps                 int64   `json:"jumps"`
	Jumped                int64   `json:"jumped"` // numbers that jumps passed over
	GapEvents             int64   `json:"gap_events"`

	LateAcrossCPUs int64      `json:"late_across_cpus"` // part of late that came in order on its own CPU
	LargestBytes   int64      `json:"largest_bytes"`    // of all outer packets, also before the run
	ECNCE          int64      `json:"ecn_ce"`           // packets marked "congestion experienced" in the outer header
	DSCPs          []int      `json:"dscps,omitempty"`  // of the outer headers, also before the run
	GapHistogram   []int64    `json:"gap_histogram"`    // lengths of gaps, those included that late packets filled
	GapSpacing     *Spread    `json:"gap_spacing,omitempty"`
	LossyRate      *Spread    `json:"lossy_rate,omitempty"`     // packets a second that arrived while some were lost
	OfferedRate    *Spread    `json:"offered_rate,omitempty"`   // the same with those that were lost
	CleanRateMax   int64      `json:"clean_rate_max,omitempty"` // most packets a second that arrived without a loss
	RestartedAt    *time.Time `json:"restarted_at,omitempty"`
	LastSeen       *time.Time `json:"last_seen,omitempty"`
	Src            netip.Addr `json:"src,omitzero"`
	Encap          Encap      `json:"encap,omitempty"` // of the newest packet, with its ports
	SrcPort        uint16     `json:"src_port,omitempty"`
	DstPort        uint16     `json:"dst_port,omitempty"`
	Rebinds        int64      `json:"rebinds"` // changes of where the packets come from
	ReboundAt      *time.Time `json:"rebound_at,omitempty"`
	ReboundFrom    *Endpoint  `json:"rebound_from,omitempty"`
}

// Spread is what is left of a row of values.
type Spread struct {
	Count     int64   `json:"count"`
	Mean      float64 `json:"mean"`
	Deviation float64 `json:"deviation"` // standard deviation
}

// Endpoint is where an SA's packets came from, and how.
type Endpoint struct {
	Src     netip.Addr `json:"src"`
	SrcPort uint16     `json:"src_port,omitempty"`
	DstPort uint16     `json:"dst_port,omitempty"`
	Encap   Encap      `json:"encap"`
}

// Own is what the SA's own counters in the SAD moved by, under the kernel's names.
type Own struct {
	Packets         int64 `json:"packets"` // curlft.packets
	Bytes           int64 `json:"bytes"`
	OSeq            int64 `json:"oseq"` // sequence numbers assigned
	ReplayWindow    int64 `json:"replay_window"`
	Replay          int64 `json:"replay"`
	IntegrityFailed int64 `json:"integrity_failed"`
}

// Stranger is an SPI for which packets were dropped and no SA existed at any time during the run.
type Stranger struct {
	SPI       SPI        `json:"spi"`
	Dst       netip.Addr `json:"dst"`
	Src       netip.Addr `json:"src"` // from the wire, when it was seen there
	Proto     Proto      `json:"proto"`
	Direction Direction  `json:"direction"`
	Packets   int64      `json:"packets"`
}

// Kernel holds the kernel's own totals against the ledger's.
type Kernel struct {
	XfrmStat      map[string]int64 `json:"xfrm_stat"`  // counters that moved; null: not readable
	Residue       map[string]int64 `json:"residue"`    // part of it that moved without a packet
	WithoutSA     map[Cause]int64  `json:"without_sa"` // drops that belong to no SA
	Checks        []Check          `json:"checks"`     // what was held against what
	Reconciled    *bool            `json:"reconciled"` // null: there was nothing to hold it against
	Disagreements []string         `json:"disagreements"`
}

// Check is one figure of the ledger held against a counter that xfrmscope did not count itself.
type Check struct {
	Source    string `json:"source"`  // who counted: /proc/net/xfrm_stat, SA database
	Counter   string `json:"counter"` // the kernel's name
	SA        string `json:"sa,omitempty"`
	Ledger    int64  `json:"ledger"`
	Kernel    int64  `json:"kernel"`
	Agrees    bool   `json:"agrees"`
	Tolerance int64  `json:"tolerance,omitempty"` // packets that they may be apart, where they were not read together
}

// PacketStats counts the wire programs' classes and asides by direction.
type PacketStats struct {
	Classes map[Direction]map[string]int64 `json:"classes"`
	Asides  map[Direction]map[string]int64 `json:"asides"`
}

// SelfReport is what xfrmscope lost, withheld and cost during the run.
type SelfReport struct {
	EventsLost       int64              `json:"events_lost"`
	EventsSuppressed int64              `json:"events_suppressed"`
	TableFull        int64              `json:"table_full"`
	RecursionMisses  int64              `json:"recursion_misses"`
	Evicted          int64              `json:"evicted"`
	Lost             map[string]int64   `json:"lost"` // every cause by name, those above included
	NsPerRun         map[string]float64 `json:"bpf_ns_per_run"`
	Runs             map[string]uint64  `json:"bpf_runs,omitempty"`  // of the same programs; left out like their times where nobody asked
	MapBytes         *uint64            `json:"map_bytes,omitempty"` // memory of the programs' maps; absent: not known
	CPUPercent       float64            `json:"cpu_percent"`
}

// String writes an endpoint as address and, where there is UDP, port.
func (e Endpoint) String() string {
	if e.Encap != EncapUDP {
		return e.Src.String()
	}
	return netip.AddrPortFrom(e.Src, e.SrcPort).String()
}
