// SPDX-License-Identifier: Apache-2.0

package ike_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
)

var (
	start = time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)
	here  = netip.MustParseAddrPort("192.0.2.2:500")
	peer  = netip.MustParseAddrPort("192.0.2.1:500")
)

// wire feeds a tracker with what an observer at `here` sees.
type wire struct {
	t   *ike.Tracker
	now time.Time
	spi uint64
	v   uint8
}

func newWire() *wire { return &wire{t: ike.NewTracker(), now: start, spi: 0xa1, v: 2} }

// say sends one message. who is "out" or "in"; flags are made from the roles.
func (w *wire) say(who string, typ ike.Exchange, id uint32, role string, length uint32) *wire {
	m := ike.Message{At: w.now, Src: here, Dst: peer, Direction: ledger.Out}
	if who == "in" {
		m.Src, m.Dst, m.Direction = peer, here, ledger.In
	}
	m.Header = ike.Header{InitiatorSPI: w.spi, ResponderSPI: 0xb2, NextPayload: 46, Version: w.v << 4, Exchange: typ, MessageID: id, Length: length}
	switch role {
	case "I>": // the initiator asks
		m.Flags = 0x08
	case "<R": // the responder answers
		m.Flags = 0x20
	case "R>": // the responder asks
		m.Flags = 0
	case "<I": // the initiator answers
		m.Flags = 0x28
	case "frag":
		m.Flags, m.NextPayload = 0x08, 53
	}
	w.t.Observe(m)
	return w
}

func (w *wire) wait(d time.Duration) *wire { w.now = w.now.Add(d); return w }

const ms = time.Millisecond

// sum writes what the tracker has of each kind of exchange.
func sum(r *ledger.IKE) []string {
	var out []string
	for _, p := range r.Peers {
		for _, x := range p.Exchanges {
			out = append(out, fmt.Sprintf("%s v%d by %s: %d = %d answered %d unseen %d unanswered %d open; %d repeats %d reanswers; rtt %d/%v",
				x.Exchange, x.Version, x.Requester, x.Count, x.Answered, x.AnsweredUnseen, x.Unanswered, x.Open, x.Repeats, x.Reanswers, x.RTT.Samples, x.RTT.AvgMS))
		}
	}
	return out
}

