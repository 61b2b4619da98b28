// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"testing"
	"time"

	"github.com/mdlayher/netlink"
)

// TestTrackerTellsWhen: an SA's announcement and its soft expiry are remembered to its end, and an update
// of an old SA does not make it a new one.
func TestTrackerTellsWhen(t *testing.T) {
	now := uint64(time.Now().Unix())
	s := newScene(t, testSA(t, 1, 100, 5))
	soft := saInfo(familyIPv4, 2)
	soft.Cur = cCurrent{Packets: 3, AddTime: now}
	s.sas = [][]byte{testSA(t, 1, 100, 6), testSA(t, 2, now, 3)}
	s.group.announce(
		newMsg(testSA(t, 2, now, 0)),
		netlink.Message{Header: netlink.Header{Type: msgUpdSA}, Data: testSA(t, 1, 100, 0)},
		netlink.Message{Header: netlink.Header{Type: msgExpire}, Data: expiredSA(t, soft, 0)})
	sad, _, err := s.tracker.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(sad) != 2 || !sad[0].Announced.IsZero() || !sad[0].SoftExpired.IsZero() {
		t.Fatalf("the SA that was there before: %+v", sad)
	}
	announced, asked := sad[1].Announced, sad[1].SoftExpired
	if time.Since(announced) > time.Minute || announced.Before(time.Unix(int64(now), 0)) || asked.Before(announced) {
		t.Errorf("announced %v, soft-expired %v, added %v", announced, asked, sad[1].Added)
	}

	// The next dump knows neither, nor does the deletion.
	if sad, _, err = s.tracker.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !sad[1].Announced.Equal(announced) || !sad[1].SoftExpired.Equal(asked) {
		t.Errorf("after another dump: announced %v, soft-expired %v", sad[1].Announced, sad[1].SoftExpired)
	}
	s.sas = [][]byte{testSA(t, 1, 100, 6)}
	s.group.announce(delMsg(t, testSA(t, 2, now, 9)))
	_, ended, err := s.tracker.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(ended) != 1 || !ended[0].Last.Announced.Equal(announced) || !ended[0].Last.SoftExpired.Equal(asked) {
		t.Errorf("at its end: %+v", ended)
	}
}
