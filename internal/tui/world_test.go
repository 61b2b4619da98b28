// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // screens show local time
	os.Exit(m.Run())
}

// stage is a ledger that a made-up host feeds, and the model that watches it.
type stage struct {
	world  *ledgertest.World
	ledger *ledger.Ledger
	model  *Model
	events []Event
}

// raise takes the baseline of a world.
func raise(w *ledgertest.World, o Options) *stage {
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	s := &stage{world: w, model: New(o)}
	s.begin()
	s.look()
	return s
}

func (s *stage) begin() {
	s.ledger = ledger.New(ledger.Source{Kind: ledger.KindLive, Name: "gw-b", Kernel: "6.1.0-test"})
	s.ledger.SetHooks([]ledger.Hook{
		{Name: "xdp on wan", Attached: true, Why: "xdp"},
		{Name: "ip_rcv", Why: "no BTF", Costs: "nothing is said of what arrived"},
	})
}

// frame is what the ledger says now.
func (s *stage) frame() Frame {
	s.ledger.Observe(s.world.Snapshot())
	r := s.ledger.Report()
	f := Frame{At: s.world.Now(), Report: r, Findings: verdict.Judge(r), Scope: "the whole run", CPU: 1.25, Events: s.events}
	s.events = nil
	return f
}

func (s *stage) look() { s.model.Update(s.frame()) }

// run lets so many seconds pass, each with the same happening, and a look after each.
func (s *stage) run(seconds int, happen func(second int)) {
	for i := range seconds {
		happen(i)
		s.world.Tick(time.Second)
		s.look()
	}
}

// press types keys, by the names that the library gives them.
func (s *stage) press(names ...string) {
	for _, name := range names {
		s.model.Update(keyPress(name))
	}
}

var special = map[string]rune{
	"up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft, "right": tea.KeyRight, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown,
	"home": tea.KeyHome, "end": tea.KeyEnd, "enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "backspace": tea.KeyBackspace,
}

func keyPress(name string) tea.KeyPressMsg {
	if code, ok := special[name]; ok {
		return tea.KeyPressMsg{Code: code}
	}
	if name == "ctrl+c" {
		return tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
	}
	return tea.KeyPressMsg{Code: []rune(name)[0], Text: name}
}

func (s *stage) size(width, height int) {
	s.model.Update(tea.WindowSizeMsg{Width: width, Height: height})
}

// troubled is a gateway with three SAs, on each of which something happens.
func troubled() *stage {
	w := ledgertest.New()
	w.Flows = &ledger.FlowTable{Fates: map[string]uint64{}}
	w.WatchPMTU()
	bytes := uint64(18_770_123)
	w.Self = ledger.Self{NsPerRun: map[string]float64{"xdp_ingress": 212, "kfree_skb": 96}, Runs: map[string]uint64{"xdp_ingress": 1000, "kfree_skb": 10},
		MapBytes: &bytes, CPUPercent: 1.1}
	in, out := w.Inbound(0xc0ffee01, 32, false), w.Outbound(0xc0ffee02)
	in.Entry.Lifetimes = ledger.Lifetimes{SoftAdd: time.Hour, HardAdd: 66 * time.Minute, HardPackets: 1 << 32}
	talk := w.IKE(0xa1)
	w.Names = []ledger.SAName{{Key: in.Key, ReqID: 1, Connection: "branch", Child: "lan", IKE: 0xa1}, {Key: out.Key, ReqID: 1, Connection: "branch", Child: "lan", IKE: 0xa1}}
	s := raise(w, Options{})
	var next *ledgertest.SA
	s.run(40, func(i int) {
		w.Self.Runs = map[string]uint64{"xdp_ingress": uint64(1000 + 2000*(i+1)), "kfree_skb": uint64(10 * (i + 1))}
		carrier := in
		if next != nil {
			carrier = next
		}
		carrier.Deliver(900)
		out.Send(800)
		switch {
		case i%10 == 3:
			carrier.Lose(uint64(4 * (i + 1)))
			s.events = append(s.events, Event{At: w.Now(), Kind: "gap", Key: EventKey{carrier.Key.SPI, carrier.Key.Dst, ledger.In},
				Text: fmt.Sprintf("192.0.2.1 > 192.0.2.2 seq=%d skipped=%d after=%d dev=wan cpu=0", 1000*i, 4*(i+1), 1000*i-4*(i+1))})
		case i%10 == 5:
			carrier.Reorder(3, 20)
			carrier.Reorder(7, 51)
		case i == 17:
			sender, reader := w.Talk(in, out)
			w.Stall(reader, sender, 3, 1500*time.Millisecond)
			w.Learn(1400)
			out.Told(1400, 3)
			in.SoftExpire()
			talk.Exchange(ike.CreateChild, 3)
			next = w.Inbound(0xc0ffee03, 64, true).Announce()
		case i == 19:
			in.End(ledger.EndDeleted)
			in.Knock(3)
		case i == 26:
			out.Withhold(5, "nf_hook_slow", "NETFILTER_DROP", "output")
			next.Stop(3, "ip_rcv_finish_core", "IP_RPFILTER", "prerouting")
			next.Block(2, ledger.NoPols)
			next.Vanish(1)
		}
	})
	return s
}

// quiet is a gateway whose one SA is healthy.
func quiet() *stage {
	w := ledgertest.New()
	in := w.Inbound(0xc0ffee01, 128, false)
	s := raise(w, Options{})
	s.run(5, func(int) { in.Deliver(100) })
	return s
}

// deserted is a gateway without an SA.
func deserted() *stage { return raise(ledgertest.New(), Options{}) }

// crowded is a gateway with n inbound SAs from as many peers, every seventh of which loses packets.
func crowded(n int) *stage {
	w := ledgertest.New()
	sas := make([]*ledgertest.SA, n)
	for i := range sas {
		sas[i] = w.Inbound(ledger.SPI(0x1000+i), 32, false)
		sas[i].Wire.Src = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		sas[i].Entry.Src, sas[i].Entry.ReqID = sas[i].Wire.Src, uint32(i+1)
	}
	s := raise(w, Options{})
	s.run(3, func(second int) {
		for i, sa := range sas {
			sa.Deliver(uint64(10 + i%5))
			if i%7 == 0 && second < 2 {
				sa.Lose(uint64(1 + i%3))
			}
		}
	})
	return s
}

// lengthy is a gateway where everything is as long as it can be: addresses, names, numbers.
func lengthy() *stage {
	w := ledgertest.New()
	in, out := w.Inbound(0xffffffff, 4096, true), w.Outbound(0xfffffffe)
	here, peer := netip.MustParseAddr("2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa"), netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666")
	for _, sa := range []*ledgertest.SA{in, out} {
		src, dst := peer, here
		if sa == out {
			src, dst = here, peer
		}
		sa.Key.Dst, sa.Wire.Key.Dst, sa.Entry.Key.Dst = dst, dst, dst
		sa.Wire.Src, sa.Entry.Src, sa.Entry.ReqID, sa.Entry.IfID = src, src, 4294967295, 4294967295
		w.Names = append(w.Names, ledger.SAName{Key: sa.Key, ReqID: 4294967295,
			Connection: "a-connection-with-a-very-long-name-that-somebody-chose\x1b[31m", Child: "and-a-child-数据中心-of-the-same-kind"})
	}
	s := raise(w, Options{})
	s.run(5, func(int) { in.Deliver(1_234_567_890); in.Lose(98_765_432); out.Send(987_654_321) })
	return s
}
