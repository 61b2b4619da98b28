// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// hostKinds are about the machine under the SAs: its network cards, queues, processors and offloads.
func hostKinds() []Kind {
	return []Kind{
		{NICRxLoss, "The network card loses arriving frames", nicRxLoss},
		{SoftnetDrop, "A CPU's backlog overflows", softnetDrop},
		{QdiscDrop, "The queue of a device drops packets", qdiscDrop},
		{NICTxErrors, "A device fails to send", nicTxErrors},
		{CPUSaturatedBySA, "One SA keeps one CPU busy", cpuSaturatedBySA},
		{SoftirqBacklog, "A CPU has no time left for the network", softirqBacklog},
		{OffloadHidesESP, "GRO takes ESP away before the hook", offloadHidesESP},
		{HardwareNotObservable, "The network card does the work unseen", hardwareNotObservable},
	}
}

// carriers are the devices that carry SAs.
func carriers(r *ledger.Report) []*ledger.LinkReport {
	var out []*ledger.LinkReport
	if r.Host == nil {
		return nil
	}
	for i := range r.Host.Links {
		if r.Host.Links[i].CarriesSAs {
			out = append(out, &r.Host.Links[i])
		}
	}
	return out
}

// onLink are the SAs of one direction that were seen on a device or above it.
func onLink(r *ledger.Report, l *ledger.LinkReport, dir ledger.Direction) []*ledger.SA {
	var out []*ledger.SA
	for i := range r.SAs {
		sa := &r.SAs[i]
		if sa.Direction == dir && sa.Wire != nil && sa.Wire.Packets > 0 && r.Host.On(l.Index, sa.Ifindex) {
			out = append(out, sa)
		}
	}
	return out
}

// at makes a device the subject of a finding: by the device that its SAs were seen on, a VLAN above it
// for instance, so that findings about those SAs can be found to follow from it.
func at(l *ledger.LinkReport, sas []*ledger.SA) Subject {
	index := l.Index
	for i, sa := range sas {
		if i > 0 && sa.Ifindex != index {
			return Subject{Ifindex: l.Index}
		}
		index = sa.Ifindex
	}
	return Subject{Ifindex: index}
}

// lostOnPath is what these SAs miss from the wire.
func lostOnPath(sas []*ledger.SA) (lost int64) {
	for _, sa := range sas {
		if b := sa.Ledger.In; b != nil && b.LostOnPath != nil && sa.State != ledger.Absent {
			lost += max(0, *b.LostOnPath)
		}
	}
	return lost
}

// moved lists counters of a device as evidence, by name.
func moved(l *ledger.LinkReport, source string, m map[string]int64, note string) []Evidence {
	var out []Evidence
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, Evidence{"host.links." + l.Name + "." + name, m[name], "packets", source, note})
	}
	return out
}

// only picks those of a map that the predicate wants.
func only(m map[string]int64, want func(string) bool) map[string]int64 {
	out := map[string]int64{}
	for name, n := range m {
		if want(name) {
			out[name] = n
		}
	}
	return out
}

// largest is the greatest of these counters. Drivers count one loss under several names, so that
// adding them up would count it more than once.
func largest(m map[string]int64) (n int64) {
	for _, v := range m {
		n = max(n, v)
	}
	return n
}

func named(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

// ofSAs is how many of the packets that a device lost at a place were of an SA, by the hook that sees
// each packet freed; known is false where that hook is not attached.
func ofSAs(r *ledger.Report, l *ledger.LinkReport, place ledger.Place) (n int64, known bool) {
	for i := range r.Drops {
		d := &r.Drops[i]
		if d.Place == place && d.SPI != 0 && d.Lost && d.Ifindex == l.Index {
			n += d.Packets
		}
	}
	return n, r.Drops != nil
}

// attribute grades a finding about a device by how many of the packets that it lost were of SAs: all
// of them, some, none, or nobody knows. A driver may free in ways that the hook cannot tell from the
// end of a packet well sent: there, none seen is no proof of none.
func attribute(r *ledger.Report, f *Finding, l *ledger.LinkReport, place ledger.Place, lost int64) {
	n, known := ofSAs(r, l, place)
	if !known {
		return
	}
	f.Evidence = append(f.Evidence, Evidence{"drops." + string(place), n, "packets", "stack hooks", "of them packets of SAs on " + l.Name})
	switch {
	case n == 0 && place != ledger.PlaceQueue:
	case n == 0:
		f.Severity = Info
		f.Summary += " None of them was of an SA."
	case n == lost:
		f.Confidence = sure(corroborated, blurred(r))
	default:
		f.Confidence = sure(witnessed, blurred(r))
	}
}

// sysctl is a setting of the host as a number, or 0.
func sysctl(r *ledger.Report, name string) (n int64) {
	if r.Host == nil {
		return 0
	}
	value, ok := r.Host.Sysctls[name]
	if !ok {
		return 0
	}
	if _, err := fmt.Sscanf(value, "%d", &n); err != nil {
		return 0
	}
	return n
}

// ingressWay is how the wire programs look at what a device receives: xdp, xdp-generic, tcx, clsact,
// or "" when they do not.
func ingressWay(r *ledger.Report, device string) string {
	for _, h := range r.Hooks {
		if h.Attached && h.Name == "wire ingress "+device {
			way, _, _ := strings.Cut(h.Why, " ")
			return way
		}
	}
	return ""
}
