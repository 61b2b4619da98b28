// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// outside is the port that a NAT gives gateway A.
const outside = 60000

// peer is the only gateway that the report has in UDP.
func (o observation) peer(t *testing.T) natPeer {
	t.Helper()
	if len(o.report.NAT.Peers) != 1 {
		t.Fatalf("the report has %d peers in UDP, want one", len(o.report.NAT.Peers))
	}
	return o.report.NAT.Peers[0]
}

// TestNATMappingChanged gives gateway A another port in mid-run. B goes on sending to the old one, where
// the NAT drops everything.
func TestNATMappingChanged(t *testing.T) {
	tunnel.Need(t)
	const moved = 61000
	b := open(t, tunnel.Options{UDP: true, OutsidePortA: outside}, nil)
	s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	b.path.Translate(outside)
	b.send(s, 100)
	b.send(back, 50)
	b.settle()
	b.path.Translate(moved)
	b.send(s, 60)
	b.settle()
	time.Sleep(time.Second) // far more than the resolution of the last packet's time
	b.send(back, 40)
	o := b.finish()
	truth := b.path.Truth(inject.BtoA, back.SPI)
	diff(t, "datagrams that the NAT dropped", 40, truth.Dropped)
	b.checkIn(o, s, map[string]int64{})
	b.checkOut(o, back.SPI, 90)
	diff(t, "peer", natPeer{InPort: moved, OutPort: outside, Translated: true, InPackets: 160, OutPackets: 90, OutSinceIn: 40, SinceQuiet: 40, Moves: 1}, o.peer(t))
	o.checkFindings(t, "nat-mapping-changed "+name(s.SPI))
	o.says(t, "nat-mapping-changed", s.SPI, "192.0.2.1:61000", "before they came from 192.0.2.1:60000",
		"still sends SA "+name(back.SPI)+" to port 60000")
	o.checkSelf(t)
}

// TestNATSilence lets a NAT forget gateway A, which sends no keepalives, during a silence that A spends
// beside a twin that sends some: there nothing is wrong.
func TestNATSilence(t *testing.T) {
	tunnel.Need(t)
	lost, twin := open(t, tunnel.Options{UDP: true, OutsidePortA: outside}, nil), open(t, tunnel.Options{UDP: true, OutsidePortA: outside}, nil)
	for _, b := range []*bench{lost, twin} {
		b.path.Translate(outside)
		b.send(b.tunnel.AtoB[0], 40)
		b.send(b.tunnel.BtoA[0], 20)
		b.settle()
	}
	lost.path.Forget()
	keepalive := inject.Crafted{SrcMAC: twin.tunnel.A.MAC, DstMAC: twin.tunnel.B.MAC, Src: twin.tunnel.A.Outer, Dst: twin.tunnel.B.Outer}
	for range 3 {
		time.Sleep(11 * time.Second)
		twin.path.SendKeepalive(keepalive)
	}
	const after = 26
	for _, b := range []*bench{lost, twin} {
		// Over more than the five seconds without an answer that a verdict waits for.
		if err := b.flows[b.tunnel.BtoA[0].SPI].Send(after/2, 2*pace); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(6 * time.Second)
	for _, b := range []*bench{lost, twin} {
		b.send(b.tunnel.BtoA[0], after/2)
	}
	o, clean := lost.finish(), twin.finish()

	back := lost.tunnel.BtoA[0]
	diff(t, "datagrams that the NAT dropped", after, lost.path.Truth(inject.BtoA, back.SPI).Dropped)
	lost.checkOut(o, back.SPI, 20+after)
	// B's first packets went out after A's last, or in the same sample: the figures cannot tell which.
	peer := o.peer(t)
	if peer.OutSinceIn < after || peer.OutSinceIn > 20+after {
		t.Errorf("sent since A was heard: %d, want %d to %d", peer.OutSinceIn, after, 20+after)
	}
	peer.OutSinceIn = 0
	diff(t, "peer", natPeer{InPort: outside, OutPort: outside, Translated: true, InPackets: 40, OutPackets: 20 + after, SinceQuiet: after}, peer)
	o.checkFindings(t, "nat-keepalive-missing")
	diff(t, "explains", []string{"nat-binding-lost"}, o.report.Findings[0].Folded)
	o.checkSelf(t)

	twin.t = t
	diff(t, "datagrams that arrived", 20+after, len(twin.path.Truth(inject.BtoA, twin.tunnel.BtoA[0].SPI).Out))
	if p := clean.peer(t); p.KeepalivesIn == nil || p.KeepalivesIn.Count != 3 {
		t.Errorf("the twin's keepalives: %+v, want 3", p.KeepalivesIn)
	}
	clean.checkFindings(t)
	clean.checkSelf(t)
}

// TestOneWay cuts the way back to gateway B, while a connection inside waits for an answer. Beside it
// gateway B sends datagrams that nobody answers through a tunnel with nothing wrong, and is heard as little.
func TestOneWay(t *testing.T) {
	tunnel.Need(t)
	const few, datagrams = 5, 40
	cut := raise(t, tunnel.Options{}, func(*tunnel.Tunnel) error { return nil }, nil)
	twin := raise(t, tunnel.Options{}, func(*tunnel.Tunnel) error { return nil }, nil)
	c, err := traffic.OpenTCP(traffic.TCPEnds{From: cut.tunnel.B.Do, To: cut.tunnel.A.Do, Src: cut.tunnel.B.Inner[0], Dst: cut.tunnel.A.Inner[0], Port: 5001})
	cut.must(err)
	cut.closing("connection", c.Close)
	cut.settle()
	cut.path.Block(inject.AtoB, true)
	for _, b := range []*bench{cut, twin} {
		b.tool = startTool(t, b.tunnel.B)
	}
	back := cut.tunnel.BtoA[0]
	sent := func() int { return len(cut.path.Truth(inject.BtoA, back.SPI).In) }
	before := sent()
	cut.must(c.Write(10 << 10)) // which the first window holds
	cut.must(swan.Until("segments on the way to A", func() (bool, error) { return sent()-before >= few, nil }))
	twin.send(twin.tunnel.BtoA[0], datagrams)
	o, clean := cut.finish(), twin.finish()

	// The connection goes on repeating, and the report ends some time.
	out := o.find(t, back.SPI, "out").Ledger
	told := value(out.OnWire)
	if told < few || told > int64(sent()-before) {
		t.Errorf("the report has %d packets on the wire, the path %d so far", told, sent()-before)
	}
	diff(t, "encapsulated, unattributed", []int64{told, 0}, values(out.Encapsulated, out.Unattributed))
	diff(t, "packets of A's before the way back was cut", 1, len(cut.path.Truth(inject.AtoB, cut.tunnel.AtoB[0].SPI).Out))
	o.checkFindings(t, "one-way-traffic")
	o.checkSays(t, "one-way-traffic", fmt.Sprintf("sent %d packets of ESP to %s and received none", told, cut.tunnel.A.Outer))
	o.checkSelf(t)

	twin.t = t
	twin.checkOut(clean, twin.tunnel.BtoA[0].SPI, datagrams)
	clean.checkFindings(t)
	clean.checkSelf(t)
}
