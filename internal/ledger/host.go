// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
)

// hostTrack follows the host's counters across snapshots.
type hostTrack struct {
	now    *Host
	snmp   climb
	links  map[int]*linkTrack
	qdiscs map[qdiscKey]*qdiscTrack
	cpus   map[int]*climb
}

// linkTrack is one device. An index that another device took over begins anew under its name.
type linkTrack struct {
	name             string
	counters, driver climb
}

// climb adds up what counters rose by. Not everything that comes by name among them is a counter: one
// that falls is a gauge, or its driver began anew, and counting from zero would invent what it had
// before. So a fall moves nothing, and neither does what is seen for the first time.
type climb struct{ last, sum map[string]int64 }

func (c *climb) observe(now map[string]uint64) {
	if c.last == nil {
		c.last, c.sum = map[string]int64{}, map[string]int64{}
	}
	for name, v := range now {
		if last, seen := c.last[name]; seen && int64(v) > last {
			c.sum[name] += int64(v) - last
		}
		c.last[name] = int64(v)
	}
}

// total holds only what rose.
func (c *climb) total() map[string]int64 {
	out := make(map[string]int64, len(c.sum))
	maps.Copy(out, c.sum)
	return out
}

type qdiscKey struct {
	link                 int
	kind, handle, parent string
}

// qdiscTrack adds up the steps of counters, some of which have 32 bits only.
type qdiscTrack struct {
	last                              Qdisc
	packets, bytes, drops, overlimits int64
}

func (l *Ledger) observeHost(s Snapshot, baseline bool) {
	h := s.Host
	if h == nil {
		return
	}
	t := &l.host
	if t.now == nil {
		t.links, t.qdiscs, t.cpus = map[int]*linkTrack{}, map[qdiscKey]*qdiscTrack{}, map[int]*climb{}
		baseline = true // counters that were there before anyone looked
	}
	t.now = h
	t.snmp.observe(h.Snmp)
	for _, c := range h.CPUs {
		if t.cpus[c.ID] == nil {
			t.cpus[c.ID] = &climb{}
		}
		t.cpus[c.ID].observe(map[string]uint64{
			"total": c.Total, "softirq": c.Softirq, "idle": c.Idle, "processed": c.Processed, "dropped": c.Dropped,
			"squeezed": c.Squeezed, "rps": c.RPS, "flow_limit": c.FlowLimit,
		})
	}
	for _, link := range h.Links {
		k := t.links[link.Index]
		if k == nil || k.name != link.Name {
			k = &linkTrack{name: link.Name}
			t.links[link.Index] = k
		}
		k.counters.observe(link.Counters)
		k.driver.observe(link.DriverCounters)
		for _, q := range link.Qdiscs {
			t.observeQdisc(link.Index, q, baseline)
		}
	}
}

func (t *hostTrack) observeQdisc(link int, q Qdisc, baseline bool) {
	key := qdiscKey{link, q.Kind, q.Handle, q.Parent}
	k := t.qdiscs[key]
	if k == nil {
		k = &qdiscTrack{}
		t.qdiscs[key] = k
		if baseline {
			k.last = q
		}
	}
	if q.Bytes < k.last.Bytes {
		k.last = Qdisc{} // replaced by another of the same kind
	}
	k.packets += int64(uint32(q.Packets - k.last.Packets))
	k.drops += int64(uint32(q.Drops - k.last.Drops))
	k.overlimits += int64(uint32(q.Overlimits - k.last.Overlimits))
	k.bytes += int64(q.Bytes - k.last.Bytes)
	k.last = q
}

