// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// TestExpect follows what the programs are told of SAs that come and go, also of one that is announced while a
// snapshot is taken whose reading of the database is older than it.
func TestExpect(t *testing.T) {
	g := newRig(t, 16)
	must(t, bpfobj.KeepSlots(g.coll))
	g.keeps = true
	r := g.reader(Options{})
	told := func(want ...uint32) {
		t.Helper()
		got := []uint32{}
		var key bpfobj.SAKey
		var one uint8
		for it := g.coll.Maps["known_sas"].Iterate(); it.Next(&key, &one); {
			got = append(got, key.Spi)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("SAs that the programs know (-want +got):\n%s", diff)
		}
	}
	entry := func(spi uint32) ledger.SADEntry { return ledger.SADEntry{Key: in(spi)} }
	snapshot(t, r, []ledger.SADEntry{entry(1), entry(2)})
	told(1, 2)
	r.Expect(in(3))
	r.Expect(in(4)) // comes and goes
	told(1, 2, 3, 4)
	_, err := r.Snapshot(context.Background(), func(context.Context) (Dump, error) {
		d := Dump{SAD: []ledger.SADEntry{entry(1), entry(2), entry(3)}}
		r.Expect(in(5))
		return d, nil
	})
	must(t, err)
	told(1, 2, 3, 4, 5)
	snapshot(t, r, []ledger.SADEntry{entry(1), entry(3), entry(5)})
	told(1, 3, 5)
	snapshot(t, r, nil) // not readable: what was known stays
	told(1, 3, 5)
	undirected := ledger.SADEntry{Key: in(6)}
	undirected.Key.Direction = ledger.Unknown
	ah := entry(7)
	ah.Key.Proto = ledger.AH
	snapshot(t, r, []ledger.SADEntry{undirected, ah})
	told(6, 6)
	snapshot(t, r, []ledger.SADEntry{})
	told([]uint32{}...)
}
