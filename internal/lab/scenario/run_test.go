// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

const (
	// pace leaves an emulated machine time for each packet, so that no queue ever fills.
	pace = 500 * time.Microsecond
	// calm without a packet means that nothing is under way any more.
	calm = 250 * time.Millisecond
	// horizon is longer than xfrmscope waits for late packets before it calls them lost.
	horizon = 1500 * time.Millisecond
	// patience bounds everything that an emulated machine does slowly.
	patience = 4 * time.Minute
)

// bench is a tunnel with faults on its path, under the eyes of xfrmscope on gateway B.
type bench struct {
	t      *testing.T
	tunnel *tunnel.Tunnel
	path   *inject.Injector         // nil where the path is a router
	flows  map[uint32]*traffic.Flow // by SPI
	before map[string]uint64        // xfrm counters of gateway B
	tool   *tool
}

// open builds the tunnel and starts xfrmscope. Everything is taken down with the test.
func open(t *testing.T, o tunnel.Options, rules []inject.Rule, flags ...string) *bench {
	t.Helper()
	return openPrepared(t, o, func(*tunnel.Tunnel) error { return nil }, rules, flags...)
}

// openPrepared is open with something done to the tunnel before xfrmscope looks at it.
func openPrepared(t *testing.T, o tunnel.Options, prepare func(*tunnel.Tunnel) error, rules []inject.Rule, flags ...string) *bench {
	t.Helper()
	b := raise(t, o, prepare, rules)
	b.tool = startTool(t, b.tunnel.B, flags...)
	return b
}

// raise builds the tunnel, its faults and its flows, and starts no xfrmscope.
func raise(t *testing.T, o tunnel.Options, prepare func(*tunnel.Tunnel) error, rules []inject.Rule) *bench {
	t.Helper()
	b := &bench{t: t, flows: map[uint32]*traffic.Flow{}}
	var err error
	if b.tunnel, err = tunnel.Build(o); err != nil {
		t.Fatal(err)
	}
	b.closing("tunnel", b.tunnel.Close)
	if err := prepare(b.tunnel); err != nil {
		t.Fatal(err)
	}
	if !o.Router {
		if b.path, err = inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: b.tunnel.Path.Do}, rules...); err != nil {
			t.Fatal(err)
		}
		b.closing("injector", b.path.Close)
	}
	b.openFlows()
	if b.before, err = b.tunnel.B.XfrmStat(); err != nil {
		t.Fatal(err)
	}
	return b
}

// openFlows gives each of the tunnel's SAs somebody to send through it.
func (b *bench) openFlows() {
	b.t.Helper()
	for _, sa := range append(append([]tunnel.SA{}, b.tunnel.AtoB...), b.tunnel.BtoA...) {
		flow, err := traffic.Open(traffic.Ends{From: sa.From.Inside().Do, To: sa.To.Inside().Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port})
		if err != nil {
			b.t.Fatal(err)
		}
		b.closing("flow", flow.Close)
		b.flows[sa.SPI] = flow
	}
}

// as is the bench for the checks of a subtest.
func (b *bench) as(t *testing.T) *bench {
	c := *b
	c.t = t
	return &c
}

// must ends the test where what it is built on fails.
func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) closing(what string, close func() error) {
	b.t.Cleanup(func() {
		if err := close(); err != nil {
			b.t.Errorf("%s: %v", what, err)
		}
	})
}

// send sends packets through an SA.
func (b *bench) send(sa tunnel.SA, packets int) {
	b.t.Helper()
	if err := b.flows[sa.SPI].Send(packets, pace); err != nil {
		b.t.Fatal(err)
	}
}

// settle waits until nothing is under way.
func (b *bench) settle() {
	b.t.Helper()
	if b.path == nil {
		time.Sleep(calm)
		return
	}
	if err := b.path.Quiet(calm, patience); err != nil {
		b.t.Fatal(err)
	}
}

// observation is everything that is known about a run once it is over.
type observation struct {
	report document
	exit   int
	stat   map[string]int64 // xfrm counters of gateway B that moved
}

// finish lets the last packets settle and the horizon pass, and takes all readings.
func (b *bench) finish() observation {
	b.t.Helper()
	o := b.finishLossy()
	b.checkLink()
	return o
}

// finishLossy is finish for a run in which this host's devices are meant to lose packets.
func (b *bench) finishLossy() observation {
	b.t.Helper()
	b.settle()
	time.Sleep(horizon)
	var o observation
	o.report, o.exit = b.tool.finish(b.t)
	o.stat = b.moved()
	if b.path != nil {
		if err := b.path.Err(); err != nil {
			b.t.Fatal(err)
		}
	}
	return o
}

// checkLink makes sure that the kernel dropped nothing between the injector and gateway B: such a
// packet would be in the injector's account and in no other.
func (b *bench) checkLink() {
	b.t.Helper()
	for ns, name := range map[*tunnel.Namespace]string{b.tunnel.B.Namespace: tunnel.WAN, b.tunnel.Path: tunnel.PathB} {
		c, err := ns.Link(name)
		if err != nil {
			b.t.Fatal(err)
		}
		if c.RxDropped != 0 || c.TxDropped != 0 {
			b.t.Fatalf("invalid run: the kernel dropped frames on %s: %+v", name, c)
		}
	}
}

func (b *bench) moved() map[string]int64 {
	b.t.Helper()
	after, err := b.tunnel.B.XfrmStat()
	if err != nil {
		b.t.Fatal(err)
	}
	moved := map[string]int64{}
	for name, n := range after {
		if d := int64(n - b.before[name]); d != 0 {
			moved[name] = d
		}
	}
	return moved
}