// hostReport draws up the host, with the devices that the SAs of the report use. nil: not looked at.
func (l *Ledger) hostReport(sas []SA) *HostReport {
	t := &l.host
	if t.now == nil {
		return nil
	}
	out := &HostReport{
		Sysctls: map[string]string{}, Snmp: t.snmp.total(), Links: []LinkReport{}, CPUs: []CPUReport{},
		Modules: t.now.Modules, Notes: t.now.Notes,
	}
	carrying := t.carrying(sas)
	listed := map[string]bool{"all": true, "default": true}
	for _, link := range t.now.Links {
		r := t.link(link, carrying[link.Index])
		if r.CarriesSAs || r.suffered() || link.Kind == "xfrm" || link.Kind == "vti" || link.Kind == "vti6" {
			out.Links = append(out.Links, r)
			listed[link.Name] = true
		}
	}
	for name, value := range t.now.Sysctls {
		if device, ok := deviceOf(name); !ok || listed[device] {
			out.Sysctls[name] = value
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.cpus)) {
		m := t.cpus[id].total()
		out.CPUs = append(out.CPUs, CPUReport{
			ID: id, BusyPercent: percent(m["total"]-m["idle"], m["total"]), SoftirqPercent: percent(m["softirq"], m["total"]),
			Processed: m["processed"], Dropped: m["dropped"], Squeezed: m["squeezed"], RPS: m["rps"], FlowLimit: m["flow_limit"],
		})
	}
	return out
}

// deviceOf names the device that a setting such as net/ipv4/conf/eth0/rp_filter is about.
func deviceOf(sysctl string) (string, bool) {
	parts := strings.Split(sysctl, "/")
	if len(parts) == 5 && parts[2] == "conf" {
		return parts[3], true
	}
	return "", false
}

// percent is rounded to a tenth.
func percent(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return math.Round(1000*float64(part)/float64(whole)) / 10
}

// carrying finds the devices that SAs were seen on, and what lies below them: the device under a
// VLAN, the members of a bond.
func (t *hostTrack) carrying(sas []SA) map[int]bool {
	out := map[int]bool{}
	var add func(index int)
	add = func(index int) {
		if index == 0 || out[index] {
			return
		}
		out[index] = true
		for _, link := range t.now.Links {
			switch {
			case link.Index == index:
				add(link.Lower)
			case link.Master == index:
				add(link.Index)
			}
		}
	}
	for i := range sas {
		add(sas[i].Ifindex)
	}
	return out
}

func (t *hostTrack) link(link Link, carries bool) LinkReport {
	k := t.links[link.Index]
	r := LinkReport{
		Index: link.Index, Name: link.Name, Kind: link.Kind, Driver: link.Driver, Lower: link.Lower, Master: link.Master,
		MTU: link.MTU, Up: link.Up, CarriesSAs: carries, TxQueue: link.TxQueue,
		Counters: k.counters.total(), DriverCounters: k.driver.total(),
		RingRx: link.RingRx, RingRxMax: link.RingRxMax, RingTx: link.RingTx, RingTxMax: link.RingTxMax,
		RxQueues: link.RxQueues, TxQueues: link.TxQueues, RPS: link.RPS, Features: link.Features,
	}
	for _, q := range link.Qdiscs {
		k := t.qdiscs[qdiscKey{link.Index, q.Kind, q.Handle, q.Parent}]
		r.Qdiscs = append(r.Qdiscs, QdiscReport{
			Kind: q.Kind, Handle: q.Handle, Parent: q.Parent, Limit: q.Limit, LimitUnit: q.LimitUnit,
			Packets: k.packets, Bytes: k.bytes, Drops: k.drops, Overlimits: k.overlimits, Backlog: int64(q.Backlog),
		})
	}
	slices.SortFunc(r.Qdiscs, func(a, b QdiscReport) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Handle, b.Handle))
	})
	return r
}

// traffic are the counters of a device that move when all is well.
var traffic = []string{"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "multicast"}

// suffered says whether the device lost anything, by its own account.
func (r *LinkReport) suffered() bool {
	for name := range r.Counters {
		if !slices.Contains(traffic, name) {
			return true
		}
	}
	return len(r.DriverCounters) > 0 || slices.ContainsFunc(r.Qdiscs, func(q QdiscReport) bool { return q.Drops > 0 })
}
