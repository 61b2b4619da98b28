// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// quietRun is traffic of one kind through a tunnel without faults.
type quietRun struct {
	name    string
	options tunnel.Options
	run     func(b *bench)
	least   int // packets that each way at least has to have carried; 0 where there is none
}

// quiet are ten kinds of healthy traffic. The eleventh, rekeying under load, is TestStrongSwan's.
var quiet = []quietRun{
	{"bulk TCP", tunnel.Options{}, func(b *bench) { b.stream(1 << 20) }, 200},
	{"bulk TCP between hosts", tunnel.Options{Hosts: true}, func(b *bench) { b.fitHosts(); b.stream(512 << 10) }, 100},
	{"bulk TCP over IPv6 under ESN", tunnel.Options{Family: 6, ESN: true}, func(b *bench) { b.stream(512 << 10) }, 100},
	{"bulk TCP in UDP", tunnel.Options{UDP: true}, func(b *bench) { b.stream(512 << 10) }, 100},
	{"many flows", tunnel.Options{Pairs: 3}, func(b *bench) { b.manyFlows(20, 5) }, 100},
	{"bidirectional", tunnel.Options{}, func(b *bench) { b.bothWays(400) }, 400},
	{"bidirectional in transport mode", tunnel.Options{Mode: tunnel.TransportMode}, func(b *bench) { b.bothWays(200) }, 200},
	{"small packets", tunnel.Options{}, func(b *bench) { b.smallPackets(400) }, 400},
	{"fragments beside the tunnel", tunnel.Options{}, func(b *bench) { b.bothWays(100); b.fragments(30) }, 100},
	{"idle", tunnel.Options{}, func(*bench) { time.Sleep(4 * time.Second) }, 0},
}

// TestCleanTraffic gives xfrmscope nothing to find: it has to find nothing, of any severity, and to
// account for every packet.
func TestCleanTraffic(t *testing.T) {
	tunnel.Need(t)
	for _, q := range quiet {
		t.Run(q.name, func(t *testing.T) {
			b := open(t, q.options, nil)
			q.run(b)
			o := b.finish()
			for i := range b.tunnel.AtoB {
				there, back := b.tunnel.AtoB[i].SPI, b.tunnel.BtoA[i].SPI
				b.checkCarried(o.find(t, there, "in"), b.path.Truth(inject.AtoB, there))
				b.checkOut(o, back, int64(len(b.path.Truth(inject.BtoA, back).In)))
				b.checkClean(there, back, q.least)
			}
			b.checkStat(o, nil)
			o.checkSelf(t)
			o.checkFindings(t)
		})
	}
}

// checkClean makes sure that the run was what it is meant to be: enough packets, all in order.
func (b *bench) checkClean(there, back uint32, least int) {
	b.t.Helper()
	for d, spi := range map[inject.Direction]uint32{inject.AtoB: there, inject.BtoA: back} {
		truth := b.path.Truth(d, spi)
		if w := truth.Wire(); truth.Lost() != 0 || w.Late != 0 || w.Duplicates != 0 || len(truth.In) < least {
			b.t.Errorf("invalid run: SA %s carried %d packets, at least %d were meant, and lost %d: %+v",
				name(spi), len(truth.In), least, truth.Lost(), w)
		}
	}
}

// ends are those of a connection through the first SA pair.
func (b *bench) ends(from, to *tunnel.Gateway, port uint16) traffic.Ends {
	return traffic.Ends{From: from.Inside().Do, To: to.Inside().Do, Src: from.Inner[0], Dst: to.Inner[0], Port: port}
}

// fitHosts gives hosts an MTU that fits through the tunnel: what they would have to learn first costs packets.
func (b *bench) fitHosts() {
	b.t.Helper()
	for _, g := range []*tunnel.Gateway{b.tunnel.A, b.tunnel.B} {
		b.must(g.Host.IP(fmt.Sprintf("link set %s mtu %d", tunnel.LAN, innerMTU)))
	}
}

// stream sends bytes over TCP, first from A to B, then back.
func (b *bench) stream(bytes int64) {
	b.t.Helper()
	if err := errors.Join(
		traffic.Stream(b.ends(b.tunnel.A, b.tunnel.B, 5001), bytes),
		traffic.Stream(b.ends(b.tunnel.B, b.tunnel.A, 5001), bytes),
	); err != nil {
		b.t.Fatal(err)
	}
}

// manyFlows sends a few datagrams of each of many connections through every SA, in turn.
func (b *bench) manyFlows(flows, each int) {
	b.t.Helper()
	var all []*traffic.Flow
	for _, s := range append(append([]tunnel.SA{}, b.tunnel.AtoB...), b.tunnel.BtoA...) {
		for i := range flows {
			f, err := traffic.Open(traffic.Ends{From: s.From.Do, To: s.To.Do, Src: s.Src, Dst: s.Dst, Port: tunnel.Port + 1 + uint16(i)})
			if err != nil {
				b.t.Fatal(err)
			}
			b.closing("flow", f.Close)
			all = append(all, f)
		}
	}
	for range each {
		for _, f := range all {
			if err := f.Send(1, pace); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	b.settle()
	for _, f := range all {
		if distinct, repeated := f.Delivered(); distinct != each || repeated != 0 {
			b.t.Errorf("a flow of %d datagrams delivered %d, and %d twice", each, distinct, repeated)
		}
	}
}

// bothWays sends packets from both ends in turn.
func (b *bench) bothWays(packets int) {
	b.t.Helper()
	for range packets {
		b.send(b.tunnel.AtoB[0], 1)
		b.send(b.tunnel.BtoA[0], 1)
	}
}

// smallPackets sends the smallest datagrams that the lab can number, both ways.
func (b *bench) smallPackets(packets int) {
	b.t.Helper()
	for _, s := range []tunnel.SA{b.tunnel.AtoB[0], b.tunnel.BtoA[0]} {
		f, err := traffic.Open(traffic.Ends{From: s.From.Do, To: s.To.Do, Src: s.Src, Dst: s.Dst, Port: tunnel.Port + 1, Size: 8})
		if err != nil {
			b.t.Fatal(err)
		}
		b.closing("flow", f.Close)
		if err := f.Send(packets, pace); err != nil {
			b.t.Fatal(err)
		}
	}
}

// fragments sends datagrams that are too large for the link from gateway to gateway, beside the tunnel.
func (b *bench) fragments(count int) {
	b.t.Helper()
	to := netip.AddrPortFrom(b.tunnel.B.Outer, 9300)
	arrived := b.listen(to.Addr(), to.Port())
	b.must(b.tunnel.A.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		for range count {
			if _, err := conn.Write(make([]byte, 3000)); err != nil {
				return errors.Join(err, conn.Close())
			}
			time.Sleep(pace)
		}
		return conn.Close()
	}))
	b.settle()
	if got := arrived(); got != count {
		b.t.Errorf("invalid run: %d datagrams in fragments arrived, want %d", got, count)
	}
}
