// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"slices"
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

const (
	// packets that each SA sends.
	packets = 300
	// burst that one SA sends before it is the next one's turn.
	burst = 20
)

// faults is what a row's author expects, written down apart from what the injector computes: the two
// must agree before xfrmscope is judged by them.
type faults struct {
	lost, duplicates, late, displacement int
	causes                               map[string]int64
}

// row is one SA: what is done to it, and what has to be found.
type row struct {
	name     string
	rules    []inject.Rule // without SPI: the row's SA has it
	faults   faults
	findings []string
}

// group is a tunnel with an SA pair for each of its rows, all under way at once and watched by one
// xfrmscope: that no SA is taken for another is part of every row.
type group struct {
	name    string
	options tunnel.Options
	flags   []string
	rows    []row
}

func on(action inject.Action, after int, seqs ...uint32) inject.Rule {
	return inject.Rule{Action: action, After: after, Seqs: seqs}
}

func cause(name string, n int64) map[string]int64 { return map[string]int64{name: n} }

var clean = row{name: "clean"}

var lost = row{name: "lost", rules: []inject.Rule{on(inject.Drop, 0, 10, 50, 51, 52, 53, 54, 299)},
	faults: faults{lost: 7}, findings: []string{"path-loss"}}

var corrupted = row{name: "corrupted", rules: []inject.Rule{on(inject.Corrupt, 0, 5, 6, 7, 200)},
	faults: faults{causes: cause("integrity_failed", 4)}, findings: []string{"integrity-failed"}}

// mixed is one of everything.
var mixed = row{name: "mixed", rules: []inject.Rule{
	on(inject.Drop, 0, 20, 21, 150), on(inject.Duplicate, 0, 33, 199), on(inject.Delay, 40, 60, 230), on(inject.Corrupt, 0, 110),
}, faults: faults{lost: 3, duplicates: 2, late: 2, displacement: 40, causes: map[string]int64{
	"replay_duplicate": 2, "replay_late": 2, "integrity_failed": 1,
}}, findings: []string{"path-loss", "duplicate-packets", "replay-window-too-small", "integrity-failed"}}

// Each kind of fault beside its negative twin: what looks like it and is something else.
var plain = []row{
	clean, lost, corrupted, mixed,
	{name: "duplicated", rules: []inject.Rule{on(inject.Duplicate, 0, inject.Every(10, 290, 40)...)},
		faults: faults{duplicates: 8, causes: cause("replay_duplicate", 8)}, findings: []string{"duplicate-packets"}},
	{name: "duplicated and late inside the window", rules: []inject.Rule{on(inject.Duplicate, 20, 40, 140)},
		faults: faults{duplicates: 2, causes: cause("replay_duplicate", 2)}, findings: []string{"duplicate-packets"}},
	// A copy below the window counts as late in the kernel, but no window would have delivered it.
	{name: "duplicated and late beyond the window", rules: []inject.Rule{on(inject.Duplicate, 50, 40, 140)},
		faults: faults{duplicates: 2, causes: cause("replay_late", 2)}, findings: []string{"duplicate-packets"}},
	{name: "reordered inside the window", rules: []inject.Rule{on(inject.Delay, 31, 30, 100, 200)},
		faults: faults{late: 3, displacement: 31}},
	{name: "reordered beyond the window", rules: []inject.Rule{on(inject.Delay, 32, 30, 100), on(inject.Delay, 75, 200)},
		faults:   faults{late: 3, displacement: 75, causes: cause("replay_late", 3)},
		findings: []string{"replay-window-too-small"}},
}

var extended = []row{
	clean, lost, corrupted,
	{name: "reordered inside the window", rules: []inject.Rule{on(inject.Delay, 31, 100, 200)},
		faults: faults{late: 2, displacement: 31}},
	{name: "reordered beyond the window", rules: []inject.Rule{on(inject.Delay, 32, 100), on(inject.Delay, 60, 200)},
		faults:   faults{late: 2, displacement: 60, causes: cause("esn_mis_epoch", 2)},
		findings: []string{"esn-mis-epoch"}},
	{name: "late and corrupted", rules: []inject.Rule{on(inject.Delay, 60, 200), on(inject.Corrupt, 0, 70, 71)},
		faults: faults{late: 1, displacement: 60,
			causes: map[string]int64{"esn_mis_epoch": 1, "integrity_failed": 2}},
		findings: []string{"esn-mis-epoch", "integrity-failed"}},
}

var unprotected = []row{
	{name: "clean", findings: []string{"replay-window-zero"}},
	{name: "duplicates and disorder", rules: []inject.Rule{on(inject.Duplicate, 0, 50, 60), on(inject.Delay, 100, 70)},
		faults:   faults{duplicates: 2, late: 1, displacement: 100},
		findings: []string{"replay-window-zero", "duplicate-packets"}},
}

