// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// choose picks the devices to observe: the ones named, else those that own the local addresses of
// the SAs, else every device that is up and has no lower device. No two of them carry the same
// frames. The notes say what was left out and why.
func choose(devices []Device, names []string, sas []ledger.SADEntry) (chosen []Device, notes []string, err error) {
	switch {
	case len(names) > 0:
		chosen, err = named(devices, names)
	default:
		var complete bool
		if chosen, complete = owners(devices, sas); !complete {
			if len(sas) > 0 {
				notes = append(notes, "an SA's local address is on no device that carries packets: observing every device")
			}
			chosen = lowest(devices)
		}
		if len(chosen) == 0 {
			err = fmt.Errorf("choose interfaces: none is up but loopback; name one: %s", listNames(devices))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	chosen, twice := once(devices, chosen)
	return chosen, append(notes, twice...), nil
}

func named(devices []Device, names []string) ([]Device, error) {
	var chosen []Device
	for _, name := range names {
		i := slices.IndexFunc(devices, func(d Device) bool { return d.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("choose interfaces: there is no %q here; there are %s", name, listNames(devices))
		}
		if !slices.ContainsFunc(chosen, func(d Device) bool { return d.Index == devices[i].Index }) {
			chosen = append(chosen, devices[i])
		}
	}
	return chosen, nil
}

// owners finds the devices that own the SAs' local addresses. It is complete when each SA has one.
func owners(devices []Device, sas []ledger.SADEntry) (chosen []Device, complete bool) {
	owner := make(map[netip.Addr]int)
	for i, d := range devices {
		for _, a := range d.Addrs {
			owner[a] = i
		}
	}
	want := make(map[int]bool)
	for _, sa := range sas {
		local := []netip.Addr{sa.Key.Dst}
		switch sa.Key.Direction {
		case ledger.Out:
			local = []netip.Addr{sa.Src}
		case ledger.Unknown:
			local = append(local, sa.Src)
		}
		found := false
		for _, a := range local {
			i, ok := owner[a.Unmap()]
			if !ok || devices[i].Loopback || carriesNothing[devices[i].Kind] || !devices[i].Up {
				continue
			}
			want[i], found = true, true
		}
		if !found {
			return nil, false
		}
	}
	for i, d := range devices {
		if want[i] {
			chosen = append(chosen, d)
		}
	}
	return chosen, len(chosen) > 0
}

func lowest(devices []Device) []Device {
	var chosen []Device
	for _, d := range devices {
		if d.Up && !d.Loopback && len(d.Lower) == 0 && !carriesNothing[d.Kind] && d.Layer != LayerOther {
			chosen = append(chosen, d)
		}
	}
	return chosen
}

// once keeps of the chosen devices a set that sees each frame only once. A device all of whose lower
// devices are chosen goes; where only some of them are (one slave of a bond), they go.
func once(devices, chosen []Device) (kept []Device, notes []string) {
	t := tree{byIndex: make(map[int]Device, len(devices)), picked: make(map[int]bool, len(chosen))}
	for _, d := range devices {
		t.byIndex[d.Index] = d
	}
	for _, d := range chosen {
		t.picked[d.Index] = true
	}
	out := make(map[int]string)
	for _, d := range chosen {
		below := t.pickedBelow(d, maxStack)
		if len(below) == 0 {
			continue
		}
		if t.covered(d, maxStack) {
			out[d.Index] = fmt.Sprintf("%s is not observed by itself: its packets pass through %s, which is",
				d.Name, listNames(below))
			continue
		}
		for _, lower := range below {
			out[lower.Index] = fmt.Sprintf("%s is not observed by itself: its packets pass through %s, which is",
				lower.Name, d.Name)
		}
	}
	for _, d := range chosen {
		if why, gone := out[d.Index]; gone {
			notes = append(notes, why)
			continue
		}
		kept = append(kept, d)
	}
	return kept, notes
}

// maxStack bounds how deep devices are stacked: a VLAN on a bridge on a bond on hardware is four.
const maxStack = 8

type tree struct {
	byIndex map[int]Device
	picked  map[int]bool
}

// lowers are the devices directly below d that carry the same frames.
func (t tree) lowers(d Device) []Device {
	if !sameFrames[d.Kind] {
		return nil
	}
	var out []Device
	for _, i := range d.Lower {
		if lower, ok := t.byIndex[i]; ok {
			out = append(out, lower)
		}
	}
	return out
}

// pickedBelow lists the chosen devices under d.
func (t tree) pickedBelow(d Device, depth int) (out []Device) {
	if depth == 0 {
		return nil
	}
	for _, lower := range t.lowers(d) {
		if t.picked[lower.Index] {
			out = append(out, lower)
		}
		out = append(out, t.pickedBelow(lower, depth-1)...)
	}
	return out
}

// covered says whether all that d carries passes through chosen devices under it.
func (t tree) covered(d Device, depth int) bool {
	lowers := t.lowers(d)
	if depth == 0 || len(lowers) == 0 {
		return false
	}
	for _, lower := range lowers {
		if !t.picked[lower.Index] && !t.covered(lower, depth-1) {
			return false
		}
	}
	return true
}

func listNames(devices []Device) string {
	var names []string
	for _, d := range devices {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
