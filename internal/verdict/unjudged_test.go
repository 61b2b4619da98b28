// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
	"xfrmscope/internal/verdict/verdicttest"
)

func TestUnjudged(t *testing.T) {
	for _, blind := range []bool{false, true} {
		w := ledgertest.New()
		w.BlindStat = blind
		sa := w.Inbound(0xc0ffee01, 32, false)
		got := verdict.Unjudged(w.Run(func() {
			sa.Deliver(100)
			sa.Reorder(2, 80)
			sa.Corrupt(1)
			sa.Refuse(4, ledger.InIptfsError)
			w.DropLone(5, ledger.OutNoQueueSpace)
		}))
		want := map[string]int64{"XfrmInIptfsError": 4, "XfrmOutNoQueueSpace": 5}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("without xfrm_stat: %v (-want +got):\n%s", blind, diff)
		}
	}
}

// TestScenariosAreJudged: whatever a verdict is there for leaves nothing unjudged.
func TestScenariosAreJudged(t *testing.T) {
	for _, s := range verdicttest.Scenarios() {
		if got := verdict.Unjudged(s.Report()); len(got) != 0 {
			t.Errorf("%s: unjudged %v", s.Name, got)
		}
	}
}
