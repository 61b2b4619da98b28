// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

var here, there, third = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")

func on(spi ledger.SPI, src, dst netip.Addr) Subject {
	return Subject{SPI: new(spi), Src: new(src), Dst: new(dst)}
}

func TestRelated(t *testing.T) {
	sa, back, other := on(1, here, there), on(2, there, here), on(3, here, third)
	peer := Subject{Src: new(there)}
	for _, row := range []struct {
		within closeness
		a, b   Subject
		want   bool
	}{
		{sameSA, sa, sa, true},
		{sameSA, sa, back, false},
		{sameSA, sa, peer, false},
		{sameSA, sa, on(1, here, third), false},
		{samePeer, sa, back, true},
		{samePeer, sa, other, false},
		{samePeer, peer, sa, true},
		{samePeer, peer, other, false},
		{samePeer, Subject{}, sa, false},
		{sameHost, sa, other, true},
		{sameHost, Subject{Ifindex: 1}, Subject{Ifindex: 2}, false},
		{sameHost, Subject{Ifindex: 2}, Subject{Ifindex: 2}, true},
		{sameHost, Subject{Ifindex: 2}, Subject{}, true},
	} {
		if got := related(row.within, row.a, row.b); got != row.want {
			t.Errorf("related(%d, %+v, %+v) = %v", row.within, row.a, row.b, got)
		}
	}
}

// TestFold: a chain goes to its root, which becomes as grave as the worst of it; what is about
// somebody else, or too unsure to be a cause, stays.
func TestFold(t *testing.T) {
	saved := foldings
	defer func() { foldings = saved }()
	foldings = []folding{{"root", sameHost, []ID{"middle"}}, {"middle", samePeer, []ID{"leaf"}}, {"guess", sameHost, []ID{"root"}}}
	got := fold([]Finding{
		{ID: "leaf", Severity: Critical, Confidence: 0.9, Subject: on(2, there, here), Consequences: []ID{"noise"}},
		{ID: "middle", Severity: Warning, Confidence: 0.9, Subject: on(1, here, there)},
		{ID: "root", Severity: Info, Confidence: 0.9},
		{ID: "leaf", Severity: Warning, Confidence: 0.9, Subject: on(3, here, third)},
		{ID: "guess", Severity: Info, Confidence: 0.4},
	})
	type row struct {
		ID           ID
		Severity     Severity
		Consequences []ID
		Explains     int
	}
	var rows []row
	for _, f := range got {
		rows = append(rows, row{f.ID, f.Severity, f.Consequences, len(f.Explains)})
	}
	want := []row{{"root", Critical, []ID{"leaf", "middle", "noise"}, 2}, {"leaf", Warning, nil, 0}, {"guess", Info, nil, 0}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("folded (-want +got):\n%s", diff)
	}
}

// TestFoldingsEnd: no finding explains itself by way of others, and every kind in the table exists.
func TestFoldingsEnd(t *testing.T) {
	known := map[ID]bool{}
	for _, k := range Catalogue() {
		known[k.ID] = true
	}
	var walk func(id ID, path []ID)
	walk = func(id ID, path []ID) {
		if slices.Contains(path, id) {
			t.Fatalf("%s explains itself: %v", id, path)
		}
		for _, f := range foldings {
			if f.cause == id {
				for _, e := range f.effects {
					walk(e, append(slices.Clone(path), id))
				}
			}
		}
	}
	for _, f := range foldings {
		for _, id := range append([]ID{f.cause}, f.effects...) {
			if !known[id] {
				t.Errorf("the table names %s, which is not in the catalogue", id)
			}
		}
		walk(f.cause, nil)
	}
}
