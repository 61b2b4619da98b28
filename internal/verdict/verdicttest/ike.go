// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// ask sends a request three times, as a daemon does that gets no answer.
func ask(w *ledgertest.World, t *ledgertest.Talk, by ledger.End, typ ike.Exchange, id uint32) {
	for range 3 {
		t.Ask(by, typ, id)
		w.Tick(4 * time.Second)
	}
}

// tunnelWorld prepares both directions of a tunnel that an IKE daemon keeps.
func tunnelWorld(happen func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		in, out, t := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02), w.IKE(0xa1)
		w.Packets = map[ledger.Direction]map[string]uint64{ledger.Out: {"not_ipsec": 0}}
		return func() { w.Packets[ledger.Out]["not_ipsec"] = 7; happen(w, in, out, t) }
	}
}

// counting makes an SA that has used many numbers, and uses more.
func counting(used, more uint64, limit time.Duration, esn bool) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		out := w.Outbound(0xc0ffee02)
		out.Entry.OSeq, out.Entry.ESN = used, esn
		out.Entry.Lifetimes.SoftAdd = limit
		return func() { out.Send(more) }
	}
}

// limited makes many tunnels, the soft limits of which are apart by some time.
func limited(tunnels int, apart time.Duration) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		for i := range tunnels {
			in, out := w.Inbound(ledger.SPI(0x1000+i), 32, false), w.Outbound(ledger.SPI(0x2000+i))
			for _, sa := range []*ledgertest.SA{in, out} {
				sa.Entry.ReqID = uint32(1 + i)
				sa.Entry.Lifetimes.SoftAdd = time.Hour + time.Duration(i)*apart
			}
		}
		return func() {}
	}
}

