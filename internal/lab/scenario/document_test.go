// SPDX-License-Identifier: Apache-2.0

package scenario

// document is what the tests read of the report, spelled out anew from the schema instead of taken
// from the packages that write it: a field that is renamed there has to fail here.
type source struct {
	Kind      string  `json:"kind"`
	DurationS float64 `json:"duration_s"`
}

type document struct {
	Schema   string     `json:"schema"`
	Source   source     `json:"source"`
	SAs      []sa       `json:"sas"`
	Unknown  []stranger `json:"unknown_spis"`
	Findings []finding  `json:"findings"`
	Flows    *flowList  `json:"flows"`
	Drops    []drop     `json:"drops"`
	Kernel   struct {
		XfrmStat      map[string]int64 `json:"xfrm_stat"`
		WithoutSA     map[string]int64 `json:"without_sa"`
		Reconciled    *bool            `json:"reconciled"`
		Disagreements []string         `json:"disagreements"`
	} `json:"kernel"`
	Refusals []refusal `json:"refusals"`
	Hooks    []struct {
		Name     string `json:"name"`
		Attached bool   `json:"attached"`
		Why      string `json:"why"`
		Costs    string `json:"costs"`
	} `json:"hooks"`
	Host struct {
		Links []link `json:"links"`
		CPUs  []struct {
			Dropped  int64 `json:"dropped"`
			Squeezed int64 `json:"squeezed"`
		} `json:"cpus"`
	} `json:"host"`
	Self self `json:"self"`

	IKE    *ikeAccount `json:"ike"`
	Rekeys []rekey     `json:"rekeys"`

	PMTU *pmtuReport `json:"pmtu"`
	NAT  struct {
		Peers []natPeer `json:"peers"`
	} `json:"nat"`
}

type natPeer struct {
	InPort       uint16 `json:"in_port"`
	OutPort      uint16 `json:"out_port"`
	Translated   bool   `json:"translated"`
	InPackets    int64  `json:"in_packets"`
	OutPackets   int64  `json:"out_packets"`
	OutSinceIn   int64  `json:"out_since_in"`
	SinceQuiet   int64  `json:"out_since_quiet"`
	Moves        int64  `json:"moves"`
	KeepalivesIn *struct {
		Count int64 `json:"count"`
	} `json:"keepalives_in"`
}

type latency struct {
	Packets   int64   `json:"packets"`
	Async     int64   `json:"async"`
	MeanNs    int64   `json:"mean_ns"`
	MedianNs  int64   `json:"median_ns"`
	P99Ns     int64   `json:"p99_ns"`
	MaxNs     int64   `json:"max_ns"`
	Histogram []int64 `json:"histogram_ns"`
}

type link struct {
	Name       string           `json:"name"`
	CarriesSAs bool             `json:"carries_sas"`
	Counters   map[string]int64 `json:"counters"`
	Qdiscs     []struct {
		Parent string `json:"parent"`
		Drops  int64  `json:"drops"`
	} `json:"qdiscs"`
}

type sa struct {
	SPI          string           `json:"spi"`
	Src          string           `json:"src"`
	Dst          string           `json:"dst"`
	Proto        string           `json:"proto"`
	Direction    string           `json:"direction"`
	Encap        string           `json:"encap"`
	Mode         string           `json:"mode"`
	ReqID        uint32           `json:"reqid"`
	ReplayWindow *uint32          `json:"replay_window"`
	ESN          *bool            `json:"esn"`
	Wire         *wire            `json:"wire"`
	Xfrm         map[string]int64 `json:"xfrm"`
	Latency      *latency         `json:"latency"`
	Ledger       bins             `json:"ledger"`

	Connection string `json:"connection"` // the IKE daemon's names
	Child      string `json:"child"`
}

