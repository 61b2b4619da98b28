// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// ikeFrame is an IKE message as it stands on the wire, built by another implementation than the one
// that reads it here.
func ikeFrame(t *testing.T, port uint16, exchange, flags byte, id byte) []byte {
	t.Helper()
	body := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 46, 0x20, exchange, flags, 0, 0, 0, id, 0, 0, 0, 28}
	if port == encapPort {
		body = append(make([]byte, markerLen), body...)
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}
	udp := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: layers.UDPPort(port)}
	check(t, udp.SetNetworkLayerForChecksum(ip))
	buf := gopacket.NewSerializeBuffer()
	check(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
		ip, udp, gopacket.Payload(body)))
	return buf.Bytes()
}

func TestParseIKE(t *testing.T) {
	for _, port := range []uint16{ikePort, encapPort} {
		got, ok := parseIKE(ikeFrame(t, port, CreateChildSA, ikeResponse|ikeInitiator, 7))
		want := Message{Initiator: 0x0102030405060708, Responder: 0x090a0b0c0d0e0f10, ID: 7, Exchange: CreateChildSA, Response: true, FromInitiator: true}
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("port %d: %v (-want +got):\n%s", port, ok, diff)
		}
	}
	for name, frame := range map[string][]byte{
		"ESP":              crafted(4, true).frame(),
		"short":            mutate(ikeFrame(t, ikePort, IKEAuth, 0, 1), func(f []byte) { f[ethLen+3] = 55 }),
		"another port":     ikeFrame(t, 501, IKEAuth, 0, 1),
		"fragment":         mutate(ikeFrame(t, ikePort, IKEAuth, 0, 1), func(f []byte) { f[ethLen+6] = 0x20 }),
		"TCP":              mutate(ikeFrame(t, ikePort, IKEAuth, 0, 1), func(f []byte) { f[ethLen+9] = 6 }),
		"header of no IP":  ikeFrame(t, ikePort, IKEAuth, 0, 1)[:ethLen+10],
		"marker not there": mutate(ikeFrame(t, encapPort, IKEAuth, 0, 1), func(f []byte) { f[ethLen+28] = 1 }),
	} {
		if m, ok := parseIKE(frame); ok {
			t.Errorf("%s: parseIKE = %+v, want none", name, m)
		}
	}
}

// arrivals counts the IKE messages that come out at a port until nothing has come for a while.
func arrivals(t *testing.T, p *port) (ids []uint32) {
	t.Helper()
	buf := make([]byte, maxFrameBytes)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 300)
		if err == unix.EINTR {
			continue
		}
		check(t, err)
		if n == 0 {
			return ids
		}
		size, err := p.receive(buf)
		check(t, err)
		if m, ok := parseIKE(buf[:size]); ok {
			ids = append(ids, m.ID)
		}
	}
}

func TestControlDecidesAboutMessages(t *testing.T) {
	w := openWires(t)
	check(t, w.in.Control(
		Control{Exchange: CreateChildSA, Kind: Request, First: 2, Count: 2},
		Control{Exchange: Informational, Action: Duplicate, Count: 1},
		Control{Exchange: IKEAuth, Kind: Response, Action: Hold, Count: 1},
	))
	send := func(exchange, flags, id byte) { check(t, w.a.send(ikeFrame(t, encapPort, exchange, flags, id))) }
	send(CreateChildSA, 0, 1)
	send(CreateChildSA, ikeResponse, 2)
	send(CreateChildSA, 0, 3) // dropped
	send(CreateChildSA, 0, 3) // dropped
	send(CreateChildSA, 0, 3)
	send(Informational, 0, 4) // twice
	send(Informational, 0, 5)
	send(IKEAuth, 0, 6)
	send(IKEAuth, ikeResponse, 7) // held
	if diff := cmp.Diff([]uint32{1, 2, 3, 4, 4, 5, 6}, arrivals(t, w.b)); diff != "" {
		t.Errorf("before the release (-want +got):\n%s", diff)
	}
	w.in.Release()
	if diff := cmp.Diff([]uint32{7}, arrivals(t, w.b)); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
	want := []Message{
		{ID: 1, Exchange: CreateChildSA}, {ID: 2, Exchange: CreateChildSA, Response: true},
		{ID: 3, Exchange: CreateChildSA, Dropped: true}, {ID: 3, Exchange: CreateChildSA, Dropped: true, Again: 1},
		{ID: 3, Exchange: CreateChildSA, Again: 2}, {ID: 4, Exchange: Informational, Copies: 1}, {ID: 5, Exchange: Informational},
		{ID: 6, Exchange: IKEAuth}, {ID: 7, Exchange: IKEAuth, Response: true, Held: true},
	}
	if diff := cmp.Diff(want, w.in.Messages(), cmpopts.IgnoreFields(Message{}, "At", "Initiator", "Responder")); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
	if n := w.in.Others(AtoB); n != 0 {
		t.Errorf("%d other frames, all were IKE", n)
	}
	check(t, w.in.Close())
}

func TestBlockDropsEverything(t *testing.T) {
	w := openWires(t)
	w.in.Block(AtoB, true)
	check(t, w.b.send(ikeFrame(t, ikePort, IKESAInit, ikeResponse, 0)))
	if diff := cmp.Diff([]uint32{0}, arrivals(t, w.a)); diff != "" {
		t.Errorf("B to A (-want +got):\n%s", diff)
	}
	check(t, w.a.send(crafted(4, false).frame()))
	check(t, w.a.send(ikeFrame(t, ikePort, IKESAInit, 0, 0)))
	if ids := arrivals(t, w.b); len(ids) != 0 {
		t.Errorf("%d messages passed the block", len(ids))
	}
	w.in.Block(AtoB, false)
	check(t, w.a.send(ikeFrame(t, ikePort, IKESAInit, 0, 0)))
	if diff := cmp.Diff([]uint32{0}, arrivals(t, w.b)); diff != "" {
		t.Errorf("A to B (-want +got):\n%s", diff)
	}
	truth, messages := w.in.Truth(AtoB, 0xdeadbeef), w.in.Messages()
	if truth.Dropped != 1 || len(truth.In) != 1 || len(truth.Out) != 0 {
		t.Errorf("account of the SA: %+v", truth)
	}
	if len(messages) != 3 || messages[0].Dropped || !messages[1].Dropped || messages[2].Dropped || messages[2].Again != 1 {
		t.Errorf("account of the messages: %+v", messages)
	}
	check(t, w.in.Close())
}

func TestControlRefuses(t *testing.T) {
	w := openWires(t)
	for _, c := range []Control{{Direction: 2}, {Action: Corrupt}, {Kind: 3}, {First: -1}} {
		if err := w.in.Control(c); err == nil {
			t.Errorf("Control(%+v) = nil, want an error", c)
		}
	}
	check(t, w.in.Control(Control{Count: 1}))
	if err := w.in.Control(); err == nil {
		t.Error("Control says nothing about an earlier rule that never met its message")
	}
	if err := w.in.Close(); err == nil {
		t.Error("Close says nothing about a rule that never met its message")
	}
}
