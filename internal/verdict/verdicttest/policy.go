// SPDX-License-Identifier: Apache-2.0

package verdicttest

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

// policyScenarios are what policies refuse, and what they let pass.
var policyScenarios = []Scenario{
	{Name: "policies and traffic that fits them", Prepare: func(w *ledgertest.World) func() {
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		w.Demand("in", in)
		w.Demand("fwd", in)
		w.Demand("out", out)
		return func() { in.Deliver(500); out.Send(500) }
	}},
	{Name: "decrypted by an SA of another reqid", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		w.Policies[0].Templates[0].ReqID = 77
		sa.Deliver(900)
		w.Deny(100, sa, ledgertest.Flow(ledger.TmplMismatch, ledger.SiteDeliver))
	}), Want: []verdict.ID{verdict.PolicyTemplateMismatch}, Says: []string{"100 packets", "policy index 8", "reqid 77 where the SA has 1", "udp dport 9000"},
		Grade: verdict.Critical, Sure: 0.99},
	{Name: "decrypted in another mode from elsewhere", Prepare: refusing("fwd", func(w *ledgertest.World, sa *ledgertest.SA) {
		w.Policies[0].Templates[0].Mode = "beet"
		w.Policies[0].Templates[0].Src = netip.MustParseAddr("203.0.113.9")
		sa.Deliver(900)
		w.Deny(3, sa, ledgertest.Flow(ledger.TmplMismatch, ledger.SiteForward))
	}), Want: []verdict.ID{verdict.PolicyTemplateMismatch}, Says: []string{"mode beet where the SA has tunnel", "src 203.0.113.9 where the SA has 192.0.2.1"},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "through a tunnel into a policy without one", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		w.Policies[0].Templates = nil
		w.Deny(4, sa, ledgertest.Flow(ledger.TmplMismatch, ledger.SiteDeliver))
	}), Want: []verdict.ID{verdict.PolicyTemplateMismatch}, Says: []string{"demands no SA"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "the policy of lower priority number decides", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		w.Policies[0].Priority = 10
		w.Demand("in", sa).Priority = 5
		w.Policies[1].Templates[0].ReqID = 5
		w.Demand("in", sa).Priority = 5
		for i := range w.Policies {
			w.Policies[i].Used = ledgertest.Start // each was once alone
		}
		w.Deny(4, sa, ledgertest.Flow(ledger.TmplMismatch, ledger.SiteDeliver))
	}), Want: []verdict.ID{verdict.PolicyTemplateMismatch}, Says: []string{"policy index 16", "priority 5"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "plaintext to a protected network", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Deliver(100)
		w.Deny(12, nil, ledgertest.Flow(ledger.TmplMismatch, ledger.SiteDeliver))
	}), Want: []verdict.ID{verdict.PlaintextRefused}, Says: []string{"12 packets", "came in plaintext", "policy index 8"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "a policy that covers IKE itself", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		r := ledgertest.Flow(ledger.TmplMismatch, ledger.SiteDeliver)
		r.SrcPort, r.DstPort = 500, 500
		w.Deny(5, nil, r)
	}), Want: []verdict.ID{verdict.PlaintextRefused}, Says: []string{"of IPsec itself"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "template mismatch, no hooks", Leaky: true, Prepare: func(w *ledgertest.World) func() {
		w.BlindStack = true
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() { sa.Block(9, ledger.TmplMismatch) }
	}, Want: []verdict.ID{verdict.PlaintextRefused}, Says: []string{"9 packets", "not known"}, Grade: verdict.Warning, Sure: 0.6},
	{Name: "no forward policy", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Deliver(10)
		w.Deny(50, sa, ledgertest.Flow(ledger.NoPols, ledger.SiteForward))
	}), Want: []verdict.ID{verdict.PolicyMissing}, Says: []string{"no fwd policy is for them, while policy index 8 (dir in"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "handed to another namespace with its security path", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		r := ledgertest.Flow(ledger.NoPols, ledger.SiteForward)
		r.Elsewhere = true
		w.Deny(5, sa, r)
	}), Want: []verdict.ID{verdict.PolicyMissing}, Says: []string{"another network namespace"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "missing policy, no hooks", Leaky: true, Prepare: func(w *ledgertest.World) func() {
		w.BlindStack = true
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() { sa.Block(9, ledger.NoPols) }
	}, Want: []verdict.ID{verdict.PolicyMissing}, Says: []string{"9 packets"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "plaintext that a policy blocks", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		w.Policies[0].Action, w.Policies[0].Templates = "block", nil
		w.Deny(50, nil, ledgertest.Flow(ledger.PolBlock, ledger.SiteDeliver))
	}), Want: []verdict.ID{verdict.PolicyBlocked}, Says: []string{"not decrypted by any SA", "policy index 8", "blocks them"}, Grade: verdict.Info, Sure: 0.99},
	{Name: "decrypted and blocked", Prepare: refusing("fwd", func(w *ledgertest.World, sa *ledgertest.SA) {
		w.Policies[0].Action, w.Policies[0].Templates = "block", nil
		w.Deny(50, sa, ledgertest.Flow(ledger.PolBlock, ledger.SiteForward))
	}), Want: []verdict.ID{verdict.PolicyBlocked}, Says: []string{"decrypted 50 packets"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "the default blocks plaintext", Prepare: func(w *ledgertest.World) func() {
		w.PolicyDefault = &ledger.PolicyDefault{In: "block", Fwd: "block", Out: "accept"}
		return func() { w.Deny(7, nil, ledgertest.Flow(ledger.NoPols, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.PolicyBlocked}, Says: []string{"the default for fwd is to block"}, Grade: verdict.Info, Sure: 0.99},
	{Name: "outside the SA's selector", Prepare: refusing("in", func(w *ledgertest.World, sa *ledgertest.SA) {
		sa.Entry.Selector = ledger.Selector{Src: ledgertest.Beyond, Dst: ledgertest.Inside, Proto: 6}
		sa.Deliver(1000)
		w.Deny(6, sa, ledgertest.Flow(ledger.StateMismatch, ledger.SiteDeliver))
	}), Want: []verdict.ID{verdict.SelectorMismatch}, Says: []string{"the SA is for src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp only"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "outbound policy without an SA", Prepare: func(w *ledgertest.World) func() {
		sa := w.Outbound(0xc0ffee02)
		w.Demand("out", sa).Templates[0].ReqID = 9
		return func() { w.Deny(40, nil, ledgertest.Flow(ledger.OutNoStates, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.OutboundNoSA},
		Says:  []string{"40 packets", "policy index 8", "SA 0xc0ffee02 comes nearest, but the policy wants reqid 9 where the SA has 1"},
		Grade: verdict.Critical, Sure: 0.99},
	{Name: "an SA that comes on demand", Prepare: func(w *ledgertest.World) func() {
		old := w.Outbound(0xc0ffee02)
		w.Demand("out", old)
		old.End(ledger.EndDeleted)
		return func() {
			w.Deny(2, nil, ledgertest.Flow(ledger.OutNoStates, ledger.SiteForward))
			w.Tick(time.Second)
			w.Outbound(0xc0ffee04).Send(100)
		}
	}, Want: []verdict.ID{verdict.OutboundNoSA}, Says: []string{"SA 0xc0ffee04 was set up during the run"}, Grade: verdict.Info, Sure: 0.99},
	{Name: "local senders without an SA", Prepare: func(w *ledgertest.World) func() {
		w.Demand("out", &ledgertest.SA{Key: ledger.SAKey{Dst: ledgertest.Peer, Proto: ledger.ESP}, Entry: ledger.SADEntry{Src: ledgertest.Here, Mode: "tunnel", ReqID: 3}})
		return func() { w.Residue["XfrmOutNoStates"] += 5; w.Stat["XfrmOutNoStates"] += 5 }
	}, Want: []verdict.ID{verdict.OutboundNoSA}, Says: []string{"refused 5 times", "policy index 8"}, Grade: verdict.Critical, Sure: 0.8},
	{Name: "an xfrm interface without an SA", Prepare: func(w *ledgertest.World) func() {
		w.Furnish()
		w.Link(ledgertest.Other).Kind = "xfrm"
		r := ledgertest.Flow(ledger.OutInterface, ledger.SiteInterface)
		r.Ifindex = ledgertest.Other
		return func() {
			w.Deny(8, nil, r)
			w.Link(ledgertest.Other).Counters["tx_carrier_errors"] += 8
		}
	}, Want: []verdict.ID{verdict.OutboundNoSA}, Says: []string{"8 packets", "thrown away by eth1"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "an xfrm interface without a policy, on a kernel that does not count it", Prepare: func(w *ledgertest.World) func() {
		r := ledgertest.Flow(ledger.OutInterface, ledger.SiteInterface)
		r.Ifindex = ledgertest.Other
		return func() { w.Deny(8, nil, r) }
	}, Want: []verdict.ID{verdict.OutboundNoSA}, Says: []string{"8 packets"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "too large for an xfrm interface", Prepare: func(w *ledgertest.World) func() {
		w.Furnish()
		w.Link(ledgertest.Other).Kind = "xfrm"
		r := ledgertest.Flow(ledger.OutInterface, ledger.SiteInterface)
		r.Ifindex = ledgertest.Other
		w.Demand("out", w.Outbound(0xc0ffee02)).IfID = 42
		return func() { w.Deny(8, nil, r) }
	}},
	{Name: "an outbound policy that blocks", Prepare: func(w *ledgertest.World) func() {
		sa := w.Outbound(0xc0ffee02)
		block := w.Demand("out", sa)
		block.Action, block.Templates, block.Priority = "block", nil, 1
		p := w.Demand("out", sa)
		p.MarkValue, p.MarkMask = 0xd00, 0xf00
		return func() { w.Deny(30, nil, ledgertest.Flow(ledger.OutPolBlock, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.OutboundPolicyBlock}, Says: []string{"policy index 8", "policy index 16", "wants mark 0xd00/0xf00, and the packets have 0x0"},
		Grade: verdict.Warning, Sure: 0.99},
	{Name: "the default blocks what is forwarded", Prepare: func(w *ledgertest.World) func() {
		w.PolicyDefault = &ledger.PolicyDefault{In: "accept", Fwd: "accept", Out: "block"}
		return func() { w.Deny(30, nil, ledgertest.Flow(ledger.OutDefaultBlock, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.OutboundPolicyBlock}, Says: []string{"the default for out is to block"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "local senders blocked", Prepare: func(w *ledgertest.World) func() {
		return func() { w.Residue["XfrmOutPolBlock"] += 5; w.Stat["XfrmOutPolBlock"] += 5 }
	}, Want: []verdict.ID{verdict.OutboundPolicyBlock}, Says: []string{"refused 5 times"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "no route to the peer", Prepare: func(w *ledgertest.World) func() {
		w.Demand("out", w.Outbound(0xc0ffee02))
		return func() { w.Deny(30, nil, ledgertest.Flow(ledger.OutBundleGenError, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.OutboundBundleFailed}, Says: []string{"no route to 192.0.2.1"}, Grade: verdict.Critical, Sure: 0.79},
	{Name: "no source address to reach the peer from", Prepare: func(w *ledgertest.World) func() {
		w.Demand("out", w.Outbound(0xc0ffee02)).Templates[0].Src = netip.IPv4Unspecified()
		return func() { w.Deny(30, nil, ledgertest.Flow(ledger.OutPolError, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.PolicyCheckFailed}, Says: []string{"30 packets", "policy index 8", "no route to 192.0.2.1"}, Grade: verdict.Critical, Sure: 0.79},
	{Name: "a template with the SPI of another SA", Prepare: func(w *ledgertest.World) func() {
		p := w.Demand("out", w.Outbound(0xc0ffee02))
		p.Templates[0].SPI, p.Templates[0].ReqID = 0xc0ffee02, 9
		return func() { w.Deny(30, nil, ledgertest.Flow(ledger.OutPolError, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.PolicyCheckFailed}, Says: []string{"SA 0xc0ffee02 comes nearest, but the policy wants reqid 9 where the SA has 1"}, Grade: verdict.Critical, Sure: 0.99},
	{Name: "a policy that could not be carried out, and is gone", Prepare: func(w *ledgertest.World) func() {
		return func() { w.Deny(30, nil, ledgertest.Flow(ledger.OutPolError, ledger.SiteForward)) }
	}, Want: []verdict.ID{verdict.PolicyCheckFailed}, Says: []string{"the policy look-up failed"}, Grade: verdict.Warning, Sure: 0.99},
	{Name: "an SA that is only reserved", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Refuse(6, ledger.AcquireError) }),
		Want: []verdict.ID{verdict.SALarval}, Says: []string{"6 packets"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "an SA of the wrong direction", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Refuse(6, ledger.StateDirError) }),
		Want: []verdict.ID{verdict.SADirectionMismatch}, Says: []string{"6 packets"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "packets with a padding that cannot be", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(100); sa.Refuse(4, ledger.ProtoError) }),
		Want: []verdict.ID{verdict.PacketMalformed}, Says: []string{"4 packets", "padding or trailer"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "integrity failures that no hook tells, and nothing else", Prepare: untold(3, 3),
		Want: []verdict.ID{verdict.IntegrityFailed}, Says: []string{"3 packets"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "integrity failures that no hook tells, and a padding that cannot be", Prepare: untold(4, 3),
		Want: []verdict.ID{verdict.PacketMalformed, verdict.IntegrityFailed}, Says: []string{"1 packet"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "transport mode here, tunnel mode there", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Refuse(9, ledger.StateModeError) }),
		Want: []verdict.ID{verdict.SAModeDisagreement}, Says: []string{"9 packets", "in tunnel mode here"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "transport mode there, tunnel mode here, found after decryption", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Block(9, ledger.InnerModeError) }),
		Want: []verdict.ID{verdict.SAModeDisagreement}, Says: []string{"9 packets", "in tunnel mode here"}, Grade: verdict.Critical, Sure: 0.95},
	{Name: "some packets of an SA in another mode", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(20); sa.Block(9, ledger.InnerModeError) }),
		Want: []verdict.ID{verdict.SAModeDisagreement}, Says: []string{"9 packets"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "another mode, no hooks", Leaky: true, Prepare: hookless(32, false, func(sa *ledgertest.SA) { sa.Block(9, ledger.InnerModeError) }),
		Want: []verdict.ID{verdict.SAModeDisagreement}, Says: []string{"9 packets"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "no SPI to read, no hooks", Leaky: true, Prepare: hookless(32, false, func(sa *ledgertest.SA) { sa.Deliver(20); sa.Refuse(4, ledger.InHdrError) }),
		Want: []verdict.ID{verdict.PacketMalformed}, Says: []string{"4 packets"}, Grade: verdict.Warning, Sure: 0.8},
	{Name: "headers inside that no policy check can read", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(20); sa.Block(3, ledger.PolHdrError) }),
		Want: []verdict.ID{verdict.PacketMalformed}, Says: []string{"3 packets", "after decryption the headers inside"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "no memory", Prepare: inbound(32, false, func(sa *ledgertest.SA) { sa.Deliver(100); sa.Refuse(2, ledger.InError) }),
		Want: []verdict.ID{verdict.ProcessingFailed}, Says: []string{"2 packets", "no memory"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "too long in UDP", Prepare: func(w *ledgertest.World) func() {
		_, out := overUDP(w, 4500)
		return func() { out.Send(40); out.Number(9); out.Drop(9, ledger.OutProtoError) }
	}, Want: []verdict.ID{verdict.ProcessingFailed}, Says: []string{"9 packets", "longer than an IP packet can be"}, Grade: verdict.Warning, Sure: 0.95},
	{Name: "a policy look-up without memory", Prepare: func(w *ledgertest.World) func() {
		return func() { w.DropLone(2, ledger.PolError) }
	}, Want: []verdict.ID{verdict.PolicyCheckFailed}, Says: []string{"2 packets"}, Grade: verdict.Warning, Sure: 0.95},
}

// refusing is a world of one SA towards here and a policy that demands it.
func refusing(dir string, happen func(*ledgertest.World, *ledgertest.SA)) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		sa := w.Inbound(0xc0ffee01, 32, false)
		w.Demand(dir, sa)
		return func() { happen(w, sa) }
	}
}

// untold is a kernel without the function that tells integrity failures one by one: so many faulty packets, of which the SA itself counts
// so many as such.
func untold(faulty, failed uint64) func(*ledgertest.World) func() {
	return func(w *ledgertest.World) func() {
		w.Hooks = append(w.Hooks, ledger.Hook{Name: "xfrm_audit_state_icvfail", Why: "this kernel has no such function"})
		sa := w.Inbound(0xc0ffee01, 32, false)
		return func() {
			sa.Deliver(100)
			sa.Refuse(faulty, ledger.ProtoError)
			sa.Entry.IntegrityFailed += failed
		}
	}
}
