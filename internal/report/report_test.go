// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldens are the reports that are kept in full: each shows another part of the layout.
var goldens = map[string]func() ledger.Report{
	"flows": func() ledger.Report {
		w := ledgertest.New()
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		w.Flows = &ledger.FlowTable{Fates: map[string]uint64{}}
		return w.Run(func() {
			in.Deliver(3000)
			out.Send(3000)
			sender, reader := w.Talk(in, out)
			w.Stall(reader, sender, 3, 1500*time.Millisecond)
			sender, _ = w.Talk(out, in)
			sender.Retransmissions, sender.Congested = 25, 4
			sender.RTT.SmoothedMax, sender.RTT.Max = 700*time.Millisecond, 900*time.Millisecond
			w.Talk(in, out)
			w.Flows.Fates["paged"] = 12
			w.Flows.Fates["opened"] += 2
		})
	},
	"policies": func() ledger.Report {
		w := ledgertest.New()
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		w.PolicyDefault = &ledger.PolicyDefault{In: "accept", Fwd: "accept", Out: "block"}
		w.Demand("in", in).Templates[0].ReqID = 77
		w.Demand("out", out)
		w.Policies[1].MarkValue, w.Policies[1].MarkMask = 0xd00, 0xf00
		return w.Run(func() {
			in.Deliver(900)
			out.Send(300)
			w.Deny(40, in, ledgertest.Flow(ledger.TmplMismatch, ledger.SiteDeliver))
			w.Deny(30, in, ledgertest.Flow(ledger.NoPols, ledger.SiteForward))
			w.Deny(12, nil, ledgertest.Flow(ledger.TmplMismatch, ledger.SiteDeliver))
			w.Deny(8, nil, ledgertest.Flow(ledger.OutDefaultBlock, ledger.SiteForward))
			for i := range 22 {
				r := ledgertest.Flow(ledger.OutNoStates, ledger.SiteForward)
				r.DstPort = uint16(5000 + i)
				w.Deny(1, nil, r)
			}
		})
	},
	"pmtu": func() ledger.Report {
		w := ledgertest.New()
		w.WatchPMTU()
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return w.Run(func() {
			in.Deliver(500)
			out.Send(900)
			out.Told(1400, 3)
			w.Learn(1400)
			out.TooBig("10.2.0.1", "10.1.0.1", 6, 1500, 1346, 12, 12, 0)
			out.TooBig("10.2.0.7", "10.1.0.1", 6, 1500, 1346, 30, 30, 9)
			out.TooBig("10.2.0.9", "10.1.0.1", 6, 1500, 1346, 14, 0, 4)
			out.Cut(80, 1456, 1400)
			in.Expire(6)
		})
	},
	"clean": func() ledger.Report {
		w := ledgertest.New()
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		return w.Run(func() { in.Deliver(123456); out.Send(123456) })
	},
	"faults": func() ledger.Report {
		w := ledgertest.New()
		a, b := w.Inbound(0xc0ffee01, 32, false), w.Inbound(0xc0ffee03, 64, true)
		out, alien := w.Outbound(0xc0ffee02), w.Foreign(0xdeadbeef)
		healthy := w.Inbound(0xc0ffee05, 128, false)
		w.Self.Suppressed, w.Self.Lost = 0, map[string]uint64{}
		return w.Run(func() {
			a.Deliver(98765)
			a.Lose(120)
			a.Repeat(5, 2)
			a.Reorder(31, 90)
			a.Block(2, ledger.NoPols)
			b.Deliver(5000)
			b.Reorder(12, 700)
			b.Corrupt(3)
			b.End(ledger.EndExpired)
			b.Knock(9)
			out.Send(4000)
			out.Drop(6, ledger.OutModeError)
			alien.Knock(17)
			healthy.Deliver(42)
			out.Withhold(5, "nf_hook_slow", "NETFILTER_DROP", "output")
			out.Spill(2, "kfree_skb_list_reason", "QDISC_DROP")
			healthy.Stop(3, "ip_rcv_finish_core", "IP_RPFILTER", "prerouting")
			healthy.Swallow(4, "ip_error", "NOT_SPECIFIED", "")
			healthy.Swallow(1, "tcp_rcv_established", "TCP_OLD_DATA", "")
			w.DropLone(3, ledger.OutNoStates)
			w.Stat["XfrmOutPolBlock"] += 2
			w.Residue["XfrmOutPolBlock"] += 2
		})
	},
	"host": func() ledger.Report {
		w := ledgertest.New()
		h := w.Furnish()
		h.Notes = []string{"queues of devices (sysfs): not readable: operation not permitted"}
		in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
		w.Latency = &ledger.LatencyTable{}
		return w.Run(func() {
			hist := make([]uint64, 32)
			hist[11], hist[15] = 9900, 40
			w.Latency = &ledger.LatencyTable{SAs: []ledger.SALatency{
				{Key: in.Key, Packets: 9940, SumNs: 9940 * 3300, MaxNs: 61234, Async: 12, Hist: hist}},
				Unknown: map[string]uint64{"segmented": 30}}
			in.Deliver(5000)
			in.Lose(60)
			in.Deliver(4940)
			out.Send(3988)
			out.Spill(12, "kfree_skb_list_reason", "QDISC_DROP")
			wan, other := w.Link(ledgertest.WAN), w.Link(ledgertest.Other)
			wan.Counters["rx_packets"] += 9940
			wan.Counters["rx_missed_errors"] += 60
			wan.DriverCounters["rx_no_buffer_count"] += 60
			wan.Qdiscs[0].Packets, wan.Qdiscs[0].Bytes, wan.Qdiscs[0].Drops = 11988, 13600000, 12
			other.Counters["tx_dropped"] += 3
			w.Work(1, 3000, 300, 2100)
			h.CPUs[1].Processed, h.CPUs[1].Squeezed = 19880, 41
		})
	},
	"ike": func() ledger.Report {
		w := ledgertest.New()
		in, out, t := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02), w.IKE(0xa1)
		w.Names = []ledger.SAName{{Key: in.Key, ReqID: 1, Connection: "branch", Child: "lan", IKE: 0xa1}}
		return w.Run(func() {
			t.Exchange(ike.Informational, 2)
			in.Deliver(100)
			out.Send(100)
			w.Tick(time.Second)
			in.SoftExpire()
			t.Ask(ledger.Local, ike.CreateChild, 3)
			w.Tick(4 * time.Second)
			t.Exchange(ike.CreateChild, 3)
			next := w.Inbound(0xc0ffee03, 32, false).Announce()
			next.Deliver(20)
			w.Tick(time.Second)
			in.End(ledger.EndDeleted)
			w.Tick(500 * time.Millisecond)
			in.Knock(3)
			for range 3 {
				t.Ask(ledger.Remote, ike.Informational, 0)
				w.Tick(4 * time.Second)
			}
		})
	},
	"blind": func() ledger.Report {
		w := ledgertest.New()
		w.BlindStack = true
		in := w.Inbound(0xc0ffee01, 32, false)
		w.Self.Lost = map[string]uint64{"sa_table_full": 0}
		l := ledger.New(ledger.Source{Kind: ledger.KindLive, Kernel: "5.10.0-test"})
		l.SetHooks([]ledger.Hook{
			{Name: "wire xdp on eth0", Attached: true, Why: "native"},
			{Name: "raw_tp/kfree_skb", Why: "operation not permitted: needs CAP_PERFMON", Costs: "drops are counted, but not explained packet by packet"},
		})
		l.Observe(w.Snapshot())
		in.Deliver(1000)
		in.Reorder(8, 40)
		in.Vanish(2)
		w.Stat["XfrmInNoStates"] += 4
		w.Self.Lost = map[string]uint64{"sa_table_full": 3}
		w.Self.Suppressed = 40
		w.Tick(10 * time.Second)
		l.Observe(w.Snapshot())
		return l.Report()
	},
	"capture": func() ledger.Report {
		l := ledger.New(ledger.Source{Kind: ledger.KindCapture, Name: "tunnel.pcapng", Start: ledgertest.Start, DurationS: 12.5})
		w := ledgertest.New()
		w.BlindStack, w.BlindSAD, w.BlindStat = true, true, true
		sa := w.Inbound(0xc0ffee01, 0, false)
		sa.Deliver(900)
		sa.Lose(30)
		sa.Deliver(70)
		s := w.Snapshot()
		for i := range s.Wire {
			s.Wire[i].Key.Direction = ledger.Unknown
		}
		l.Observe(s)
		return l.Report()
	},
}

func TestGolden(t *testing.T) {
	for name, build := range goldens {
		t.Run(name, func(t *testing.T) {
			d := report.New(build())
			var text, js bytes.Buffer
			if err := d.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			if err := d.WriteJSON(&js); err != nil {
				t.Fatal(err)
			}
			compare(t, name+".txt", text.Bytes())
			compare(t, name+".json", js.Bytes())
		})
	}
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read golden file (go test -update writes it): %v", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestWidth holds the text to a terminal's width. Only commands may be longer: they are never broken.
func TestWidth(t *testing.T) {
	for name, build := range goldens {
		var text bytes.Buffer
		if err := report.New(build()).WriteText(&text); err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text.Bytes()) {
			line = bytes.TrimRight(line, "\n")
			if utf8.RuneCount(line) > 100 && !bytes.HasPrefix(line, []byte("          ")) {
				t.Errorf("%s: %d columns: %s", name, utf8.RuneCount(line), line)
			}
			if bytes.HasSuffix(line, []byte(" ")) {
				t.Errorf("%s: trailing space: %q", name, line)
			}
		}
	}
}