func TestTracker(t *testing.T) {
	for _, tc := range []struct {
		name   string
		talk   func(*wire)
		want   []string
		copies int64
	}{
		{"set up", func(w *wire) {
			w.say("out", ike.SAInit, 0, "I>", 400).wait(10*ms).say("in", ike.SAInit, 0, "<R", 420).wait(ms).
				say("out", ike.Auth, 1, "I>", 300).wait(20*ms).say("in", ike.Auth, 1, "<R", 280)
		}, []string{
			"IKE_AUTH v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/20",
			"IKE_SA_INIT v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/10",
		}, 0},
		{"a cookie is asked for, then another group", func(w *wire) {
			w.say("out", ike.SAInit, 0, "I>", 400).wait(10*ms).say("in", ike.SAInit, 0, "<R", 56).
				wait(ms).say("out", ike.SAInit, 0, "I>", 424).wait(10*ms).say("in", ike.SAInit, 0, "<R", 38).
				wait(ms).say("out", ike.SAInit, 0, "I>", 600).wait(10*ms).say("in", ike.SAInit, 0, "<R", 420)
		}, []string{"IKE_SA_INIT v2 by local: 3 = 3 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 3/10"}, 0},
		{"a repeated request is answered in the end", func(w *wire) {
			w.say("out", ike.CreateChild, 2, "I>", 200).wait(4*time.Second).say("out", ike.CreateChild, 2, "I>", 200).
				wait(10*ms).say("in", ike.CreateChild, 2, "<R", 200)
		}, []string{"CREATE_CHILD_SA v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 1 repeats 0 reanswers; rtt 0/0"}, 0},
		{"a lost response is sent again", func(w *wire) {
			w.say("in", ike.CreateChild, 0, "R>", 200).wait(5*ms).say("out", ike.CreateChild, 0, "<I", 200).
				wait(4*time.Second).say("in", ike.CreateChild, 0, "R>", 200).wait(ms).say("out", ike.CreateChild, 0, "<I", 200)
		}, []string{"CREATE_CHILD_SA v2 by remote: 1 = 1 answered 0 unseen 0 unanswered 0 open; 1 repeats 1 reanswers; rtt 1/5"}, 0},
		{"a dead peer", func(w *wire) {
			for _, d := range []int{4000, 7200, 13000} {
				w.say("out", ike.Informational, 3, "I>", 80).wait(time.Duration(d) * ms)
			}
		}, []string{"INFORMATIONAL v2 by local: 1 = 0 answered 0 unseen 1 unanswered 0 open; 2 repeats 0 reanswers; rtt 0/0"}, 0},
		{"asked a moment ago", func(w *wire) {
			w.say("out", ike.Informational, 3, "I>", 80).wait(4*time.Second).say("out", ike.Informational, 3, "I>", 80).wait(time.Second)
		}, []string{"INFORMATIONAL v2 by local: 1 = 0 answered 0 unseen 0 unanswered 1 open; 1 repeats 0 reanswers; rtt 0/0"}, 0},
		{"asked five times, a second apart", func(w *wire) {
			for range 5 {
				w.say("out", ike.CreateChild, 3, "I>", 200).wait(time.Second)
			}
			w.wait(-990 * ms)
		}, []string{"CREATE_CHILD_SA v2 by local: 1 = 0 answered 0 unseen 1 unanswered 0 open; 4 repeats 0 reanswers; rtt 0/0"}, 0},
		{"asked for the third time a moment ago", func(w *wire) {
			for range 3 {
				w.say("out", ike.CreateChild, 3, "I>", 200).wait(time.Second)
			}
			w.wait(-990 * ms)
		}, []string{"CREATE_CHILD_SA v2 by local: 1 = 0 answered 0 unseen 0 unanswered 1 open; 2 repeats 0 reanswers; rtt 0/0"}, 0},
		{"asked once and left", func(w *wire) {
			w.say("in", ike.Informational, 3, "R>", 80).wait(11 * time.Second)
		}, []string{"INFORMATIONAL v2 by remote: 1 = 0 answered 0 unseen 1 unanswered 0 open; 0 repeats 0 reanswers; rtt 0/0"}, 0},
		{"the answer took another way", func(w *wire) {
			w.say("out", ike.Informational, 3, "I>", 80).wait(20*time.Second).say("out", ike.Informational, 4, "I>", 80).
				wait(ms).say("in", ike.Informational, 4, "<R", 80)
		}, []string{"INFORMATIONAL v2 by local: 2 = 1 answered 1 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/1"}, 0},
		{"both ends ask with the same number", func(w *wire) {
			w.say("out", ike.Informational, 3, "I>", 80).say("in", ike.Informational, 3, "R>", 80).wait(2*ms).
				say("out", ike.Informational, 3, "<I", 80).wait(2*ms).say("in", ike.Informational, 3, "<R", 80)
		}, []string{
			"INFORMATIONAL v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/4",
			"INFORMATIONAL v2 by remote: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/2",
		}, 0},
		{"an answer whose request came before we looked", func(w *wire) {
			w.say("in", ike.Informational, 3, "<R", 80)
		}, []string{"INFORMATIONAL v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 0/0"}, 0},
		{"fragments are one message", func(w *wire) {
			for range 3 {
				w.say("out", ike.Auth, 1, "frag", 1280).wait(30 * ms)
			}
			w.say("in", ike.Auth, 1, "<R", 280)
		}, []string{"IKE_AUTH v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/90"}, 2},
		{"fragments repeated", func(w *wire) {
			for range 2 {
				w.say("out", ike.Auth, 1, "frag", 1280).wait(ms).say("out", ike.Auth, 1, "frag", 300).wait(4 * time.Second)
			}
			w.say("in", ike.Auth, 1, "<R", 280)
		}, []string{"IKE_AUTH v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 1 repeats 0 reanswers; rtt 0/0"}, 2},
		{"seen at two interfaces", func(w *wire) {
			w.say("out", ike.Auth, 1, "I>", 300).say("out", ike.Auth, 1, "I>", 300).wait(5*ms).
				say("in", ike.Auth, 1, "<R", 280).say("in", ike.Auth, 1, "<R", 280)
		}, []string{"IKE_AUTH v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/5"}, 2},
		{"IKEv1 main and quick mode", func(w *wire) {
			w.v = 1
			for i, l := range []uint32{180, 160, 300, 310, 90, 92} {
				w.say([]string{"out", "in"}[i%2], ike.MainMode, 0, "", l).wait(30 * ms)
			}
			for i, l := range []uint32{180, 170, 60} {
				w.say([]string{"in", "out"}[i%2], ike.QuickMode, 0x1234, "", l).wait(30 * ms)
			}
		}, []string{
			"Main Mode v1 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/30",
			"Quick Mode v1 by remote: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/30",
		}, 0},
		{"IKEv1 stalls when it moves to port 4500", func(w *wire) {
			w.v = 1
			for i, l := range []uint32{180, 160, 300, 310, 90} {
				w.say([]string{"out", "in"}[i%2], ike.MainMode, 0, "", l).wait(30 * ms)
			}
			w.wait(4*time.Second).say("out", ike.MainMode, 0, "", 90).wait(3 * time.Second)
		}, []string{"Main Mode v1 by local: 1 = 0 answered 0 unseen 1 unanswered 0 open; 1 repeats 0 reanswers; rtt 1/30"}, 0},
		{"IKEv1 quick mode lacks its third message", func(w *wire) {
			w.v = 1
			w.say("in", ike.QuickMode, 7, "", 180).wait(30*ms).say("out", ike.QuickMode, 7, "", 170).
				wait(4*time.Second).say("out", ike.QuickMode, 7, "", 170).wait(3 * time.Second)
		}, []string{"Quick Mode v1 by remote: 1 = 0 answered 0 unseen 1 unanswered 0 open; 0 repeats 1 reanswers; rtt 1/30"}, 0},
		{"IKEv1 dead peer detection without an answer", func(w *wire) {
			w.v = 1
			for i := range 4 {
				w.say("out", ike.InfoV1, 100+uint32(i), "", 92).wait(5 * time.Second)
			}
		}, []string{"Informational v1 by local: 4 = 0 answered 0 unseen 4 unanswered 0 open; 0 repeats 0 reanswers; rtt 0/0"}, 0},
		{"IKEv1 dead peer detection with answers", func(w *wire) {
			w.v = 1
			for i := range 4 {
				w.say("out", ike.InfoV1, 100+uint32(i), "", 92).wait(5*ms).say("in", ike.InfoV1, 900+uint32(i), "", 92).wait(5 * time.Second)
			}
		}, []string{
			"Informational v1 by local: 4 = 4 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 0/0",
			"Informational v1 by remote: 4 = 4 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 0/0",
		}, 0},
		{"a version of the future", func(w *wire) { w.v = 3; w.say("out", 99, 0, "I>", 60) }, nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWire()
			tc.talk(w)
			r := w.t.Report(w.now)
			if diff := cmp.Diff(tc.want, sum(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if r.Copies != tc.copies {
				t.Errorf("%d copies, want %d", r.Copies, tc.copies)
			}
			if again := w.t.Report(w.now); !cmp.Equal(r, again, cmpopts.EquateComparable(netip.AddrPort{})) {
				t.Errorf("a report changes the next one: %s", cmp.Diff(r, again, cmpopts.EquateComparable(netip.AddrPort{})))
			}
		})
	}
}

// TestUnansweredSaysWho: where the third of six messages stalls, it is not the exchange's requester who waits.
func TestUnansweredSaysWho(t *testing.T) {
	w := newWire()
	w.v = 1
	w.say("in", ike.QuickMode, 7, "", 180).wait(30*ms).say("out", ike.QuickMode, 7, "", 170).wait(11 * time.Second)
	r := w.t.Report(w.now)
	if len(r.Notable) != 1 || r.Notable[0].Outcome != ledger.IKEUnanswered || r.Notable[0].Waiting != ledger.Local || r.Notable[0].Requester != ledger.Remote {
		t.Fatalf("got %+v", r.Notable)
	}
}

// TestLateAnswer: what was judged unanswered is taken back when the answer comes.
func TestLateAnswer(t *testing.T) {
	w := newWire()
	w.say("out", ike.CreateChild, 2, "I>", 200).wait(12 * time.Second)
	if got := w.t.Report(w.now).SAs[0].Unanswered; got != 1 {
		t.Fatalf("%d unanswered after 12 s, want 1", got)
	}
	w.say("in", ike.CreateChild, 2, "<R", 200)
	r := w.t.Report(w.now)
	if r.SAs[0].Unanswered != 0 || r.Notable[0].Outcome != ledger.IKEAnswered || r.Notable[0].DurationMS != 12000 {
		t.Errorf("after the answer: %+v", r.Notable[0])
	}
}

// TestRenewedIKESA: an IKE SA that began without IKE_SA_INIT was set up by another one.
func TestRenewedIKESA(t *testing.T) {
	w := newWire()
	w.say("out", ike.CreateChild, 9, "I>", 400).wait(50*ms).say("in", ike.CreateChild, 9, "<R", 400).wait(ms)
	w.say("out", ike.Informational, 10, "I>", 80).wait(5*ms).say("in", ike.Informational, 10, "<R", 80).wait(time.Second)
	w.spi = 0xc3
	w.say("in", ike.Informational, 0, "R>", 80).wait(ms).say("out", ike.Informational, 0, "<I", 80)
	r := w.t.Report(w.now)
	if len(r.SAs) != 2 || r.SAs[1].Replaces == nil || *r.SAs[1].Replaces != 0xa1 {
		t.Fatalf("got %+v", r.SAs)
	}
	if r.SAs[1].Initiator != ledger.Local {
		t.Errorf("initiator of the new IKE SA is %s: its flag says local", r.SAs[1].Initiator)
	}
}

// TestTransit: messages that arrive and leave again are another pair's affair.
func TestTransit(t *testing.T) {
	tr := ike.NewTracker()
	a, b := netip.MustParseAddrPort("198.51.100.1:500"), netip.MustParseAddrPort("198.51.100.2:500")
	h := ike.Header{InitiatorSPI: 1, Version: 0x20, Exchange: ike.SAInit, Flags: 0x08, Length: 400}
	tr.Observe(ike.Message{Header: h, At: start, Src: a, Dst: b, Direction: ledger.In})
	tr.Observe(ike.Message{Header: h, At: start.Add(20 * time.Microsecond), Src: a, Dst: b, Direction: ledger.Out})
	r := tr.Report(start.Add(20 * time.Second))
	if !r.Peers[0].Transit || !r.SAs[0].Transit || !r.Notable[0].Transit || r.Copies != 1 {
		t.Errorf("got %+v", r)
	}
}

// TestCaptureSides: where no direction is known, whoever speaks first is called local.
func TestCaptureSides(t *testing.T) {
	tr := ike.NewTracker()
	h := ike.Header{InitiatorSPI: 1, Version: 0x20, Exchange: ike.SAInit, Flags: 0x08, Length: 400}
	tr.Observe(ike.Message{Header: h, At: start, Src: peer, Dst: here, Direction: ledger.Unknown})
	h.Flags = 0x20
	tr.Observe(ike.Message{Header: h, At: start.Add(ms), Src: here, Dst: peer, Direction: ledger.Unknown})
	p := tr.Report(start.Add(time.Second)).Peers[0]
	if p.Local != peer || p.Remote != here || p.Sent != 1 || p.Received != 1 || p.Transit || p.Exchanges[0].Answered != 1 {
		t.Errorf("got %+v", p)
	}
}

// TestInitBurst counts new IKE SAs within ten seconds.
func TestInitBurst(t *testing.T) {
	w := newWire()
	for i := range 30 {
		w.spi = uint64(i + 1)
		w.say("in", ike.SAInit, 0, "I>", 400).wait(100 * ms)
	}
	if got := w.t.Report(w.now).Peers[0].InitBurst; got != 30 {
		t.Errorf("burst of %d, want 30", got)
	}
}

// TestBounded: a flood of strangers costs a fixed amount of memory, and what it pushed out is counted.
func TestBounded(t *testing.T) {
	tr := ike.NewTracker()
	const flood = 20000
	for i := range flood {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500)
		h := ike.Header{InitiatorSPI: uint64(i + 1), Version: 0x20, Exchange: ike.SAInit, Flags: 0x08, Length: 400}
		tr.Observe(ike.Message{Header: h, At: start.Add(time.Duration(i) * ms), Src: src, Dst: here, Direction: ledger.In})
	}
	r := tr.Report(start.Add(time.Minute))
	if r.Messages != flood || len(r.Peers) != 4096 || len(r.SAs) != 4096 || len(r.Notable) != 512 {
		t.Errorf("%d messages, %d peers, %d IKE SAs, %d notable", r.Messages, len(r.Peers), len(r.SAs), len(r.Notable))
	}
	const gone = flood - 4096 // each a peer with an IKE SA
	if r.Forgotten != 2*gone {
		t.Errorf("%d forgotten, want %d", r.Forgotten, 2*gone)
	}
	want := &ledger.IKEGone{Received: gone, Exchanges: []ledger.IKEExchanges{
		{Exchange: "IKE_SA_INIT", Version: 2, Requester: ledger.Remote, Count: gone, Open: gone}}}
	if diff := cmp.Diff(want, r.Gone); diff != "" {
		t.Errorf("those that had to go (-want +got):\n%s", diff)
	}
}

