// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"

	"xfrmscope/internal/ledger"
)

// fakeGroup is a monitor's socket: announcements are queued, and a request is answered behind them.
type fakeGroup struct {
	mu     sync.Mutex
	queue  []any // netlink.Message or error
	wake   chan struct{}
	closed chan struct{}
	joined []uint32
	seq    uint32
	onSend func() // what the kernel does between the dump and the answer
	refuse error  // of Send
}

func newFakeGroup() *fakeGroup {
	return &fakeGroup{wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (g *fakeGroup) announce(items ...any) {
	g.mu.Lock()
	g.queue = append(g.queue, items...)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *fakeGroup) Send(m netlink.Message) (netlink.Message, error) {
	if g.onSend != nil {
		g.onSend()
	}
	if g.refuse != nil {
		return netlink.Message{}, g.refuse
	}
	g.seq++
	m.Header.Sequence = g.seq
	g.announce(netlink.Message{Header: netlink.Header{Type: msgNewSADInfo, Sequence: g.seq}})
	return m, nil
}

func (g *fakeGroup) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		for {
			g.mu.Lock()
			if len(g.queue) > 0 {
				item := g.queue[0]
				g.queue = g.queue[1:]
				g.mu.Unlock()
				if err, ok := item.(error); ok {
					yield(netlink.Message{}, err)
				} else {
					yield(item.(netlink.Message), nil)
				}
				return
			}
			g.mu.Unlock()
			select {
			case <-g.wake:
			case <-g.closed:
				yield(netlink.Message{}, os.ErrDeadlineExceeded)
				return
			}
		}
	}
}

func (g *fakeGroup) JoinGroup(n uint32) error { g.joined = append(g.joined, n); return nil }
func (g *fakeGroup) SetReadBuffer(int) error  { return nil }
func (g *fakeGroup) Close() error             { return nil }
func (g *fakeGroup) SetReadDeadline(time.Time) error {
	close(g.closed)
	return nil
}

// scene is a fake kernel with a tracker on it.
type scene struct {
	*fakeKernel
	group   *fakeGroup
	tracker *Tracker
}

func newScene(t *testing.T, sas ...[]byte) *scene {
	t.Helper()
	s := &scene{fakeKernel: &fakeKernel{sas: sas, addresses: []string{"192.0.2.2"}}, group: newFakeGroup()}
	c := s.client()
	dial := c.dial
	first := true
	c.dial = func(family int) (conn, error) {
		if first { // the tracker subscribes before it dumps
			first = false
			return s.group, nil
		}
		return dial(family)
	}
	var err error
	if s.tracker, err = OpenTracker(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.tracker.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func (s *scene) snapshot(t *testing.T) (alive, ended []string) {
	t.Helper()
	sad, ends, err := s.tracker.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range sad {
		alive = append(alive, fmt.Sprintf("%v %v packets %d", e.Key.SPI, e.Key.Direction, e.Packets))
	}
	for _, e := range ends {
		if e.At.IsZero() {
			t.Errorf("end without a time: %+v", e)
		}
		ended = append(ended, fmt.Sprintf("%v %v packets %d oseq %d algorithms %d %s",
			e.Last.Key.SPI, e.Last.Key.Direction, e.Last.Packets, e.Last.OSeq, len(e.Last.Algorithms), e.Why))
	}
	return alive, ended
}

func (s *scene) expect(t *testing.T, alive, ended []string) {
	t.Helper()
	gotAlive, gotEnded := s.snapshot(t)
	if diff := cmp.Diff(alive, gotAlive); diff != "" {
		t.Errorf("alive (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ended, gotEnded); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
}

// testSA is an inbound SA of some age with some packets.
func testSA(t *testing.T, spi uint32, added, packets uint64) []byte {
	info := saInfo(familyIPv4, spi)
	info.Cur = cCurrent{Packets: packets, AddTime: added}
	return append(append(plain(t, info), aeadAttr(t)...), attr(t, attrReplayVal, cReplay{Oseq: 10})...)
}

func newMsg(b []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: msgNewSA}, Data: b}
}

func delMsg(t *testing.T, b []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: msgDelSA}, Data: deletedSA(t, b)}
}

