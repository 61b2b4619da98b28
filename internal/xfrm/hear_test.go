// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"

	"xfrmscope/internal/ledger"
)

// TestTrackerIsHeard: who listens hears of SAs that are added or updated, at once and in order, and of no
// others; who listens no longer hears nothing.
func TestTrackerIsHeard(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5))
	var heard []ledger.SPI
	s.tracker.Hear(func(sa ledger.SADEntry) { heard = append(heard, sa.Key.SPI) })
	s.sas = [][]byte{testSA(t, 1, 100, 6), testSA(t, 3, 100, 0)}
	s.group.announce(newMsg(testSA(t, 2, 100, 0)), delMsg(t, testSA(t, 2, 100, 0)),
		netlink.Message{Header: netlink.Header{Type: msgUpdSA}, Data: testSA(t, 1, 100, 0)}, newMsg(testSA(t, 3, 100, 0)))
	// A snapshot waits until all that was announced has been received.
	if _, _, err := s.tracker.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ledger.SPI{2, 1, 3}, heard); diff != "" {
		t.Errorf("SAs heard of (-want +got):\n%s", diff)
	}
	s.tracker.Hear(nil)
	s.group.announce(newMsg(testSA(t, 4, 100, 0)))
	if _, _, err := s.tracker.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(heard) != 3 {
		t.Errorf("heard after the end: %v", heard)
	}
}