// TestGoneUnanswered: a row of messages that nobody answers stays unanswered when the peer has to go.
func TestGoneUnanswered(t *testing.T) {
	w := newWire()
	w.v = 1
	for id := range uint32(4) {
		w.say("out", ike.InfoV1, id+1, "I>", 92).wait(10 * time.Second)
	}
	unanswered := func(of []ledger.IKEExchanges) (n int64) {
		for _, x := range of {
			n += x.Unanswered
		}
		return n
	}
	before := w.t.Report(w.now)
	if n := unanswered(before.Peers[0].Exchanges); n != 4 || before.Gone != nil {
		t.Fatalf("%d unanswered, %+v gone", n, before.Gone)
	}
	for i := range 4096 {
		h := ike.Header{InitiatorSPI: uint64(i + 1), Version: 0x20, Exchange: ike.SAInit, Flags: 0x08, Length: 400}
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 500)
		w.t.Observe(ike.Message{Header: h, At: w.now, Src: src, Dst: here, Direction: ledger.In})
	}
	if r := w.t.Report(w.now); r.Gone == nil || r.Gone.Sent != 4 || unanswered(r.Gone.Exchanges) != 4 {
		t.Errorf("gone: %+v", r.Gone)
	}
}

// FuzzTracker: whatever arrives, nothing panics, each exchange has one outcome and no count is negative.
// TestBoundedTypes: whoever sends messages of every type takes no more room than the registered ones need, and
// each is counted.
func TestBoundedTypes(t *testing.T) {
	w := newWire()
	for v := uint8(1); v <= 2; v++ {
		for typ := range 256 {
			w.v, w.spi = v, uint64(v)<<8|uint64(typ)
			w.say("in", ike.Exchange(typ), 1, "I>", 80)
		}
	}
	p := w.t.Report(w.now).Peers[0]
	count := int64(0)
	for _, x := range p.Exchanges {
		count += x.Count
	}
	if len(p.Exchanges) > 40 || count != 512 {
		t.Errorf("%d exchanges of %d types, want 512 of at most 40", count, len(p.Exchanges))
	}
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte("\x08\x22\x00\x01\x00\x20\x22\x00\x01\x05"), uint8(2))
	f.Add([]byte("\x00\x02\x00\x01\x00\x00\x02\x00\x02\x05\x00\x20\x07\x01\x05"), uint8(1))
	// One message of IKEv1 four times, which is one exchange and not four.
	f.Add([]byte("\bbbobbbb\x01\xf4\"\x05bbb\"\x05bbb\"\x05bbb\"\x05bb"), uint8(1))
	f.Fuzz(func(t *testing.T, script []byte, version uint8) {
		tr := ike.NewTracker()
		now := start
		n := int64(0)
		for len(script) >= 5 {
			op := script[:5]
			script = script[5:]
			m := ike.Message{At: now, Src: here, Dst: peer, Direction: []ledger.Direction{ledger.Out, ledger.In, ledger.Unknown}[op[3]%3]}
			if op[3]&4 != 0 {
				m.Src, m.Dst = peer, here
			}
			m.Header = ike.Header{
				InitiatorSPI: uint64(op[3] >> 6), ResponderSPI: uint64(op[0] >> 6), NextPayload: 53 * (op[0] & 1), Version: version<<4 | op[2]>>7,
				Exchange: ike.Exchange(op[1]), Flags: op[0], MessageID: uint32(op[2] & 3), Length: 28 + uint32(op[4]&3),
			}
			tr.Observe(m)
			n++
			now = now.Add(time.Duration(int8(op[4])) * 50 * ms)
		}
		r := tr.Report(now)
		if r.Messages != n {
			t.Fatalf("%d messages, %d reported", n, r.Messages)
		}
		for _, p := range r.Peers {
			for _, x := range p.Exchanges {
				if x.Answered+x.AnsweredUnseen+x.Unanswered+x.Open != x.Count {
					t.Fatalf("outcomes do not add up: %+v", x)
				}
				if min(x.Answered, x.Unanswered, x.Open, x.Repeats, x.Reanswers, x.Retransmitted) < 0 || x.RTT.MinMS > x.RTT.MaxMS {
					t.Fatalf("impossible: %+v", x)
				}
			}
		}
	})
}
