// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// flow picks a connection and turns it so that the sender comes first.
func (o observation) flow(t *testing.T, c *traffic.TCP) (sender, reader flowEnd) {
	t.Helper()
	if o.report.Flows == nil {
		t.Fatal("the report has no flows")
	}
	for _, f := range o.report.Flows.List {
		for i := range f.Ends {
			if netip.AddrPortFrom(f.Ends[i].Addr, f.Ends[i].Port) == c.Client() && netip.AddrPortFrom(f.Ends[1-i].Addr, f.Ends[1-i].Port) == c.Server() {
				return f.Ends[i], f.Ends[1-i]
			}
		}
	}
	t.Fatalf("the report has no flow %s to %s", c.Client(), c.Server())
	return
}

// connect opens a connection through an SA pair, from A's side to B's; 0: the kernel tunes the reader's
// buffer.
func (b *bench) connect(pair int, port uint16, receive int) *traffic.TCP {
	b.t.Helper()
	c, err := traffic.OpenTCP(traffic.TCPEnds{
		From: b.tunnel.A.Inside().Do, To: b.tunnel.B.Inside().Do, Src: b.tunnel.A.Inner[pair], Dst: b.tunnel.B.Inner[pair],
		Port: port, ReceiveBuffer: receive,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.closing("connection", c.Close)
	return c
}

// TestReceiveWindow runs four connections of forwarded TCP, each through its own SA pair: a reader that
// stops, a lossy path, a reader that stops for a moment at the end, and a sender with little to say.
func TestReceiveWindow(t *testing.T) {
	tunnel.Need(t)
	const (
		each  = 1500 * time.Millisecond
		lossy = tunnel.FirstSPIAtoB + 1
		bulk  = 600 << 10
	)
	b := open(t, tunnel.Options{Hosts: true, Pairs: 4}, []inject.Rule{
		{SPI: lossy, Action: inject.Drop, Seqs: inject.Every(40, 400, 30)},
	})
	b.fitHosts()
	sending, reading := b.tunnel.A.Inside(), b.tunnel.B.Inside()
	stalled := b.connect(0, 5001, 32<<10)
	long := b.stall(stalled, reading, 3, each)

	slow := b.connect(1, 5002, 0)
	repeated := tcpCounters(t, sending)["RetransSegs"]
	b.must(slow.Write(bulk))
	b.must(slow.Await(bulk, patience))
	repeated = tcpCounters(t, sending)["RetransSegs"] - repeated

	brief := b.connect(2, 5003, 32<<10)
	short := b.stall(brief, reading, 1, 500*time.Millisecond)

	idle := b.connect(3, 5004, 0)
	for range 10 {
		b.must(idle.Write(200))
		time.Sleep(50 * time.Millisecond)
	}
	o := b.finish()

	sender, reader := o.flow(t, stalled)
	checkStall(t, sender, reader, long)
	if sender.Local || reader.Local || sender.SA == nil || reader.SA == nil {
		t.Fatalf("forwarded ends: %+v and %+v", sender, reader)
	}
	diff(t, "SAs there and back", []string{name(b.tunnel.AtoB[0].SPI), "in", name(b.tunnel.BtoA[0].SPI), "out"},
		[]string{sender.SA.SPI, sender.SA.Direction, reader.SA.SPI, reader.SA.Direction})

	sender, reader = o.flow(t, slow)
	lost := int64(b.path.Truth(inject.AtoB, lossy).Lost())
	diff(t, "bytes read by the reader", int64(bulk), slow.Received())
	// One run under load counted 14 gaps for 13 lost packets; the cause was not found. A repeated segment that
	// meets the next gap before the reader has answered that one counts as overtaken.
	again := sender.Retransmissions + sender.Reordered
	if sender.Gaps == 0 || sender.Gaps > lost+lost/4 || again < sender.Gaps || 2*sender.Retransmissions < sender.Gaps || sender.Retransmissions > repeated || reader.Zero.Episodes != 0 {
		t.Errorf("lost %d; %d gaps, %d repeated (by the sender's kernel %d), %d overtaken, window zero %d times",
			lost, sender.Gaps, sender.Retransmissions, repeated, sender.Reordered, reader.Zero.Episodes)
	}

	sender, reader = o.flow(t, brief)
	checkStall(t, sender, reader, short)
	sender, reader = o.flow(t, idle)
	diff(t, "idle: bytes, segments, window zero, repeated", []int64{2000, 10, 0, 0},
		[]int64{sender.Payload, sender.Segments, reader.Zero.Episodes, sender.Retransmissions})

	diff(t, "flows seen, forgotten", []int64{4, 0}, []int64{o.report.Flows.Seen, o.report.Flows.Forgotten})
	diff(t, "packets not followed", int64(0), o.report.Flows.Packets["paged"]+o.report.Flows.Packets["bad"]+o.report.Flows.Packets["full"])
	o.checkFindings(t, "receive-window-full "+name(b.tunnel.AtoB[0].SPI), "path-loss "+name(lossy))
	o.checkFolded(t, "path-loss", "inner-retransmissions")
	o.checkSelf(t)
}

// TestLostBeforeTunnel has a firewall before the peer's tunnel drop several segments in a row. Nobody has seen
// them come out of the tunnel when they come again, and the SA has lost none of them.
func TestLostBeforeTunnel(t *testing.T) {
	tunnel.Need(t)
	const bulk = 400 << 10
	b := open(t, tunnel.Options{Hosts: true}, nil)
	b.fitHosts()
	// One packet, one segment: the firewall counts packets.
	b.must(b.tunnel.A.Host.IP(fmt.Sprintf("link set %s gso_max_segs 1", tunnel.LAN)))
	b.must(inside(b.tunnel.A.Namespace, "nft", "add table ip t; add chain ip t f { type filter hook forward priority 0; }; "+
		"add rule ip t f tcp dport 5001 ip length > 1000 numgen inc mod 60 < 4 counter drop comment \"lan\""))
	c := b.connect(0, 5001, 0)
	b.must(c.Write(bulk))
	b.must(c.Await(bulk, patience))
	dropped := b.nftCounters(b.tunnel.A.Namespace)["lan"]
	o := b.finish()
	sender, _ := o.flow(t, c)
	// A repeated segment that is dropped as well leaves no new gap.
	if dropped < 16 || sender.Skipped > dropped || sender.Skipped < dropped*3/4 || sender.Gaps*2 > sender.Skipped || sender.Retransmissions < sender.Skipped {
		t.Errorf("%d dropped; %d gaps of %d segments, %d repeated", dropped, sender.Gaps, sender.Skipped, sender.Retransmissions)
	}
	o.checkFindings(t, "inner-retransmissions "+name(b.tunnel.AtoB[0].SPI))
	o.checkSays(t, "inner-retransmissions", "the SA itself lost nothing: they were lost before the peer encrypted them")
	o.checkSelf(t)
}

// checkFolded demands that a finding explains another one.
func (o observation) checkFolded(t *testing.T, cause, effect string) {
	t.Helper()
	for _, f := range o.report.Findings {
		if f.ID == cause && slices.Contains(f.Folded, effect) {
			return
		}
	}
	t.Errorf("%s is not put under %s", effect, cause)
}

// TestReceiveWindowOfSockets has sockets of the gateways themselves, IPv6 in UDP: one reader at
// gateway B, where the kernel's counters are at hand, and one at A, of which B sees only what passes.
func TestReceiveWindowOfSockets(t *testing.T) {
	tunnel.Need(t)
	const each = 1500 * time.Millisecond
	b := open(t, tunnel.Options{Family: 6, UDP: true, Pairs: 2}, nil)
	here := b.connect(0, 5001, 32<<10)
	atB := b.stall(here, b.tunnel.B.Namespace, 2, each)
	far, err := traffic.OpenTCP(traffic.TCPEnds{From: b.tunnel.B.Do, To: b.tunnel.A.Do, Src: b.tunnel.B.Inner[1], Dst: b.tunnel.A.Inner[1], Port: 5001, ReceiveBuffer: 32 << 10})
	b.must(err)
	b.closing("connection", far.Close)
	atA := b.stall(far, b.tunnel.A.Namespace, 2, each)
	o := b.finish()
	sender, reader := o.flow(t, here)
	checkStall(t, sender, reader, atB)
	diff(t, "reader on this host", []bool{false, true}, []bool{sender.Local, reader.Local})
	sender, reader = o.flow(t, far)
	checkStall(t, sender, reader, atA)
	diff(t, "sender on this host", []bool{true, false}, []bool{sender.Local, reader.Local})
	o.checkFindings(t, "receive-window-full "+name(b.tunnel.AtoB[0].SPI), "receive-window-full "+name(b.tunnel.BtoA[1].SPI))
	for _, f := range o.report.Findings {
		// Counters of its own kernel speak for the one reader; the other is known from its packets only.
		want := 0.95
		if f.Subject.SPI == name(b.tunnel.AtoB[0].SPI) {
			want = 0.99
		}
		diff(t, "confidence about "+f.Subject.SPI, want, f.Confidence)
	}
	o.checkSelf(t)
}

// TestInnerQueue has a path with a delay and a bottleneck: a reader with a small buffer, which the delay
// makes slow, and a bulk transfer that fills the bottleneck's queue.
func TestInnerQueue(t *testing.T) {
	tunnel.Need(t)
	const (
		delay = 15 * time.Millisecond // each way
		run   = 4 * time.Second
	)
	b := openPrepared(t, tunnel.Options{Hosts: true, Router: true, Pairs: 2}, func(u *tunnel.Tunnel) error {
		return u.Path.Do(func() error {
			for _, args := range [][]string{
				{"qdisc", "add", "dev", tunnel.PathA, "root", "netem", "delay", delay.String(), "limit", "10000"},
				{"qdisc", "add", "dev", tunnel.PathB, "root", "handle", "1:", "netem", "delay", delay.String(), "limit", "10000", "rate", "6mbit"},
			} {
				if out, err := exec.Command("tc", args...).CombinedOutput(); err != nil {
					return fmt.Errorf("tc %s: %w: %s", strings.Join(args, " "), err, out)
				}
			}
			return nil
		})
	}, nil)
	small := b.connect(0, 5001, 8<<10)
	began := time.Now()
	_, err := small.WriteFor(run)
	b.must(err)
	took := time.Since(began)
	got := small.Received()
	bulk := b.connect(1, 5002, 4<<20)
	// One look at the way back takes as long as the queue is, and a verdict wants some.
	_, err = bulk.WriteFor(2*run + time.Second)
	b.must(err)
	time.Sleep(2 * time.Second)
	o := b.finish()

	sender, reader := o.flow(t, small)
	if sender.Back == nil || sender.RTT == nil || reader.Window == nil || reader.Window.Scale == nil {
		t.Fatalf("not measured: %+v and %+v", sender, reader)
	}
	// The path's delay lies between gateway B and the sender, both ways.
	if least := 2 * delay.Microseconds(); sender.Back.MinUS < least || sender.Back.MinUS > 2*least || sender.RTT.MinUS > least/2 {
		t.Errorf("round trip back to the sender %d µs, to the reader %d; the path takes %d", sender.Back.MinUS, sender.RTT.MinUS, least)
	}
	if sender.EdgeChecked < 20 || sender.EdgeHit*10 < sender.EdgeChecked*9 {
		t.Errorf("the window was found used up %d of %d times", sender.EdgeHit, sender.EdgeChecked)
	}
	// What the reader got per second is what the window lets through per round trip, less what an
	// emulated machine takes for itself.
	rate, most := float64(got)/took.Seconds(), float64(reader.Window.Max)/(float64(sender.Back.MinUS)/1e6)
	if rate > 1.1*most || rate < most/4 {
		t.Errorf("%.0f bytes per second came; a window of %d lets %.0f through", rate, reader.Window.Max, most)
	}
	sender, _ = o.flow(t, bulk)
	if sender.Back == nil || sender.EdgeChecked == 0 || sender.EdgeHit*2 > sender.EdgeChecked || sender.RTT.SmoothedMaxUS > sender.Back.SmoothedMaxUS/2 {
		t.Errorf("the bulk transfer: %+v", sender)
	}
	o.checkFindings(t, "receive-window-small "+name(b.tunnel.AtoB[0].SPI), "inner-rtt-growth "+name(b.tunnel.AtoB[1].SPI))
	o.checkSelf(t)
}

// TestInnerTransport protects TCP in transport mode, which decapsulates elsewhere in the kernel: every
// byte is seen, in the right SA, and nothing is found.
func TestInnerTransport(t *testing.T) {
	tunnel.Need(t)
	const bytes = 100 << 10
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("v%d", family), func(t *testing.T) {
			b := openPrepared(t, tunnel.Options{Family: family, Mode: tunnel.TransportMode}, protectTCP, nil)
			c := b.connect(0, 5001, 0)
			b.must(c.Write(bytes))
			b.must(c.Await(bytes, patience))
			o := b.finish()
			sender, reader := o.flow(t, c)
			diff(t, "payload, repeated, bytes back", []int64{bytes, 0, 0}, []int64{sender.Payload, sender.Retransmissions, reader.Payload})
			if sender.SA == nil || reader.SA == nil {
				t.Fatalf("no SA carries the connection: %+v, %+v", sender, reader)
			}
			diff(t, "SAs there and back", []string{name(b.tunnel.AtoB[0].SPI), "in", name(b.tunnel.BtoA[0].SPI), "out"},
				[]string{sender.SA.SPI, sender.SA.Direction, reader.SA.SPI, reader.SA.Direction})
			// Each packet of the SAs is a segment of this connection.
			in, out := o.find(t, b.tunnel.AtoB[0].SPI, "in"), o.find(t, b.tunnel.BtoA[0].SPI, "out")
			diff(t, "packets of the SAs, and of the connection", []int64{*in.Ledger.Decapsulated, *out.Ledger.Encapsulated}, []int64{sender.Packets, reader.Packets})
			o.checkFindings(t)
			o.checkSelf(t)
		})
	}
}

// protectTCP adds policies for TCP to a tunnel in transport mode, whose own are for UDP.
func protectTCP(u *tunnel.Tunnel) error {
	for _, g := range []*tunnel.Gateway{u.A, u.B} {
		var lines []string
		for _, sa := range []tunnel.SA{u.AtoB[0], u.BtoA[0]} {
			dir := "in"
			if sa.From == g {
				dir = "out"
			}
			lines = append(lines, fmt.Sprintf("xfrm policy add src %s dst %s proto 6 dir %s tmpl src %s dst %s proto esp reqid %d mode transport",
				sa.Src, sa.Dst, dir, sa.From.Outer, sa.To.Outer, sa.ReqID))
		}
		if err := g.IP(lines...); err != nil {
			return err
		}
	}
	return nil
}
