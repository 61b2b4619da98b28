// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"xfrmscope/internal/ledger"
)

// TestCausesAreFound holds the index against looking at every pair of findings.
func TestCausesAreFound(t *testing.T) {
	var kinds []ID
	for _, f := range foldings {
		kinds = append(append(kinds, f.cause), f.effects...)
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	addrs := []*netip.Addr{nil, &here, &there, &third}
	rng := rand.New(rand.NewPCG(1, 2))
	explained := 0
	for range 200 {
		all := make([]Finding, 60)
		for i := range all {
			f := &all[i]
			f.ID, f.Confidence = kinds[rng.IntN(len(kinds))], float64(rng.IntN(10))/10
			f.Subject = Subject{Src: addrs[rng.IntN(4)], Dst: addrs[rng.IntN(4)], Ifindex: rng.IntN(3)}
			if rng.IntN(2) == 0 {
				f.Subject.SPI = new(ledger.SPI(rng.IntN(4)))
			}
			if rng.IntN(4) == 0 {
				f.spares = []ID{kinds[rng.IntN(len(kinds))]}
			}
		}
		index := indexCauses(all)
		for i := range all {
			want := -1
			for j := range all {
				if j != i && all[j].Confidence >= minFoldConfidence && explains(&all[j], &all[i]) &&
					(want < 0 || all[j].Confidence > all[want].Confidence) {
					want = j
				}
			}
			if got := index.of(i); got != want {
				t.Fatalf("the cause of %+v is %d, want %d", all[i], got, want)
			}
			if want >= 0 {
				explained++
			}
		}
	}
	if explained < 1000 {
		t.Errorf("only %d findings were explained: the test shows little", explained)
	}
}

func explains(cause, effect *Finding) bool {
	return slices.ContainsFunc(foldings, func(f folding) bool {
		return f.cause == cause.ID && slices.Contains(f.effects, effect.ID) && !slices.Contains(cause.spares, effect.ID) &&
			related(f.within, cause.Subject, effect.Subject)
	})
}
