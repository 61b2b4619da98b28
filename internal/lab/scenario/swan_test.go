// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// daemons is a tunnel whose SAs two IKE daemons negotiate. The daemons run through several scenarios;
// each scenario has an IKE SA and SAs of its own, so that the injector's account of an SA is the
// scenario's.
type daemons struct {
	*bench
	pair   *swan.Pair
	to     *traffic.Flow // A to B
	back   *traffic.Flow
	before counts
	marked int // IKE messages before the scenario
}

// counts are what the flows have sent and delivered so far.
type counts struct{ SentTo, GotTo, SentBack, GotBack int64 }

func (c counts) minus(o counts) counts {
	return counts{c.SentTo - o.SentTo, c.GotTo - o.GotTo, c.SentBack - o.SentBack, c.GotBack - o.GotBack}
}

// openDaemons builds the tunnel and starts the daemons; nothing is negotiated yet.
func openDaemons(t *testing.T, o tunnel.Options) *daemons {
	t.Helper()
	o.NoSAs = true
	d := &daemons{bench: &bench{t: t}}
	var err error
	if d.tunnel, err = tunnel.Build(o); err != nil {
		t.Fatal(err)
	}
	d.closing("tunnel", d.tunnel.Close)
	if !o.Router {
		if d.path, err = inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: d.tunnel.Path.Do}); err != nil {
			t.Fatal(err)
		}
		d.closing("injector", d.path.Close)
	}
	if d.pair, err = swan.Start(d.tunnel, swan.Options{}, swan.Options{}); err != nil {
		t.Fatal(err)
	}
	d.closing("daemons", d.pair.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of A:\n%s\nlog of B:\n%s", d.pair.A.Log(), d.pair.B.Log())
		}
	})
	d.to, d.back = d.flow(d.tunnel.A, d.tunnel.B), d.flow(d.tunnel.B, d.tunnel.A)
	return d
}

func (d *daemons) flow(from, to *tunnel.Gateway) *traffic.Flow {
	d.t.Helper()
	f, err := traffic.Open(traffic.Ends{From: from.Inside().Do, To: to.Inside().Do, Src: from.Inner[0], Dst: to.Inner[0], Port: tunnel.Port})
	if err != nil {
		d.t.Fatal(err)
	}
	d.closing("flow", f.Close)
	return f
}

// counted reads the flows.
func (d *daemons) counted() counts {
	to, again := d.to.Delivered()
	back, backAgain := d.back.Delivered()
	if again+backAgain != 0 {
		d.t.Errorf("%d datagrams were delivered twice", again+backAgain)
	}
	return counts{int64(d.to.Sent()), int64(to), int64(d.back.Sent()), int64(back)}
}

// sides are the two daemons' options.
type sides struct{ a, b swan.Options }

// scenario runs one scenario as a subtest: xfrmscope watches gateway B from before the first IKE
// message on, steps do what they do, and check judges.
func (d *daemons) scenario(name string, o sides, steps func(d *daemons), check func(d *daemons, o observation)) {
	d.t.Run(name, func(t *testing.T) {
		b := *d.bench
		b.t = t
		s := *d
		s.bench = &b
		s.must(s.pair.Configure(o.a, o.b))
		var err error
		s.bench.before, err = s.tunnel.B.XfrmStat()
		s.must(err)
		s.before = s.counted()
		if s.path != nil {
			s.marked = len(s.path.Messages())
		}
		s.tool = startTool(t, s.tunnel.B, "--vici", s.pair.B.Vici())
		steps(&s)
		seen := s.finish()
		seen.checkSelf(t)
		s.checkNames(seen)
		check(&s, seen)
	})
}

// both sends datagrams both ways in turn.
func (d *daemons) both(packets int, gap time.Duration) {
	d.t.Helper()
	for range packets {
		d.must(d.to.Send(1, gap))
		d.must(d.back.Send(1, gap))
	}
}

// messages are the scenario's IKE messages.
func (d *daemons) messages() []inject.Message { return d.path.Messages()[d.marked:] }