func TestTrackerFollowsDeletions(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5), testSA(t, 2, 100, 6))
	if diff := cmp.Diff([]uint32{groupSA, groupExpire, groupMapping, groupPolicy}, s.group.joined); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	s.expect(t, []string{"0x00000001 in packets 5", "0x00000002 in packets 6"}, nil)

	// One is deleted, with more packets than the last dump knew.
	s.sas = [][]byte{testSA(t, 2, 100, 7)}
	s.group.announce(delMsg(t, testSA(t, 1, 100, 50)))
	s.expect(t, []string{"0x00000002 in packets 7"}, []string{"0x00000001 in packets 50 oseq 10 algorithms 1 deleted"})
	s.expect(t, []string{"0x00000002 in packets 7"}, nil)
}

func TestTrackerSeesSAsThatCameAndWentBetweenSnapshots(t *testing.T) {
	s := newScene(t)
	s.group.announce(newMsg(testSA(t, 3, 100, 0)), delMsg(t, testSA(t, 3, 100, 9)))
	s.expect(t, nil, []string{"0x00000003 in packets 9 oseq 10 algorithms 1 deleted"})
}

func TestTrackerWithDeletionDuringSnapshot(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5))
	// Dumped, and then deleted before the snapshot ends: it is gone.
	s.group.onSend = func() { s.group.announce(delMsg(t, testSA(t, 1, 100, 6))); s.group.onSend = nil }
	s.expect(t, nil, []string{"0x00000001 in packets 6 oseq 10 algorithms 1 deleted"})
	s.sas = nil
	s.expect(t, nil, nil)
	// Deleted, not dumped any more, and announced only a moment later.
	s = newScene(t, testSA(t, 1, 100, 5))
	s.sas = nil
	s.group.onSend = func() {
		s.group.onSend = func() { s.group.announce(delMsg(t, testSA(t, 1, 100, 8))); s.group.onSend = nil }
	}
	s.expect(t, nil, []string{"0x00000001 in packets 8 oseq 10 algorithms 1 deleted"})
}

func TestTrackerWithReplacement(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5))
	s.sas = [][]byte{testSA(t, 1, 200, 1)}
	s.group.announce(delMsg(t, testSA(t, 1, 100, 6)), newMsg(testSA(t, 1, 200, 0)))
	s.expect(t, []string{"0x00000001 in packets 1"}, []string{"0x00000001 in packets 6 oseq 10 algorithms 1 deleted"})
	// The same without announcements: the old one's last counters are the last snapshot's.
	s.sas = [][]byte{testSA(t, 1, 300, 2)}
	s.expect(t, []string{"0x00000001 in packets 2"}, []string{"0x00000001 in packets 1 oseq 10 algorithms 1 vanished"})
}

