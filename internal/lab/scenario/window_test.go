// SPDX-License-Identifier: Apache-2.0

package scenario

import (
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
