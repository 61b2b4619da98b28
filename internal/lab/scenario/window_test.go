// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// windowPattern is the sentence that names the window which would have lost nothing.
var windowPattern = regexp.MustCompile(`A window of (\d+) would have lost nothing`)

// TestRecommendedWindow takes the advice: the window that a report names loses nothing of the same
// traffic, and one smaller loses something, so it is not just large but right.
func TestRecommendedWindow(t *testing.T) {
	tunnel.Need(t)
	t.Run("32 bits", func(t *testing.T) { takeAdvice(t, false, "replay-window-too-small", "replay_late") })
	t.Run("ESN", func(t *testing.T) { takeAdvice(t, true, "esn-mis-epoch", "esn_mis_epoch") })
}

func takeAdvice(t *testing.T, esn bool, id, kind string) {
	t.Helper()
	reordered := func(windows ...uint32) (*bench, observation) {
		var rules []inject.Rule
		for i := range windows {
			spi := tunnel.FirstSPIAtoB + uint32(i)
			rules = append(rules, inject.Rule{SPI: spi, Action: inject.Delay, After: 45, Seqs: []uint32{60}},
				inject.Rule{SPI: spi, Action: inject.Delay, After: 90, Seqs: []uint32{150}})
		}
		b := open(t, tunnel.Options{ESN: esn, Pairs: len(windows), Windows: windows}, rules)
		for _, s := range b.tunnel.AtoB {
			b.send(s, packets)
		}
		return b, b.finish()
	}

	b, o := reordered(32)
	first := b.tunnel.AtoB[0]
	b.checkOne(o, first, cause(kind, 2))
	o.checkFindings(t, id+" "+name(first.SPI))
	if t.Failed() {
		return
	}
	match := windowPattern.FindStringSubmatch(o.report.Findings[0].Summary)
	if match == nil {
		t.Fatalf("no window is named in %q", o.report.Findings[0].Summary)
	}
	window, err := strconv.ParseUint(match[1], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "recommended window", uint64(b.path.Truth(inject.AtoB, first.SPI).Wire().Displacement+1), window)

	b, o = reordered(uint32(window), uint32(window)-1)
	enough, short := b.tunnel.AtoB[0], b.tunnel.AtoB[1]
	b.checkIn(o, enough, map[string]int64{})
	b.checkCounters(enough, map[string]int64{})
	b.checkOne(o, short, cause(kind, 1))
	o.checkFindings(t, id+" "+name(short.SPI))
}

// TestWhoReorders has two SAs whose packets come late: those of one were held back inside gateway B, behind
// the wire hook, where RPS or parallel crypto would do it as well; those of the other on the path.
func TestWhoReorders(t *testing.T) {
	tunnel.Need(t)
	const sent, late = 150, 60
	held := []uint32{50, 51}
	const there = tunnel.FirstSPIAtoB + 1
	b := open(t, tunnel.Options{Pairs: 2}, []inject.Rule{{SPI: there, Action: inject.Delay, After: late, Seqs: held}})
	b.must(b.tunnel.B.IP("link add held type ifb", "link set held up"))
	b.run("tc", "", "qdisc", "replace", "dev", "held", "root", "plug", "limit", "1000000")
	b.run("tc", "", "qdisc", "replace", "dev", tunnel.WAN, "clsact")
	for _, seq := range held {
		b.run("tc", "", "filter", "add", "dev", tunnel.WAN, "ingress", "protocol", "ip", "u32", "match", "ip", "protocol", "50", "0xff",
			"match", "u32", name(tunnel.FirstSPIAtoB), "0xffffffff", "at", "20", "match", "u32", fmt.Sprint(seq), "0xffffffff", "at", "24",
			"action", "mirred", "egress", "redirect", "dev", "held")
	}
	for _, s := range b.tunnel.AtoB {
		b.send(s, sent)
	}
	b.settle()
	b.run("tc", "", "qdisc", "change", "dev", "held", "root", "plug", "release_indefinite")
	o := b.finish()

	causes := cause("replay_late", int64(len(held)))
	for i, want := range []int{0, len(held)} {
		s := b.tunnel.AtoB[i]
		diff(t, "late on the wire, by the injector", want, b.path.Truth(inject.AtoB, s.SPI).Wire().Late)
		b.checkIn(o, s, causes)
		b.checkCounters(s, causes)
	}
	b.checkStat(o, cause("replay_late", 2*int64(len(held))))
	o.checkFindings(t, "replay-window-too-small "+name(tunnel.FirstSPIAtoB), "replay-window-too-small "+name(there))
	o.says(t, "replay-window-too-small", tunnel.FirstSPIAtoB, "The order is lost inside this host", fmt.Sprintf("A window of %d would have lost nothing", sent-held[0]+1))
	// Of the packets that 50 waits for, 51 is none.
	o.says(t, "replay-window-too-small", there, "The path reorders", fmt.Sprintf("A window of %d would have lost nothing", late+2))
	o.checkSelf(t)
}
