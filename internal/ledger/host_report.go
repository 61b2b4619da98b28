// SPDX-License-Identifier: Apache-2.0

package ledger

// HostReport is the host during the run. Counters are changes; those that did not move are left out.
type HostReport struct {
	// Sysctls are the settings as they were at the end, by their path below /proc/sys; of settings
	// for each device those of all, default and the devices listed here.
	Sysctls map[string]string `json:"sysctls"`
	Snmp    map[string]int64  `json:"snmp"`  // by group and name: Ip.ReasmFails
	Links   []LinkReport      `json:"links"` // those that carry SAs, and those that lost something
	CPUs    []CPUReport       `json:"cpus"`  // of the whole machine
	Modules []string          `json:"modules,omitempty"`
	Notes   []string          `json:"notes,omitempty"`
}

// LinkReport is one network device.
type LinkReport struct {
	Index          int              `json:"index"`
	Name           string           `json:"name"`
	Kind           string           `json:"kind"`
	Driver         string           `json:"driver,omitempty"`
	Lower          int              `json:"lower,omitempty"`  // index of the device below
	Master         int              `json:"master,omitempty"` // index of the bond or bridge it belongs to
	MTU            int              `json:"mtu"`
	Up             bool             `json:"up"`
	CarriesSAs     bool             `json:"carries_sas"` // SAs were seen on it, or on a device above it
	TxQueue        int              `json:"tx_queue_len,omitempty"`
	Counters       map[string]int64 `json:"counters"`
	DriverCounters map[string]int64 `json:"driver_counters,omitempty"`
	RingRx         uint32           `json:"ring_rx,omitempty"`
	RingRxMax      uint32           `json:"ring_rx_max,omitempty"`
	RingTx         uint32           `json:"ring_tx,omitempty"`
	RingTxMax      uint32           `json:"ring_tx_max,omitempty"`
	RxQueues       int              `json:"rx_queues,omitempty"`
	TxQueues       int              `json:"tx_queues,omitempty"`
	RPS            []string         `json:"rps_cpus,omitempty"`
	Features       map[string]bool  `json:"features,omitempty"`
	Qdiscs         []QdiscReport    `json:"qdiscs,omitempty"`
}

// QdiscReport is one queueing discipline of a device. A parent's drops hold those of its children.
type QdiscReport struct {
	Kind       string `json:"kind"`
	Handle     string `json:"handle"`
	Parent     string `json:"parent"`
	Limit      uint32 `json:"limit,omitempty"`
	LimitUnit  string `json:"limit_unit,omitempty"`
	Packets    int64  `json:"packets"`
	Bytes      int64  `json:"bytes"`
	Drops      int64  `json:"drops"`
	Overlimits int64  `json:"overlimits"`
	Backlog    int64  `json:"backlog"` // waiting at the end, packets
}

// CPUReport is what one CPU did during the run, whoever's work it was.
type CPUReport struct {
	ID             int     `json:"id"`
	BusyPercent    float64 `json:"busy_percent"`    // all but idle and waiting for disks
	SoftirqPercent float64 `json:"softirq_percent"` // by the clock's ticks: coarse in short runs
	Processed      int64   `json:"processed"`       // packets
	Dropped        int64   `json:"dropped"`         // packets, backlog full
	Squeezed       int64   `json:"squeezed"`        // times
	RPS            int64   `json:"rps"`             // times
	FlowLimit      int64   `json:"flow_limit"`      // packets, part of dropped
}

// Link gives the device with this index, nil if it is not in the report.
func (h *HostReport) Link(index int) *LinkReport {
	if h == nil {
		return nil
	}
	for i := range h.Links {
		if h.Links[i].Index == index {
			return &h.Links[i]
		}
	}
	return nil
}

// On says whether a device carries the SAs of another: it is that device, lies below it, or belongs
// to it as a member of a bond.
func (h *HostReport) On(link, seenOn int) bool { return h.on(link, seenOn, 0) }

// maxStack bounds how many devices lie one on the other (MAX_NEST_DEV of the kernel).
const maxStack = 8

func (h *HostReport) on(link, seenOn, depth int) bool {
	if link == 0 || seenOn == 0 || depth > maxStack {
		return false
	}
	if link == seenOn {
		return true
	}
	if l := h.Link(link); l != nil && l.Master != 0 && h.on(l.Master, seenOn, depth+1) {
		return true
	}
	upper := h.Link(seenOn)
	return upper != nil && upper.Lower != 0 && h.on(link, upper.Lower, depth+1)
}
