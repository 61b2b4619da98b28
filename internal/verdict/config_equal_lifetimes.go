// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// ConfigEqualLifetimes is many SAs that were set up together with one lifetime and no margin drawn by
// lot, so that they are rekeyed together for ever.
const ConfigEqualLifetimes ID = "config-equal-lifetimes"

const (
	crowd       = 10
	crowdedTime = time.Minute
)

func configEqualLifetimes(r *ledger.Report) []Finding {
	if len(rekeyStormAhead(r)) > 0 {
		return nil // that finding says when, and the same remedy
	}
	type end struct {
		at time.Time
		sa *ledger.SA
	}
	byLifetime := map[int64][]end{}
	for _, sa := range alive(r) {
		if sa.Direction != ledger.In || sa.Added == nil || sa.Lifetimes == nil {
			continue
		}
		// A daemon that draws its margins by lot gives each SA another soft limit: equal ones are
		// what this is about.
		life := sa.Lifetimes.SoftAddS
		if life == 0 {
			life = sa.Lifetimes.HardAddS
		}
		if life > 0 {
			byLifetime[life] = append(byLifetime[life], end{sa.Added.Add(time.Duration(life) * time.Second), sa})
		}
	}
	var out []Finding
	lives := []int64{}
	for life := range byLifetime {
		lives = append(lives, life)
	}
	slices.Sort(lives)
	for _, life := range lives {
		ends := byLifetime[life]
		slices.SortFunc(ends, func(a, b end) int { return a.at.Compare(b.at) })
		most, from := 0, 0
		for first, last := 0, 0; last < len(ends); last++ {
			for ends[last].at.Sub(ends[first].at) >= crowdedTime {
				first++
			}
			if n := last - first + 1; n > most {
				most, from = n, first
			}
		}
		if most < crowd {
			continue
		}
		sas := []*ledger.SA{}
		for _, e := range ends[from : from+most] {
			sas = append(sas, e.sa)
		}
		out = append(out, Finding{
			ID: ConfigEqualLifetimes, Severity: Info, Confidence: sure(configured),
			Summary: fmt.Sprintf("%d inbound SAs (%s) have the same lifetime of %d s and were set up within a minute: they are all rekeyed at once, from %s on, and again after each lifetime.",
				most, listSAs(sas), life, ends[from].at.UTC().Format("15:04:05 MST")),
			Evidence: []Evidence{
				{"sas.lifetimes", life, "seconds", "SA database", "equal to the second"},
				{"sas", int64(most), "SAs", "SA database", "run out within one minute"},
			},
			Remedy: []Remedy{
				{For: forStrongSwan, Text: "Let it draw the time by lot, on one end at least.", Commands: []string{
					"connections.<conn>.children.<child>.rekey_time = 1h", "connections.<conn>.children.<child>.rand_time = 10m"}},
				{For: forLibreswan, Text: "The same.", Commands: []string{"rekeymargin=9m", "rekeyfuzz=100%"}},
				{For: forPeer, Text: "Where only the far side rekeys, give its tunnels different lifetimes.", Commands: []string{
					"crypto ipsec security-association lifetime seconds <n>   (Cisco)"}},
			},
		})
	}
	return out
}
