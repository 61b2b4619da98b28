// SPDX-License-Identifier: Apache-2.0

package ledger

// Host is what the observed network namespace and the machine around it say of themselves: their
// settings, and counters that belong to no SA. All counters are absolutes. What could not be read is
// left out, and Notes says why.
type Host struct {
	// Sysctls holds settings by their path below /proc/sys, such as "net/ipv4/ip_no_pmtu_disc". A
	// setting that the kernel does not have is absent. Those of net/core that exist once for the
	// whole machine are in it too.
	Sysctls map[string]string
	// Snmp holds the protocol counters of the namespace by group and name, as nstat groups them:
	// "Ip.ReasmFails", "TcpExt.TCPToZeroWindowAdv", "Ip6.ReasmFails", "Icmp6.InPktTooBigs"
	// (/proc/net/snmp, netstat and snmp6).
	Snmp  map[string]uint64
	Links []Link // nil: not readable
	CPUs  []CPU  // of the whole machine; nil: not readable
	// Modules are those loaded that change where ESP can be seen: esp4_offload and esp6_offload.
	Modules []string
	Notes   []string
}

// Link is one network device.
type Link struct {
	Index   int
	Name    string
	Kind    string // "device" for hardware, else rtnetlink's: veth, vlan, bond, xfrm …
	Driver  string
	Lower   int // index of the device below it (a VLAN's, a MACVLAN's), 0 none
	Master  int // index of the bond or bridge that it belongs to, 0 none
	MTU     int
	Up      bool
	TxQueue int // txqueuelen

	Counters       map[string]uint64 // struct rtnl_link_stats64 by field: rx_missed_errors, tx_dropped …
	DriverCounters map[string]uint64 // ethtool -S, only those that tell of loss
	RingRx         uint32            // descriptors of each receive ring; 0: the driver tells nothing
	RingRxMax      uint32
	RingTx         uint32
	RingTxMax      uint32
	RxQueues       int // in use
	TxQueues       int
	RPS            []string        // rps_cpus of each receive queue; nil: not readable
	Features       map[string]bool // ethtool -k, those that touch ESP; what the kernel does not know is absent
	Qdiscs         []Qdisc
}

// Qdisc is one queueing discipline of a device.
type Qdisc struct {
	Kind       string
	Handle     string // "8001:", "0:" for one that the kernel made itself
	Parent     string // "root", "8001:1" …
	Limit      uint32 // in LimitUnit; 0: not known
	LimitUnit  string // packets or bytes
	Packets    uint64 // 32 bits in the kernel's answer: wraps
	Bytes      uint64
	Drops      uint64 // 32 bits as well
	Overlimits uint64
	Backlog    uint64 // packets waiting now
}

// CPU is one processor: its time in clock ticks (1/100 s) since the boot, and what its share of the
// receive path did. Both are the machine's, whatever the namespace.
type CPU struct {
	ID        int
	Total     uint64 // user, nice, system, idle, iowait, irq, softirq and steal together
	Softirq   uint64
	Idle      uint64 // idle and iowait
	Processed uint64 // packets that net_rx_action handled (softnet_stat)
	Dropped   uint64 // packets dropped because the backlog was longer than netdev_max_backlog
	Squeezed  uint64 // times that net_rx_action stopped for want of budget or time with work left
	RPS       uint64 // times that another CPU handed it packets (RPS)
	FlowLimit uint64 // packets dropped by the flow limit, part of Dropped
}