// checkExact demands that the report has the scenario's SAs and no others, that each of them is on the
// wire as the injector saw it, that each ledger adds up, and that together they carried what the flows
// sent and delivered.
func (d *daemons) checkExact(o observation, generations int) {
	d.t.Helper()
	var in, out, decapsulated, encapsulated int64
	for _, s := range o.report.SAs {
		spi := number(d.t, s.SPI)
		switch s.Direction {
		case "in":
			in++
			d.checkCarried(s, d.path.Truth(inject.AtoB, spi))
			decapsulated += value(s.Ledger.Decapsulated)
		case "out":
			out++
			d.checkOut(o, spi, int64(len(d.path.Truth(inject.BtoA, spi).In)))
			encapsulated += value(s.Ledger.Encapsulated)
		default:
			d.t.Errorf("SA %s has direction %q", s.SPI, s.Direction)
		}
	}
	diff(d.t, "SAs in and out", []int64{int64(generations), int64(generations)}, []int64{in, out})
	moved := d.counted().minus(d.before)
	diff(d.t, "delivered to B, sent by B", []int64{moved.GotTo, moved.SentBack}, []int64{decapsulated, encapsulated})
}

// checkAnswered demands that no message was sent twice and that none was dropped: a scenario that is
// meant to be clean has to have been clean.
func (d *daemons) checkAnswered() {
	d.t.Helper()
	for _, m := range d.messages() {
		if m.Again != 0 || m.Dropped {
			d.t.Errorf("invalid run: IKE message %+v", m)
		}
	}
}

// checkWhole demands that everything sent was delivered, and that it was not nothing.
func (d *daemons) checkWhole(least int64) {
	d.t.Helper()
	moved := d.counted().minus(d.before)
	diff(d.t, "delivered", counts{moved.SentTo, moved.SentTo, moved.SentBack, moved.SentBack}, moved)
	if moved.SentTo < least || moved.SentBack < least {
		d.t.Errorf("invalid run: %d and %d datagrams are too few to prove anything", moved.SentTo, moved.SentBack)
	}
}

// load sends both ways until stop is called, which waits for the last datagram.
func (d *daemons) load(gap time.Duration) (stop func()) {
	enough, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-enough:
				done <- nil
				return
			default:
			}
			if err := errors.Join(d.to.Send(1, gap), d.back.Send(1, gap)); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() {
		d.t.Helper()
		close(enough)
		d.must(<-done)
	}
}

// block drops everything in both directions, or nothing.
func (d *daemons) block(on bool) {
	d.path.Block(inject.AtoB, on)
	d.path.Block(inject.BtoA, on)
}

// release waits until an IKE message is held, and lets it go after a while.
func (d *daemons) release(after time.Duration) {
	d.t.Helper()
	d.must(swan.Until("a message to hold", func() (bool, error) { return d.held() > 0, nil }))
	time.Sleep(after)
	d.path.Release()
}

// requests counts the scenario's requests of an exchange, each once.
func (d *daemons) requests(exchange byte) int {
	return d.count(func(m inject.Message) bool { return m.Exchange == exchange && !m.Response && m.Again == 0 })
}

func (d *daemons) dropped() int {
	return d.count(func(m inject.Message) bool { return m.Dropped })
}

func (d *daemons) repeated() int {
	return d.count(func(m inject.Message) bool { return m.Again > 0 })
}

func (d *daemons) held() int {
	return d.count(func(m inject.Message) bool { return m.Held })
}

func (d *daemons) count(which func(inject.Message) bool) (n int) {
	for _, m := range d.messages() {
		if which(m) {
			n++
		}
	}
	return n
}

// inbound names the one inbound SA whose packets xfrm dropped.
func (d *daemons) inbound(o observation, dropped int64) string {
	d.t.Helper()
	var names []string
	for _, s := range o.report.SAs {
		if s.Direction == "in" && value(s.Ledger.XfrmDropped) == dropped {
			names = append(names, s.SPI)
		}
	}
	if len(names) != 1 {
		d.t.Fatalf("%d inbound SAs had %d packets dropped by xfrm, want one: %q", len(names), dropped, names)
	}
	return names[0]
}

// checkNames demands that each SA, and each finding, goes by the names that B's daemon has for it.
func (d *daemons) checkNames(o observation) {
	d.t.Helper()
	for _, s := range o.report.SAs {
		diff(d.t, "names of SA "+s.SPI, []string{swan.Connection, swan.Child}, []string{s.Connection, s.Child})
	}
	for _, f := range o.report.Findings {
		diff(d.t, "connection of "+f.ID, swan.Connection, f.Subject.Connection)
		if !strings.Contains(f.Summary, "connection "+swan.Connection) {
			d.t.Errorf("%s does not say the connection's name: %s", f.ID, f.Summary)
		}
	}
}

// checkRoot demands that there is one finding, and that it explains exactly these.
func (d *daemons) checkRoot(o observation, want string, consequences ...string) {
	d.t.Helper()
	o.checkFindings(d.t, want)
	if len(o.report.Findings) == 1 {
		diff(d.t, "consequences of "+want, append([]string{}, consequences...), append([]string{}, o.report.Findings[0].Folded...))
	}
}
