// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// says demands that the finding's summary holds every one of these.
func (o observation) says(t *testing.T, id string, spi uint32, parts ...string) {
	t.Helper()
	for _, f := range o.report.Findings {
		if f.ID != id || f.Subject.SPI != name(spi) {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(f.Summary, part) {
				t.Errorf("%s on %s does not say %q: %s", id, name(spi), part, f.Summary)
			}
		}
		return
	}
	t.Errorf("no %s on %s", id, name(spi))
}

// TestPeerRestarted lets senders begin anew from number 1, of whose numbers only the latest were seen: one
// that goes back by less than the wire program's window, one by more. Beside them an SA whose packets
// are honestly late by far, and whose sender then goes on from far ahead, as a standby should that takes over.
func TestPeerRestarted(t *testing.T) {
	tunnel.Need(t)
	const before, after, ahead = 300, 120, 5_000_000
	for _, c := range []struct {
		name    string
		options tunnel.Options
		cause   string
	}{
		{"within the window", tunnel.Options{Pairs: 2, Windows: []uint32{32, 256}, LastSeq: 500}, "replay_late"},
		{"far below under ESN", tunnel.Options{Pairs: 2, ESN: true, Windows: []uint32{32, 256}, LastSeq: 20000}, "esn_mis_epoch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			late := tunnel.FirstSPIAtoB + uint32(1)
			b := open(t, c.options, []inject.Rule{{SPI: late, Action: inject.Delay, After: 100, Seqs: []uint32{c.options.LastSeq + 40, c.options.LastSeq + 60}}})
			s := b.tunnel.AtoB[0]
			b.send(s, before)
			b.send(b.tunnel.AtoB[1], before)
			b.settle()
			if err := s.Renumber(b.tunnel.Options, 0); err != nil {
				t.Fatal(err)
			}
			b.send(s, after)
			twin := b.tunnel.AtoB[1]
			if err := twin.Renumber(b.tunnel.Options, c.options.LastSeq+ahead); err != nil {
				t.Fatal(err)
			}
			b.send(twin, after)
			o := b.finish()
			took := o.find(t, twin.SPI, "in")
			diff(t, "the twin: packets, restarts, jumps, decapsulated, unattributed", []int64{before + after, 0, 1, before + after, 0},
				[]int64{took.Wire.Packets, took.Wire.Restarts, took.Wire.Jumps, value(took.Ledger.Decapsulated), value(took.Ledger.Unattributed)})
			got := o.find(t, s.SPI, "in")
			diff(t, "wire: packets, restarts, jumps, highest", []int64{before + after, 1, 0, after},
				[]int64{got.Wire.Packets, got.Wire.Restarts, got.Wire.Jumps, int64(got.Wire.HighestSeq)})
			diff(t, "causes", cause(c.cause, after), nonzero(got.Xfrm))
			diff(t, "dropped by xfrm, decapsulated, unattributed", []int64{after, before, 0},
				[]int64{value(got.Ledger.XfrmDropped), value(got.Ledger.Decapsulated), value(got.Ledger.Unattributed)})
			diff(t, "late packets of the other SA", int64(2), o.find(t, late, "in").Wire.Late)
			o.checkFindings(t, "peer-restarted "+name(s.SPI))
			o.says(t, "peer-restarted", s.SPI, "began anew", "120 packets", "not an attack")
			o.checkSelf(t)
		})
	}
}

// TestLossPatterns loses numbers in bursts, at random and regularly, and marks packets: each SA gets its
// own name for what happened, and a mark without a loss is only told.
func TestLossPatterns(t *testing.T) {
	tunnel.Need(t)
	const packets = 200
	var bursts []uint32
	for _, at := range []uint32{10, 24, 45, 57, 90, 101, 130, 145, 167, 176} {
		bursts = append(bursts, at, at+1, at+2, at+3)
	}
	// Distances as chance makes them: many small ones, few large ones.
	random := []uint32{11, 13, 16, 21, 24, 60, 62, 65, 71, 110, 113, 120, 122, 192}
	rules := []inject.Rule{
		on(inject.Drop, 0, bursts...), on(inject.Drop, 0, random...), on(inject.Drop, 0, inject.Every(10, 190, 10)...),
		on(inject.Mark, 0, inject.Every(5, 195, 10)...), on(inject.Mark, 0, inject.Every(4, 196, 4)...),
	}
	for i := range rules[:4] {
		rules[i].SPI = tunnel.FirstSPIAtoB + uint32(i)
	}
	rules[4].SPI = tunnel.FirstSPIAtoB + 4
	rules = append(rules, inject.Rule{SPI: tunnel.FirstSPIAtoB + 3, Action: inject.Drop, Seqs: []uint32{100, 101, 102, 103}})
	b := open(t, tunnel.Options{Pairs: 5}, rules)
	for range packets / burst {
		for _, s := range b.tunnel.AtoB {
			b.send(s, burst)
		}
	}
	o := b.finish()
	for i, s := range b.tunnel.AtoB {
		b.checkIn(o, s, map[string]int64{})
		want := []int64{0, 0, 0, 20, 49}[i]
		if got := o.find(t, s.SPI, "in").Wire.CE; got != want {
			t.Errorf("SA %s: %d marks, want %d", name(s.SPI), got, want)
		}
	}
	spi := func(i int) uint32 { return b.tunnel.AtoB[i].SPI }
	o.checkFindings(t, "path-loss "+name(spi(0)), "path-loss "+name(spi(1)), "path-loss "+name(spi(2)),
		"congestion "+name(spi(3)), "congestion "+name(spi(4)))
	o.says(t, "path-loss", spi(0), "in bursts, up to 7 in a row")
	o.says(t, "path-loss", spi(1), "one at a time and at random")
	o.says(t, "path-loss", spi(2), "regularly, about every 10 numbers")
	o.says(t, "congestion", spi(3), "20 packets", "4 packets of 200")
	o.says(t, "congestion", spi(4), "49 packets")
	o.checkSelf(t)
}

// TestPolicing limits one SA to a rate. Beside it one loses every fifth packet whatever its rate is: that
// is as regular, and no rate limit.
func TestPolicing(t *testing.T) {
	tunnel.Need(t)
	const limited, regular, rate = 1601, 300, 120
	b := open(t, tunnel.Options{Pairs: 2}, []inject.Rule{
		{SPI: tunnel.FirstSPIAtoB + 1, Action: inject.Drop, Seqs: inject.Every(5, regular-5, 5)},
	})
	s, twin := b.tunnel.AtoB[0], b.tunnel.AtoB[1]
	b.send(s, 1) // opens the SA, so that its first number is known
	b.path.Police(inject.AtoB, s.SPI, rate)
	// Now fast, now slow, and always faster than the limit.
	for i := range (limited - 1) / 100 {
		if err := b.flows[s.SPI].Send(100, pace*time.Duration(1+i/2%2*2)); err != nil {
			t.Fatal(err)
		}
	}
	b.path.Police(inject.AtoB, s.SPI, 0)
	b.send(s, 1) // and the last one, so that all before it are known to be missing
	b.send(twin, regular)
	o := b.finish()
	b.checkIn(o, s, map[string]int64{})
	b.checkIn(o, twin, map[string]int64{})
	o.checkFindings(t, "policing-suspected "+name(s.SPI), "path-loss "+name(twin.SPI))
	o.says(t, "policing-suspected", s.SPI, "never more")
	o.says(t, "path-loss", twin.SPI, "regularly, about every 5 numbers")
	o.checkSelf(t)
}