// A daemon takes an SA out and puts it back with the age and the counters that it read before; packets
// that came in between are counted by the first life only.
func TestTrackerWithAnotherLife(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5))
	s.sas = [][]byte{testSA(t, 1, 100, 30)}
	s.group.announce(delMsg(t, testSA(t, 1, 100, 22)), newMsg(testSA(t, 1, 100, 20)))
	s.expect(t, []string{"0x00000001 in packets 32"}, []string{"0x00000001 in packets 22 oseq 10 algorithms 1 deleted"})
	// The lead stays, and grows with each life.
	s.sas = [][]byte{testSA(t, 1, 100, 35)}
	s.expect(t, []string{"0x00000001 in packets 37"}, nil)
	s.group.announce(delMsg(t, testSA(t, 1, 100, 36)), newMsg(testSA(t, 1, 100, 35)))
	s.sas = [][]byte{testSA(t, 1, 100, 40)}
	s.expect(t, []string{"0x00000001 in packets 43"}, []string{"0x00000001 in packets 38 oseq 10 algorithms 1 deleted"})
	// An SA that takes over the name later has a life of its own.
	s.group.announce(delMsg(t, testSA(t, 1, 100, 41)), newMsg(testSA(t, 1, 200, 0)))
	s.sas = [][]byte{testSA(t, 1, 200, 3)}
	s.expect(t, []string{"0x00000001 in packets 3"}, []string{"0x00000001 in packets 44 oseq 10 algorithms 1 deleted"})

	// Dumped before it was taken out: the dump is behind, the announcement is what is known.
	s = newScene(t, testSA(t, 1, 100, 5))
	s.sas = [][]byte{testSA(t, 1, 100, 9)}
	s.group.onSend = func() {
		s.group.announce(delMsg(t, testSA(t, 1, 100, 12)), newMsg(testSA(t, 1, 100, 11)))
		s.group.onSend = nil
	}
	s.expect(t, []string{"0x00000001 in packets 12"}, []string{"0x00000001 in packets 12 oseq 10 algorithms 1 deleted"})
	s.sas = [][]byte{testSA(t, 1, 100, 14)}
	s.expect(t, []string{"0x00000001 in packets 15"}, nil)
	// It came, was taken out, put back and deleted between two snapshots.
	s = newScene(t)
	s.group.announce(newMsg(testSA(t, 3, 100, 0)), delMsg(t, testSA(t, 3, 100, 9)),
		newMsg(testSA(t, 3, 100, 8)), delMsg(t, testSA(t, 3, 100, 20)))
	s.expect(t, nil, []string{"0x00000003 in packets 9 oseq 10 algorithms 1 deleted", "0x00000003 in packets 21 oseq 10 algorithms 1 deleted"})
}

func TestTrackerWithExpiry(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5))
	s.sas = nil
	info := saInfo(familyIPv4, 1)
	info.Cur = cCurrent{Packets: 25, AddTime: 100}
	s.group.announce(
		netlink.Message{Header: netlink.Header{Type: msgExpire}, Data: expiredSA(t, info, 0)},
		netlink.Message{Header: netlink.Header{Type: msgExpire}, Data: expiredSA(t, info, 1)})
	// An expiry has no algorithms and no replay state: they are remembered, and twenty packets more
	// mean twenty numbers more.
	s.expect(t, nil, []string{"0x00000001 in packets 25 oseq 30 algorithms 1 hard-expired"})
}

func TestTrackerWithFlush(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5), testSA(t, 2, 100, 6))
	s.sas = [][]byte{testSA(t, 1, 200, 1)}
	s.group.announce(newMsg(testSA(t, 4, 150, 0)),
		netlink.Message{Header: netlink.Header{Type: msgFlushSA}, Data: []byte{protoAny}},
		newMsg(testSA(t, 1, 200, 0)))
	s.expect(t, []string{"0x00000001 in packets 1"}, []string{
		"0x00000001 in packets 5 oseq 10 algorithms 1 flushed",
		"0x00000002 in packets 6 oseq 10 algorithms 1 flushed",
		"0x00000004 in packets 0 oseq 10 algorithms 1 flushed",
	})
	s.group.announce(netlink.Message{Header: netlink.Header{Type: msgFlushSA}, Data: []byte{protoAH}})
	s.expect(t, []string{"0x00000001 in packets 1"}, nil) // another protocol's
}

func TestTrackerWithReservation(t *testing.T) {
	reserved := saInfo(familyIPv4, 1)
	reserved.Cur = cCurrent{AddTime: 100}
	s := newScene(t, plain(t, reserved))
	s.expect(t, nil, nil)
	// It is filled: that is one SA, and nothing ended.
	s.sas = [][]byte{testSA(t, 1, 101, 3)}
	s.group.announce(netlink.Message{Header: netlink.Header{Type: msgUpdSA}, Data: testSA(t, 1, 101, 0)})
	s.expect(t, []string{"0x00000001 in packets 3"}, nil)
	// An update in place names another age and no packets: the dump is right.
	s.group.announce(netlink.Message{Header: netlink.Header{Type: msgUpdSA}, Data: testSA(t, 1, 150, 0)})
	s.expect(t, []string{"0x00000001 in packets 3"}, nil)
}