// ikeScenarios are faults of negotiation and succession, and what looks like one.
var ikeScenarios = []Scenario{
	{Name: "IKE set up, watched, renewed", Prepare: func(w *ledgertest.World) func() {
		t := w.IKE(0xa1)
		return func() {
			for id, typ := range []ike.Exchange{ike.SAInit, ike.Auth, ike.Informational, ike.CreateChild} {
				t.Exchange(typ, uint32(id))
			}
			in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
			in.Deliver(10)
			out.Send(10)
		}
	}},
	{Name: "IKE peer dead", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		out.Send(10)
		ask(w, t, ledger.Local, ike.Informational, 7)
	}), Want: []verdict.ID{verdict.IKEUnanswered}, Grade: verdict.Critical, Sure: 0.95,
		Says: []string{"192.0.2.2:500 -> 192.0.2.1:500: INFORMATIONAL got no answer from the peer (3 messages sent", "Nothing came from it at all"}},
	{Name: "IKE peer silent, its ESP not", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		out.Send(10)
		ask(w, t, ledger.Local, ike.Informational, 7)
		in.Deliver(50)
	}), Want: []verdict.ID{verdict.IKEUnanswered}, Grade: verdict.Critical, Sure: 0.95, Says: []string{"Its ESP arrives"}},
	{Name: "IKE peer died, with its ESP", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(50)
		t.Exchange(ike.Informational, 6)
		ask(w, t, ledger.Local, ike.Informational, 7)
	}), Want: []verdict.ID{verdict.IKEUnanswered}, Grade: verdict.Critical, Sure: 0.95, Says: []string{"it went away in the meantime"}},
	{Name: "this host does not answer IKE", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(50)
		ask(w, t, ledger.Remote, ike.Informational, 7)
	}), Want: []verdict.ID{verdict.IKEUnanswered}, Grade: verdict.Critical, Sure: 0.76,
		Says: []string{"192.0.2.1:500 -> 192.0.2.2:500", "no answer from this host", "a firewall on this host"}},
	{Name: "a firewall here keeps IKE from being answered", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(50)
		ask(w, t, ledger.Remote, ike.Informational, 7)
		w.Discard(3, droppedIKE(ledgertest.Peer, ledgertest.Here, ledger.In, "nf_hook_slow", netfilterDrop, "input"))
	}), Want: []verdict.ID{verdict.FirewallDrop}, Folded: []verdict.ID{verdict.IKEUnanswered}, Grade: verdict.Critical, Sure: 0.95,
		Says: []string{"IKE messages from 192.0.2.1"}},
	{Name: "a firewall here drops ESP, and the peer's IKE is silent", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(500)
		in.Stop(5, "nf_hook_slow", netfilterDrop, "input")
		ask(w, t, ledger.Local, ike.Informational, 7)
	}), Want: []verdict.ID{verdict.IKEUnanswered, verdict.FirewallDrop}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "what leaves is not seen", Prepare: func(w *ledgertest.World) func() {
		t := w.IKE(0xa1)
		return func() { ask(w, t, ledger.Remote, ike.Informational, 7) }
	}},
	{Name: "a stranger knocks", Prepare: func(w *ledgertest.World) func() {
		t := w.IKE(0xa1)
		t.Peer = netip.MustParseAddrPort("203.0.113.9:500")
		w.Packets = map[ledger.Direction]map[string]uint64{ledger.Out: {"not_ipsec": 0}}
		return func() { w.Packets[ledger.Out]["not_ipsec"] = 7; ask(w, t, ledger.Remote, ike.SAInit, 0) }
	}, Want: []verdict.ID{verdict.IKEUnanswered}, Grade: verdict.Info, Sure: 0.76, Says: []string{"1 address, with which this host has no SA"}},
	{Name: "strangers knock", Prepare: func(w *ledgertest.World) func() {
		w.Packets = map[ledger.Direction]map[string]uint64{ledger.Out: {"not_ipsec": 0}}
		return func() {
			w.Packets[ledger.Out]["not_ipsec"] = 7
			for i := range 200 {
				t := w.IKE(uint64(i + 1))
				t.Peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 500)
				ask(w, t, ledger.Remote, ike.SAInit, 0)
			}
		}
	}, Want: []verdict.ID{verdict.IKEUnanswered}, Grade: verdict.Info, Sure: 0.76, Says: []string{"200 addresses", "(600 messages)"}},
	{Name: "asked a moment before the end", Prepare: func(w *ledgertest.World) func() {
		t := w.IKE(0xa1)
		return func() { w.Tick(-25 * time.Second); t.Exchange(ike.CreateChild, 2); w.Tick(24 * time.Second) }
	}},
	{Name: "IKE request repeated once", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		t.Ask(ledger.Local, ike.CreateChild, 3)
		w.Tick(4 * time.Second)
		t.Exchange(ike.CreateChild, 3)
	}), Want: []verdict.ID{verdict.IKERetransmissions}, Grade: verdict.Info, Sure: 0.95,
		Says: []string{"CREATE_CHILD_SA had to be sent again (once in all)", "after 4.02s", "got lost on the way there, or its answer on the way back"}},
	{Name: "IKE request repeated until it got through", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		ask(w, t, ledger.Local, ike.CreateChild, 3)
		t.Exchange(ike.CreateChild, 3)
	}), Want: []verdict.ID{verdict.IKERetransmissions}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "our IKE answers get lost", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		for range 3 {
			t.Ask(ledger.Remote, ike.CreateChild, 3)
			w.Tick(10 * time.Millisecond)
			t.Answer(ledger.Local, ike.CreateChild, 3)
			w.Tick(4 * time.Second)
		}
	}), Want: []verdict.ID{verdict.IKERetransmissions}, Grade: verdict.Warning, Sure: 0.95, Says: []string{"its answer got lost on the way back"}},
	{Name: "rekey not answered, SA gone", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(100)
		in.SoftExpire()
		ask(w, t, ledger.Local, ike.CreateChild, 3)
		in.End(ledger.EndExpired)
		in.Knock(30)
	}), Want: []verdict.ID{verdict.IKEUnanswered}, Folded: []verdict.ID{verdict.RekeyFailed, verdict.SAExpired, verdict.SPIUnknown},
		Grade: verdict.Critical, Sure: 0.95, Says: []string{"CREATE_CHILD_SA got no answer"}},
	{Name: "rekey refused", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(100)
		in.SoftExpire()
		t.Exchange(ike.CreateChild, 3)
		w.Tick(5 * time.Second)
		in.End(ledger.EndExpired)
	}), Want: []verdict.ID{verdict.RekeyFailed}, Grade: verdict.Critical, Sure: 0.76,
		Says: []string{"asked for a successor at 03:00:00 UTC, was hard-expired at 03:00:05 UTC", "NO_PROPOSAL_CHOSEN"}},
	{Name: "rekeyed in time", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(100)
		in.SoftExpire()
		t.Exchange(ike.CreateChild, 3)
		w.Tick(time.Second)
		next := w.Inbound(0xc0ffee03, 32, false).Announce()
		next.Deliver(50)
		w.Tick(2 * time.Second)
		in.End(ledger.EndDeleted)
	})},
	{Name: "soft-expired by hand-made limits", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(10); sa.SoftExpire(); sa.End(ledger.EndExpired) })},
	{Name: "old SA deleted too early", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(100)
		w.Tick(time.Second)
		next := w.Inbound(0xc0ffee03, 32, false).Announce()
		w.Tick(time.Second)
		in.End(ledger.EndDeleted)
		w.Tick(1500 * time.Millisecond)
		in.Knock(9)
		next.Deliver(50)
	}), Want: []verdict.ID{verdict.RekeyGap}, Folded: []verdict.ID{verdict.SPIUnknown}, Grade: verdict.Warning, Sure: 0.95,
		Says: []string{"Rekeying from 0xc0ffee01 to 0xc0ffee03", "9 packets were refused within 1.50 s", "the old SA was deleted at 03:00:02.000 UTC"}},
	{Name: "new SA used too early", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(100)
		w.Tick(time.Second)
		next := w.Inbound(0xc0ffee03, 32, false)
		next.Knock(4)
		w.Tick(500 * time.Millisecond)
		next.Entry.Added = w.Now()
		next.Announce().Deliver(50)
		w.Tick(time.Second)
		in.End(ledger.EndDeleted)
	}), Want: []verdict.ID{verdict.RekeyGap}, Folded: []verdict.ID{verdict.SPIUnknown}, Grade: verdict.Warning, Sure: 0.95,
		Says: []string{"4 packets were refused within 0.50 s", "after the peer had begun to send on it"}},
	{Name: "reauthentication breaks before it makes", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		out.Send(100)
		w.Tick(time.Second)
		out.End(ledger.EndDeleted)
		w.DropLone(14, ledger.OutNoStates)
		w.Tick(700 * time.Millisecond)
		w.Outbound(0xc0ffee04).Announce().Send(50)
	}), Want: []verdict.ID{verdict.RekeyGap}, Folded: []verdict.ID{verdict.OutboundNoSA}, Grade: verdict.Warning, Sure: 0.8,
		Says: []string{"broke before it made: for 0.70 s there was no outbound SA, and 14 packets"}},
	{Name: "an idle SA ends, and the next one comes on demand", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		out.Send(100)
		w.Tick(8 * time.Second)
		out.End(ledger.EndDeleted)
		w.DropLone(2, ledger.OutNoStates)
		w.Tick(700 * time.Millisecond)
		w.Outbound(0xc0ffee04).Announce().Send(50)
	}), Want: []verdict.ID{verdict.OutboundNoSA}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "make before break", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		out.Send(100)
		w.Tick(time.Second)
		w.Outbound(0xc0ffee04).Announce().Send(50)
		w.Tick(time.Second)
		out.End(ledger.EndDeleted)
	})},
	{Name: "another tunnel beside a deleted one", Prepare: tunnelWorld(func(w *ledgertest.World, in, out *ledgertest.SA, t *ledgertest.Talk) {
		in.Deliver(100)
		w.Tick(time.Second)
		other := w.Inbound(0xc0ffee03, 32, false).Announce()
		other.Entry.ReqID = 2
		in.End(ledger.EndDeleted)
		in.Knock(9)
		other.Deliver(50)
	}), Want: []verdict.ID{verdict.SPIUnknown}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "25 tunnels due together", Prepare: limited(25, 2*time.Second), Want: []verdict.ID{verdict.RekeyStormAhead}, Grade: verdict.Info, Sure: 0.95,
		Says: []string{"25 tunnels of 25", "from 04:00:00 UTC on (in 59m30s)"}},
	{Name: "120 tunnels due together", Prepare: limited(120, 0), Want: []verdict.ID{verdict.RekeyStormAhead}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "120 tunnels due one after the other", Prepare: limited(120, 10*time.Second)},
	{Name: "sequence numbers nearly used up", Prepare: counting(4_294_000_000, 60_000, 0, false), Want: []verdict.ID{verdict.SequenceExhaustionAhead},
		Grade: verdict.Warning, Sure: 0.95, Says: []string{"907295 of 2^32 left", "2000 packets per second, they last for 7m34s"}},
	{Name: "sequence numbers used up within minutes", Prepare: counting(4_294_700_000, 60_000, 0, false), Want: []verdict.ID{verdict.SequenceExhaustionAhead},
		Grade: verdict.Critical, Sure: 0.95},
	{Name: "sequence numbers used up, but due to be renewed before", Prepare: counting(4_294_000_000, 60_000, 2*time.Minute, false)},
	{Name: "sequence numbers of 64 bits", Prepare: counting(4_294_000_000, 60_000, 0, true)},
	{Name: "busy and far from the end", Prepare: counting(1_000_000, 60_000, 0, false)},
	{Name: "sequence numbers used up", Prepare: func(w *ledgertest.World) func() {
		out := w.Outbound(0xc0ffee02)
		out.Entry.OSeq = 1<<32 - 1
		return func() { out.Drop(12, ledger.OutSeqError) }
	}, Want: []verdict.ID{verdict.SequenceExhausted}, Grade: verdict.Critical, Sure: 0.99, Says: []string{"12 packets were refused"}},
}