type wire struct {
	Packets         int64  `json:"packets"`
	Bytes           int64  `json:"bytes"`
	FirstSeq        uint64 `json:"first_seq"`
	HighestSeq      uint64 `json:"highest_seq"`
	Unique          int64  `json:"unique"`
	Duplicates      int64  `json:"duplicates"`
	Late            int64  `json:"late"`
	Missing         int64  `json:"missing"`
	Pending         int64  `json:"pending"`
	Stale           int64  `json:"stale"`
	ReorderExtent   int64  `json:"reorder_extent_max"`
	DisplacementMax int64  `json:"displacement_max"`
	Restarts        int64  `json:"restarts"`
	Jumps           int64  `json:"jumps"`
	CE              int64  `json:"ecn_ce"`
}

// bins are those of both directions; which of them a report has depends on the SA's.
type bins struct {
	Sent          *int64 `json:"sent,omitempty"`
	LostOnPath    *int64 `json:"lost_on_path,omitempty"`
	Pending       *int64 `json:"pending,omitempty"`
	Arrivals      *int64 `json:"arrivals,omitempty"`
	Duplicates    *int64 `json:"duplicates,omitempty"`
	LostInHost    *int64 `json:"lost_in_host,omitempty"`
	XfrmDropped   *int64 `json:"xfrm_dropped,omitempty"`
	Decapsulated  *int64 `json:"decapsulated,omitempty"`
	PolicyDropped *int64 `json:"policy_dropped,omitempty"`
	InnerDropped  *int64 `json:"inner_dropped,omitempty"`
	Delivered     *int64 `json:"delivered,omitempty"`

	Offered        *int64 `json:"offered,omitempty"`
	XfrmOutDropped *int64 `json:"xfrm_out_dropped,omitempty"`
	Encapsulated   *int64 `json:"encapsulated,omitempty"`
	OnWire         *int64 `json:"on_wire,omitempty"`
	LostOnEgress   *int64 `json:"lost_in_host_egress,omitempty"`

	InFlight     *int64 `json:"in_flight,omitempty"`
	Unattributed *int64 `json:"unattributed,omitempty"`
}

// refusal is a flow that a policy refused.
type refusal struct {
	Cause   string `json:"cause"`
	Counter string `json:"counter"`
	Place   string `json:"place"`
	Dir     string `json:"dir"`
	SPI     string `json:"spi"`
	Src     string `json:"src"`
	Dst     string `json:"dst"`
	Proto   int    `json:"proto"`
	DstPort uint16 `json:"dst_port"`
	Packets int64  `json:"packets"`
	Policy  *int   `json:"policy"`
	Differs []struct {
		Field  string `json:"field"`
		Wanted string `json:"wanted"`
		Found  string `json:"found"`
	} `json:"differs"`
}

type drop struct {
	Stage    string `json:"stage"`
	SPI      string `json:"spi"`
	Src      string `json:"src"`
	DstPort  uint16 `json:"dst_port"`
	Place    string `json:"place"`
	Function string `json:"function"`
	Reason   string `json:"reason"`
	Hook     string `json:"hook"`
	Lost     bool   `json:"lost"`
	Packets  int64  `json:"packets"`
}

type stranger struct {
	SPI     string `json:"spi"`
	Dst     string `json:"dst"`
	Packets int64  `json:"packets"`
}

type finding struct {
	ID       string `json:"id"`
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Subject  struct {
		SPI        string `json:"spi"`
		Connection string `json:"connection"`
	} `json:"subject"`
	Confidence float64  `json:"confidence"`
	Evidence   []any    `json:"evidence"`
	Remedy     []any    `json:"remedy"`
	Folded     []string `json:"consequences"`
}

// self is what xfrmscope says about itself. Events withheld by the rate limit are no loss: totals
// never depend on events.
type self struct {
	EventsLost      int64 `json:"events_lost"`
	TableFull       int64 `json:"table_full"`
	RecursionMisses int64 `json:"recursion_misses"`
	Evicted         int64 `json:"evicted"`

	NsPerRun map[string]float64 `json:"bpf_ns_per_run"` // a cost, not a loss
}
