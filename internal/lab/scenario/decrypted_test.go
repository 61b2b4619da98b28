// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// TestDecryptedDropped loses packets behind decryption in a way that no rule or route is to blame for: the
// buffer of a socket that nobody reads is full. Beside it a socket that nobody reads and that has room, and
// a port where nobody listens, which is nobody's fault.
func TestDecryptedDropped(t *testing.T) {
	tunnel.Need(t)
	if !kernelSince(t, 5, 11) {
		t.Skip("5.10 gives no reason for a drop, and docs/verdicts/firewall.md says what that costs")
	}
	const each, port, closed = 60, 9500, 9501
	b := open(t, tunnel.Options{Pairs: 3}, nil)
	a, here := b.tunnel.A, b.tunnel.B
	unread := func(pair, buffer int) {
		b.must(here.Do(func() error {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(here.Inner[pair], port)))
			if err == nil {
				b.closing("unread socket", conn.Close)
				err = conn.SetReadBuffer(buffer)
			}
			return err
		}))
	}
	unread(0, 200<<10)
	unread(1, 4<<10)
	before := snmp(t, here.Namespace)
	for pair, to := range []uint16{port, port, closed} {
		b.throw(a, a.Inner[pair], netip.AddrPortFrom(here.Inner[pair], to), each)
	}
	o := b.finish()
	after := snmp(t, here.Namespace)
	full, none := after["Udp.RcvbufErrors"]-before["Udp.RcvbufErrors"], after["Udp.NoPorts"]-before["Udp.NoPorts"]
	if full == 0 || full == each {
		t.Fatalf("invalid run: the socket's buffer refused %d of %d datagrams", full, each)
	}
	diff(t, "datagrams to a port where nobody listens", int64(each), none)
	for pair, dropped := range []int64{0, full, each} {
		in := o.find(t, b.tunnel.AtoB[pair].SPI, "in").Ledger
		diff(t, "arrived, decapsulated, dropped on the inner path, delivered, unattributed of "+name(b.tunnel.AtoB[pair].SPI),
			[]int64{each, each, dropped, each - dropped, 0}, values(in.Arrivals, in.Decapsulated, in.InnerDropped, in.Delivered, in.Unattributed))
	}
	b.checkStat(o, nil)
	spi := func(pair int) string { return name(b.tunnel.AtoB[pair].SPI) }
	o.checkFindings(t, "decrypted-packet-dropped "+spi(1), "decrypted-packet-dropped "+spi(2))
	graded := map[string]string{}
	for _, f := range o.report.Findings {
		graded[f.Subject.SPI] = f.Severity
	}
	diff(t, "severities", map[string]string{spi(1): "critical", spi(2): "info"}, graded)
	if i := slices.IndexFunc(o.report.Drops, func(d drop) bool { return d.Lost && d.Place != "socket" }); i >= 0 {
		t.Errorf("a drop that no socket made: %+v", o.report.Drops[i])
	}
	o.checkSelf(t)
}
