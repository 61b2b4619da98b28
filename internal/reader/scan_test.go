// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/ledger"
)

// equalAddresses lets cmp compare what it cannot look into.
var equalAddresses = cmpopts.EquateComparable(ledger.SAKey{}, ledger.WireSA{}.Src)

// TestRestChangesNothing has two readers of the same tables, of which one cannot map them and therefore reads every SA
// each time. Whatever the packets do, and however they are spread over time, their snapshots are the same.
func TestRestChangesNothing(t *testing.T) {
	for _, slots := range []uint32{64, 2 * scanSlots} { // looked through, and asked for
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			const sas = 40
			g := newRig(t, slots)
			mapped, plain := g.reader(Options{}), g.reader(Options{})
			if mapped.table.mem == nil {
				t.Skip("this kernel cannot map the table")
			}
			plain.table.mem = nil
			plain.monoStart = mapped.monoStart
			rng := rand.New(rand.NewPCG(1, uint64(slots)))
			var next [sas + 1]uint32
			rested := 0
			for round := range 400 {
				for range rng.IntN(4) {
					spi := uint32(rng.IntN(sas) + 1)
					if round < 200 {
						spi = (spi + 1) / 2 // the others come later
					}
					g.disturb(rng, spi, &next[spi])
				}
				g.now = g.now.Add([]time.Duration{0, 40, 250, 250, 1000, 3000}[rng.IntN(6)] * time.Millisecond)
				if rng.IntN(3) > 0 {
					must(t, mapped.Sample())
					must(t, plain.Sample())
					continue
				}
				got, want := snapshot(t, mapped, nil), snapshot(t, plain, nil)
				if diff := cmp.Diff(want.Wire, got.Wire, equalAddresses); diff != "" {
					t.Fatalf("round %d, SAs (-all read +at rest left out):\n%s", round, diff)
				}
				if diff := cmp.Diff(want.NAT, got.NAT, equalAddresses); diff != "" {
					t.Fatalf("round %d, bindings (-all read +at rest left out):\n%s", round, diff)
				}
				for _, p := range mapped.rest {
					if p != (progress{}) {
						rested++
					}
				}
			}
			if rested < 100 {
				t.Errorf("SAs were at rest %d times: too few to tell", rested)
			}
		})
	}
}

// disturb sends some packets of an SA, in order or in one of the ways out of it.
func (g *rig) disturb(rng *rand.Rand, spi uint32, next *uint32) {
	g.t.Helper()
	pass := func(n uint32) {
		for range n {
			*next++
			g.send(spi, *next)
		}
	}
	switch rng.IntN(8) {
	case 0:
		*next += uint32(rng.IntN(50)) // a gap
		pass(1)
	case 1:
		g.send(spi, max(1, *next), max(1, *next)) // repeated
	case 2:
		g.send(spi, 1+uint32(rng.IntN(int(*next)+1))) // late or repeated
	case 3:
		*next += 20000 // a leap, confirmed or not
		pass(uint32(4 + rng.IntN(8)))
	case 4:
		*next = 0 // begun anew
		pass(40)
	default:
		pass(uint32(rng.IntN(6)))
	}
}

// TestWakes has one packet come after a long rest: each figure moves by it, and the rate is that of the last interval.
func TestWakes(t *testing.T) {
	g := newRig(t, 16)
	r := g.reader(Options{})
	if r.table.mem == nil {
		t.Skip("this kernel cannot map the table")
	}
	g.send(1, 1, 2, 3)
	tick := func(n int) {
		for range n {
			must(t, r.Sample())
			g.now = g.now.Add(250 * time.Millisecond)
		}
	}
	tick(1)
	slot := r.awake[0]
	tick(3)
	if r.rest[slot] != (progress{}) {
		t.Error("at rest before the grace period is over")
	}
	tick(40)
	if r.rest[slot] == (progress{}) || len(r.awake) != 0 {
		t.Errorf("not at rest: %d are awake", len(r.awake))
	}
	heard := r.monoStart + g.now.Sub(r.started)
	g.send(1, 4)
	tick(1)
	if len(r.awake) != 1 {
		t.Errorf("%d are awake, want the one", len(r.awake))
	}
	w := find(t, snapshot(t, r, nil), 1)
	if w.Packets != 4 || w.PacketsBefore != 4 || w.Unique != 4 || w.LastSeen != heard || w.CleanRateMax != 4 {
		t.Errorf("after its packet: %+v; heard at %v", w, heard)
	}
}
