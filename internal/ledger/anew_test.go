// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"net/netip"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// TestCountedAnew: a peer that the sources let go of for want of room and met again counts from zero, and nothing
// falls below it. IKE SAs of two peers may have one SPI.
func TestCountedAnew(t *testing.T) {
	here, peer, other := addrPort(ledgertest.Here), addrPort(ledgertest.Peer), netip.MustParseAddrPort("192.0.2.77:500")
	account := func(first time.Duration, sent, exchanges int64) *ledger.IKE {
		at := ledgertest.Start.Add(first)
		sa := func(remote netip.AddrPort, first time.Time, exchanges int64) ledger.IKESA {
			return ledger.IKESA{InitiatorSPI: 7, Local: here, Remote: remote, First: first, Last: at.Add(time.Minute), Exchanges: exchanges}
		}
		return &ledger.IKE{
			Peers: []ledger.IKEPeer{{Local: here, Remote: peer, Sent: sent, First: at, Exchanges: []ledger.IKEExchanges{
				{Exchange: "INFORMATIONAL", Version: 2, Requester: ledger.Local, Count: exchanges, Answered: exchanges}}}},
			SAs: []ledger.IKESA{sa(peer, at, exchanges), sa(other, ledgertest.Start, 100)},
		}
	}
	gone := func(sent, exchanges int64) *ledger.IKEGone {
		return &ledger.IKEGone{Sent: sent, Exchanges: []ledger.IKEExchanges{
			{Exchange: "INFORMATIONAL", Version: 2, Requester: ledger.Local, Count: exchanges, Answered: exchanges}}}
	}
	nat := func(in, beats uint64) *ledger.NATReading {
		return &ledger.NATReading{
			Peers:      []ledger.PeerReading{{Local: ledgertest.Here, Remote: ledgertest.Peer, In: in}},
			Keepalives: []ledger.KeepaliveReading{{Src: peer, Dst: here, Direction: ledger.In, Packets: beats}},
		}
	}
	w := ledgertest.New()
	sa := w.Inbound(1, 32, false)
	sa.Wire.Encap, sa.Entry.Encap = ledger.EncapUDP, ledger.EncapUDP
	sa.Deliver(1)
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	for _, step := range []struct {
		ike  *ledger.IKE
		nat  *ledger.NATReading
		gone *ledger.IKEGone // the second time the 50 messages of before are among it, too
	}{{account(0, 50, 20), nat(400, 30), gone(7, 7)}, {account(10*time.Second, 3, 2), nat(5, 4), gone(67, 32)}} {
		s := w.Snapshot()
		s.IKE, s.NAT = step.ike, step.nat
		s.IKE.Gone = step.gone
		l.Observe(s)
		w.Tick(10 * time.Second)
	}
	r := l.Report()
	if g := r.IKE.Gone; g == nil || g.Sent != 10 || len(g.Exchanges) != 1 || g.Exchanges[0].Count != 5 {
		t.Errorf("what was given up counted meanwhile: %+v", g)
	}
	if p := r.IKE.Peers; len(p) != 1 || p[0].Sent != 3 || p[0].Exchanges[0].Count != 2 || p[0].Exchanges[0].Answered != 2 {
		t.Errorf("peers: %+v", p)
	}
	for i, want := range []int64{2, 0} {
		if got := r.IKE.SAs[i].Exchanges; got != want {
			t.Errorf("IKE SA with %s: %d exchanges, want %d", r.IKE.SAs[i].Remote, got, want)
		}
	}
	if p := r.NAT.Peers; len(p) != 1 || p[0].InPackets != 5 || p[0].KeepalivesIn == nil || p[0].KeepalivesIn.Count != 4 {
		t.Errorf("NAT: %+v", p)
	}
}
