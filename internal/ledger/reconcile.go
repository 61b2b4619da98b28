// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"maps"
	"slices"
)

// Who counted what the ledger is held against.
const (
	fromXfrmStat = "/proc/net/xfrm_stat"
	fromSAD      = "SA database"
)

// reconcile holds the ledger against what it did not count itself: the kernel's totals and the SAs'
// own counters. A disagreement is a sentence with both figures. What an SA decapsulated or sent is a
// check as well, but its failing is the SA's unattributed bin and no disagreement of counters.
func (l *Ledger) reconcile(sas []SA) Kernel {
	k := Kernel{Disagreements: []string{}, Checks: []Check{}}
	if l.stackSeen {
		k.WithoutSA = l.withoutSA()
	}
	if l.statSeen {
		k.XfrmStat = l.stat.total()
		k.Residue = l.residue.total()
	}
	checked := false
	if l.stackSeen && l.statSeen {
		checked = true
		l.holdTotals(&k)
	}
	for i := range sas {
		sa := &sas[i]
		if sa.Own == nil {
			continue
		}
		if l.stackSeen && sa.Direction == In {
			checked = true
			holdOwn(&k, sa)
		}
		holdFlow(&k, sa)
	}
	if checked {
		k.Reconciled = new(len(k.Disagreements) == 0)
	}
	return k
}

// holdFlow compares what an SA counts as decrypted or numbered with what the other sources leave of
// the packets on the wire.
func holdFlow(k *Kernel, sa *SA) {
	u, known := sa.Ledger.Unattributed()
	if !known {
		return
	}
	c := Check{Source: fromSAD, SA: sa.SPI.String() + " to " + sa.Dst.String(), Agrees: u == 0}
	if b := sa.Ledger.In; b != nil {
		c.Counter, c.Kernel = "curlft.packets", *b.Decapsulated
		c.Ledger = c.Kernel + u
	} else {
		c.Counter, c.Kernel = "oseq", *sa.Ledger.Out.Encapsulated
		c.Ledger = c.Kernel - u
	}
	if c.Kernel == 0 && c.Ledger == 0 {
		return
	}
	k.Checks = append(k.Checks, c)
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
func (l *Ledger) holdTotals(k *Kernel) {
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
	for _, name := range slices.Sorted(maps.Keys(names)) {
		kernel, ours := k.XfrmStat[name], explained[name]
		k.Checks = append(k.Checks, Check{Source: fromXfrmStat, Counter: name, Ledger: ours, Kernel: kernel, Agrees: kernel == ours})
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
		k.Disagreements = append(k.Disagreements, s)
	}
}

// holdOwn compares one SA's counters with the causes of its drops (xfrm_replay_check, xfrm_input).
func holdOwn(k *Kernel, sa *SA) {
	x := sa.Xfrm
	// What the hooks could not tell apart may be either kind, or neither: a packet numbered 0 fails
	// the check without moving the SA's counters.
	dup, late, either := x[ReplayDuplicate], x[ReplayLate], x[ReplayUnspecified]
	agree := dup == sa.Own.Replay && late == sa.Own.ReplayWindow
	if either > 0 {
		named, counted := dup+late, sa.Own.Replay+sa.Own.ReplayWindow
		agree = named <= counted && counted <= named+either
	}
	icv := x[IntegrityFailed] + x[ESNMisEpoch]
	for _, c := range []Check{
		{Counter: "replay", Ledger: dup, Kernel: sa.Own.Replay, Agrees: agree},
		{Counter: "replay_window", Ledger: late, Kernel: sa.Own.ReplayWindow, Agrees: agree},
		{Counter: "integrity_failed", Ledger: icv, Kernel: sa.Own.IntegrityFailed, Agrees: icv == sa.Own.IntegrityFailed},
	} {
		if c.Ledger != 0 || c.Kernel != 0 {
			c.Source, c.SA = fromSAD, sa.SPI.String()+" to "+sa.Dst.String()
			k.Checks = append(k.Checks, c)
		}
	}
	if !agree {
		k.Disagreements = append(k.Disagreements, fmt.Sprintf(
			"SA %s to %s counts %d replayed and %d outside its window, the hooks saw %d duplicate, %d late, %d of either kind",
			sa.SPI, sa.Dst, sa.Own.Replay, sa.Own.ReplayWindow, dup, late, either))
	}
	if icv != sa.Own.IntegrityFailed {
		k.Disagreements = append(k.Disagreements, fmt.Sprintf("SA %s to %s counts %d integrity failures, the hooks saw %d (%d of them ESN mis-epoch)",
			sa.SPI, sa.Dst, sa.Own.IntegrityFailed, icv, x[ESNMisEpoch]))
	}
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
	if unknown := l.latencyUnknown.total(); len(unknown) > 0 {
		out = append(out, "time in xfrm not known of some packets: "+listOf(unknown))
	}
	if !l.wireSeen {
		out = append(out, "wire programs: not attached")
	}
	if !l.stackSeen {
		out = append(out, "stack hooks: not attached")
	}
	if !l.dropsSeen {
		out = append(out, "drops outside xfrm: not observed")
	}
	if !l.sadSeen {
		out = append(out, "SA database: not readable")
	}
	if !l.statSeen {
		out = append(out, "/proc/net/xfrm_stat: not readable")
	}
	return out
}
