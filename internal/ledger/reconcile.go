// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"maps"
	"slices"
)

// reconcile holds the ledger against what it did not count itself: the kernel's totals and the SAs'
// own counters. A disagreement is a sentence with both figures.
func (l *Ledger) reconcile(sas []SA) Kernel {
	k := Kernel{Disagreements: []string{}}
	if l.stackSeen {
		k.WithoutSA = l.withoutSA()
	}
	if l.statSeen {
		k.XfrmStat = l.stat.total()
		k.Residue = l.residue.total()
	}
	if !l.stackSeen {
		return k
	}
	checked := false
	if l.statSeen {
		checked = true
		k.Disagreements = append(k.Disagreements, l.holdTotals(k)...)
	}
	for i := range sas {
		if sas[i].Own == nil || sas[i].Direction != In {
			continue
		}
		checked = true
		k.Disagreements = append(k.Disagreements, holdOwn(&sas[i])...)
	}
	if checked {
		k.Reconciled = new(len(k.Disagreements) == 0)
	}
	return k
}

// withoutSA sums the drops whose SA could not be read or never was.
func (l *Ledger) withoutSA() map[Cause]int64 {
	sum := map[Cause]int64{}
	for k, t := range l.stack {
		if k.SPI != 0 {
			continue
		}
		for c, n := range t.total() {
			sum[c] += n
		}
	}
	return sum
}

// holdTotals compares each counter of xfrm_stat with the causes that move it.
func (l *Ledger) holdTotals(k Kernel) []string {
	explained := map[string]int64{}
	moving := map[string]bool{}
	for _, t := range l.stack {
		for c, n := range t.total() {
			explained[c.Counter()] += n
			moving[c.Counter()] = moving[c.Counter()] || t.moving(c)
		}
	}
	for _, t := range l.unknown {
		explained[NoState.Counter()] += t.total()[NoState]
		moving[NoState.Counter()] = moving[NoState.Counter()] || t.moving(NoState)
	}
	other := explained[""] // causes without a counter of that name
	delete(explained, "")
	for name, n := range k.Residue {
		explained[name] += n
	}

	names := map[string]bool{}
	for name := range k.XfrmStat {
		names[name] = true
	}
	for name := range explained {
		names[name] = true
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		kernel, ours := k.XfrmStat[name], explained[name]
		if kernel == ours {
			continue
		}
		s := fmt.Sprintf("%s rose by %d, xfrmscope explains %d", name, kernel, ours)
		if r := k.Residue[name]; r != 0 {
			s += fmt.Sprintf(" (%d of them without a packet)", r)
		}
		if other != 0 {
			s += fmt.Sprintf("; %d drops moved a counter that has no name here", other)
		}
		if moving[name] || l.stat.moving(name) {
			s += "; it was still moving when it was read, so part of this may be the time between two readings"
		}
		out = append(out, s)
	}
	return out
}

// holdOwn compares one SA's counters with the causes of its drops (xfrm_replay_check, xfrm_input).
func holdOwn(sa *SA) []string {
	var out []string
	x := sa.Xfrm
	// What the hooks could not tell apart may be either kind, or neither: a packet numbered 0 fails
	// the check without moving the SA's counters.
	dup, late, either := x[ReplayDuplicate], x[ReplayLate], x[ReplayUnspecified]
	agree := dup == sa.Own.Replay && late == sa.Own.ReplayWindow
	if either > 0 {
		named, counted := dup+late, sa.Own.Replay+sa.Own.ReplayWindow
		agree = named <= counted && counted <= named+either
	}
	if !agree {
		out = append(out, fmt.Sprintf(
			"SA %s to %s counts %d replayed and %d outside its window, the hooks saw %d duplicate, %d late, %d of either kind",
			sa.SPI, sa.Dst, sa.Own.Replay, sa.Own.ReplayWindow, dup, late, either))
	}
	if icv := x[IntegrityFailed] + x[ESNMisEpoch]; icv != sa.Own.IntegrityFailed {
		out = append(out, fmt.Sprintf("SA %s to %s counts %d integrity failures, the hooks saw %d (%d of them ESN mis-epoch)",
			sa.SPI, sa.Dst, sa.Own.IntegrityFailed, icv, x[ESNMisEpoch]))
	}
	return out
}

// notes says what holds for the whole report.
func (l *Ledger) notes(r Report) []string {
	var out []string
	if l.source.Kind == KindCapture {
		return nil
	}
	if l.snapshots < 2 {
		out = append(out, "one snapshot only: nothing can have changed yet")
	}
	if !l.wireSeen {
		out = append(out, "wire programs: not attached")
	}
	if !l.stackSeen {
		out = append(out, "stack hooks: not attached")
	}
	if !l.sadSeen {
		out = append(out, "SA database: not readable")
	}
	if !l.statSeen {
		out = append(out, "/proc/net/xfrm_stat: not readable")
	}
	return out
}