// A reservation that is filled within the second in which it was made, after the dump that still had it: the SA is
// there, and known to have been announced.
func TestTrackerWithReservationFilledAtOnce(t *testing.T) {
	now := uint64(time.Now().Unix())
	reserved := saInfo(familyIPv4, 1)
	reserved.Cur = cCurrent{AddTime: now}
	s := newScene(t)
	s.sas = [][]byte{plain(t, reserved)}
	s.group.announce(netlink.Message{Header: netlink.Header{Type: msgUpdSA}, Data: testSA(t, 1, now, 0)})
	sad, ended, err := s.tracker.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(sad) != 1 || len(ended) != 0 || sad[0].Announced.IsZero() {
		t.Fatalf("%d SAs, %d ended: %+v", len(sad), len(ended), sad)
	}
	announced := sad[0].Announced
	s.sas = [][]byte{testSA(t, 1, now, 3)}
	if sad, _, err = s.tracker.Snapshot(t.Context()); err != nil || len(sad) != 1 || sad[0].Packets != 3 || !sad[0].Announced.Equal(announced) {
		t.Errorf("after another dump: %+v, error %v", sad, err)
	}
}

// A snapshot that fails after it has taken announcements leaves them to the next one.
func TestTrackerAfterFailedSnapshot(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5), testSA(t, 2, 100, 6))
	s.sas = nil
	s.group.announce(delMsg(t, testSA(t, 1, 100, 9)))
	asked := 0
	s.group.onSend = func() {
		// The second question is about the other SA, which is gone without a word.
		if asked++; asked == 2 {
			s.group.refuse = errors.New("refused")
		}
	}
	if _, _, err := s.tracker.Snapshot(t.Context()); !errors.Is(err, s.group.refuse) || asked != 2 {
		t.Fatalf("after %d questions: %v", asked, err)
	}
	s.group.onSend, s.group.refuse = nil, nil
	s.group.announce(delMsg(t, testSA(t, 2, 100, 8)))
	s.expect(t, nil, []string{"0x00000001 in packets 9 oseq 10 algorithms 1 deleted", "0x00000002 in packets 8 oseq 10 algorithms 1 deleted"})
}

func TestTrackerThatLostAnnouncements(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5))
	s.sas = nil
	s.group.announce(&netlink.OpError{Op: "receive", Err: os.NewSyscallError("recvmsg", syscall.ENOBUFS)})
	s.expect(t, nil, []string{"0x00000001 in packets 5 oseq 10 algorithms 1 vanished"})
	if s.tracker.Lost() != 1 {
		t.Errorf("lost %d, want 1", s.tracker.Lost())
	}
}

func TestTrackerWhoseSubscriptionBreaks(t *testing.T) {
	s := newScene(t)
	s.group.announce(errors.New("broken"))
	<-s.tracker.ended
	if _, _, err := s.tracker.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("error %v", err)
	}
	s.tracker.err = nil // reported; closing is fine
}

func TestEntriesAreIndependent(t *testing.T) {
	s := newScene(t, testSA(t, 1, 100, 5))
	a, _, err := s.tracker.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a[0].Algorithms[0].Name = "changed by the caller"
	s.sas = nil
	_, ended, err := s.tracker.Snapshot(t.Context())
	if err != nil || len(ended) != 1 || ended[0].Last.Algorithms[0].Name != "rfc4106(gcm(aes))" {
		t.Errorf("error %v, ended %+v", err, ended)
	}
	if ended[0].Why != ledger.EndVanished || ended[0].Last.Key.Dst != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("ended %+v", ended[0])
	}
}