var groups = []group{
	{name: "v4", rows: plain},
	{name: "v6", options: tunnel.Options{Family: 6}, rows: []row{clean, mixed}},
	{name: "UDP", options: tunnel.Options{UDP: true}, rows: []row{clean, mixed}},
	{name: "v6 UDP", options: tunnel.Options{Family: 6, UDP: true}, rows: []row{clean, mixed}},
	{name: "ESN", options: tunnel.Options{ESN: true, ReplayWindow: 32}, rows: extended},
	{name: "v6 ESN", options: tunnel.Options{Family: 6, ESN: true, ReplayWindow: 32}, rows: extended},
	// 100 packets before the 32 bits wrap, 200 after.
	{name: "ESN across the wrap", options: tunnel.Options{ESN: true, ReplayWindow: 128, LastSeq: 0xffffff9b}, rows: []row{clean}},
	{name: "transport", options: tunnel.Options{Mode: tunnel.TransportMode}, rows: []row{mixed}},
	{name: "replay window 0", options: tunnel.Options{NoReplay: true}, rows: unprotected},
	{name: "XDP", flags: []string{"--mode", "xdp"}, rows: []row{clean, mixed}},
	{name: "v6 UDP through XDP", options: tunnel.Options{Family: 6, UDP: true}, flags: []string{"--mode", "xdp"}, rows: []row{clean, mixed}},
	{name: "TC", flags: []string{"--mode", "tc"}, rows: []row{clean, mixed}},
	{name: "v6 UDP through TC", options: tunnel.Options{Family: 6, UDP: true}, flags: []string{"--mode", "tc"}, rows: []row{clean, mixed}},
	{name: "generic XDP", flags: []string{"--mode", "xdp-generic"}, rows: []row{clean, mixed}},
}

func TestScenarios(t *testing.T) {
	tunnel.Need(t)
	for _, g := range groups {
		t.Run(g.name, g.run)
	}
}

func (g group) run(t *testing.T) {
	o := g.options
	o.Pairs = len(g.rows)
	var rules []inject.Rule
	for i, r := range g.rows {
		for _, rule := range r.rules {
			rule.SPI = tunnel.FirstSPIAtoB + uint32(i)
			rules = append(rules, rule)
		}
	}
	b := open(t, o, rules, g.flags...)
	for range packets / burst {
		for _, s := range b.tunnel.AtoB {
			b.send(s, burst)
		}
	}
	seen := b.finish()
	all, findings := map[string]int64{}, []string{}
	for i, r := range g.rows {
		for cause, n := range r.faults.causes {
			all[cause] += n
		}
		for _, id := range r.findings {
			findings = append(findings, id+" "+name(b.tunnel.AtoB[i].SPI))
		}
		t.Run(r.name, func(t *testing.T) { b.as(t).checkRow(seen, r, b.tunnel.AtoB[i], b.tunnel.BtoA[i]) })
	}
	b.checkStat(seen, all)
	seen.checkFindings(t, findings...)
	seen.checkSelf(t)
}

// checkRow judges one SA of a group.
func (b *bench) checkRow(seen observation, r row, s, back tunnel.SA) {
	b.t.Helper()
	causes := b.checkFaults(r.faults, s)
	b.checkSA(seen, s)
	b.checkIn(seen, s, causes)
	b.checkCounters(s, causes)
	b.checkOut(seen, back.SPI, 0)
	got, want := []string{}, append([]string{}, r.findings...)
	for _, f := range seen.report.Findings {
		if f.Subject.SPI == name(s.SPI) {
			got = append(got, f.ID)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	diff(b.t, "findings on "+name(s.SPI), want, got)
}

// checkFaults holds the row's expectation against the injector's account, and the injector's account
// against the RFC's replay check; it returns the causes of xfrm's drops.
func (b *bench) checkFaults(want faults, s tunnel.SA) map[string]int64 {
	b.t.Helper()
	truth := b.path.Truth(inject.AtoB, s.SPI)
	diff(b.t, "packets sent into the path", packets, len(truth.In))
	if want.causes == nil {
		want.causes = map[string]int64{}
	}
	w, o := truth.Wire(), b.tunnel.Options
	diff(b.t, "faults injected: lost, duplicates, late, displacement",
		[]int{want.lost, want.duplicates, want.late, want.displacement},
		[]int{truth.Lost(), w.Duplicates, w.Late, w.Displacement})
	diff(b.t, "causes by the RFC's rules", want.causes, predicted(truth.Replay(uint64(o.LastSeq), s.ReplayWindow, o.ESN)))
	return want.causes
}
